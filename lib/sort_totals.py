"""What the cards of a sorting's page say of all its pictures."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from lib.pages import Card

REASONS = 40  # different reasons up to which they are words to be counted, and no sentences about one picture
NO_DEFECTS = ("", "no defect found")


@dataclass
class Totals:
    """What the cards say of all pictures; eight bytes a picture and number."""

    labels: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    scores: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[float] = field(default_factory=lambda: array("d"))
    criterion: str = ""

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Totals:
        found = cls()
        for row in rows:
            found.labels[row["label"]] += 1
            found.criterion = row["criterion"]
            if row["score"] is not None:
                found.scores.append(row["score"])
            if row["width"]:
                found.sizes.append(row["width"] * row["height"] / 1e6)
            if row["reason"] in found.reasons or len(found.reasons) < REASONS:
                found.reasons[row["reason"]] += 1
        return found

    def cards(self) -> list[Card]:
        total = self.labels.total()
        cards = [Card("Pictures", total, f"in {_count(len(self.labels), 'bucket')}")]
        if self.sizes:
            cards.append(Card("Median size", f"{median(self.sizes):.2g} MP", "upright, real pixels"))
        if self.criterion == "quality" and self.scores:
            cards.append(Card("Median score", round(median(self.scores), 1), "of 0 to 100"))
        common = [(reason, count) for reason, count in self.reasons.most_common() if reason not in NO_DEFECTS]
        defects = [(reason, count) for reason, count in common if reason.replace(" ", "").isalpha()]  # no "musiq 71.2"
        if len(self.reasons) < REASONS and self.criterion == "quality" and defects:
            reason, count = defects[0]
            cards.append(Card("Named most", reason, f"in {_count(count, 'picture')}"))
        return cards


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
