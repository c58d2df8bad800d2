"""The page of step 4: what each rule takes out of the database, or in a dry run would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.pages.model import Heading
from lib.pages.render import picture_url, render
from lib.pages.thumbnails import EMBED_LIMIT, thumbnails

ROWS_AT_ONCE = 100  # of a rule, until the reader turns over


@dataclass(frozen=True)
class CleanupRow:
    """One row that leaves, or an address that is completed."""

    kind: str  # "address", "picture", "result", …
    name: str  # the address itself, the picture's key, or the row's number
    reason: str  # "no scheme"; empty where the rule says it all
    becomes: str = ""  # what an address is completed to
    title: str = ""  # of the picture that it belongs to
    page_url: str = ""  # the page that shows the picture; a link where it is http or https
    file: Path | None = None  # the picture where it has been downloaded
    leaves: str = ""  # what leaves along with it: "2 addresses and 1 result"


@dataclass(frozen=True)
class CleanupRule:
    """A rule with what it takes. `listed` may be fewer than `total`."""

    name: str
    description: str
    rows: int  # of the database
    counts: str  # "3 addresses, 1 picture"
    total: int  # entries that could be listed: what leaves with its picture has none of its own
    listed: Sequence[CleanupRow]

    @property
    def effect(self) -> str:
        """The fate of the rows: "take out", "complete", or either."""
        completed = [bool(row.becomes) for row in self.listed]
        return "complete" if completed and all(completed) else "take out or complete" if any(completed) else "take out"


def render_cleanup_page(
    page: Path,
    heading: Heading,
    rules: Sequence[CleanupRule],
    *,
    only_shown: bool = False,
    embed_limit: int = EMBED_LIMIT,
    workers: int = 0,
) -> str:
    """The page over the rules that found anything, in the order given; `page` is where it will lie."""
    thumbs = thumbnails((row.file for rule in rules for row in rule.listed), page, limit=embed_limit, workers=workers)
    shown = [
        (
            rule,
            [(row, thumbs.get(row.file, "") if row.file else "", picture_url(row.file, page)) for row in rule.listed],
        )
        for rule in rules
    ]
    return render(
        "cleanup", "cleanup.js", page=page, heading=heading, rules=shown, only_shown=only_shown, at_once=ROWS_AT_ONCE
    )
