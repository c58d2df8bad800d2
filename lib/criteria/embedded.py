"""What criteria on CLIP's embeddings share: one is made once, and judged as often as prompts change."""

from __future__ import annotations

import logging
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lib.criteria import Measure, Spread
from lib.db import scores as store
from lib.db.scores import ScoreRow
from lib.models.place import Place

if TYPE_CHECKING:
    from lib.db import Database
    from lib.models.clip import Clip
    from lib.stream import Outcome
    from lib.workspace import Workspace

log = logging.getLogger("gleaner.models")


@dataclass
class Embedded:
    """`model` by name; it is loaded at the preflight, since prompts need it even where all pictures are known."""

    model: str
    place: Place
    device: str = "auto"
    loaded: list[Clip] = field(default_factory=list)

    @property
    def clip(self) -> Clip:
        if not self.loaded:
            from lib.models.clip import load_clip, look_for_weights
            from lib.models.device import choose

            look_for_weights(self.model, self.place)
            self.loaded.append(load_clip(self.model, self.place, choose(self.device)))
        return self.loaded[0]

    @property
    def metric(self) -> str:
        return f"clip {self.clip.name}"

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [(self.metric, self.clip.version)]

    def preflight(self) -> None:
        """Loads the model. Raises MissingWeights, which says which file to put where."""
        self.suggest(self.prompts())

    def prompts(self) -> Sequence[str]:
        """All texts that will be compared with pictures."""
        return ()

    def suggest(self, prompts: Iterable[str]) -> None:
        """An English model does not understand other languages, and says so by no error at all."""
        foreign = next((prompt for prompt in prompts if not _is_latin(prompt)), None)
        if foreign and not self.clip.multilingual:
            log.warning(
                "%r is not in Latin script, and %s knows English; use --clip-model multilingual", foreign, self.model
            )

    def measured(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Spread
    ) -> Iterator[Outcome[Path, Mapping[str, Measure]]]:
        from lib.models.feed import Feed
        from lib.stream import Outcome

        for outcome in Feed(self.clip, self.clip.looking(), spread).outcomes(paths):
            measure = Measure(None, outcome.error)
            if outcome.value is not None:
                seen, vector = outcome.value
                measure = Measure(1.0, "", seen.width, seen.height, seen.format, {}, vector)
            yield Outcome(outcome.item, {self.metric: measure}, "")

    def join(self, parts: Mapping[str, Measure]) -> Measure:
        return parts[self.metric]

    def query_pictures(self, db: Database, workspace: Workspace, queries: Iterable[int]) -> dict[int, np.ndarray]:
        """The embeddings of the pictures that these queries were made with: float32, by the query's number.

        They are kept like any other; a query picture that is gone or broken has none.
        """
        from lib.models.clip import vector_of
        from lib.models.feed import Feed

        found: dict[int, np.ndarray] = {}
        fresh: dict[Path, list[tuple[int, str]]] = defaultdict(list)
        for number, sha256, text in store.query_pictures(db, list(queries)):
            if known := store.known_vectors(db, self.metric, self.clip.version, [sha256]):
                found[number] = vector_of(known[sha256])
            else:
                fresh[workspace.to_path(text)].append((number, sha256))
        for outcome in Feed(self.clip, self.clip.looking()).outcomes(fresh) if fresh else ():
            if outcome.value is None:
                log.warning("the query picture %s cannot be read: %s", outcome.item, outcome.error)
                continue
            seen, vector = outcome.value
            for number, sha256 in fresh[outcome.item]:
                self._keep(db, sha256, seen, vector)
                found[number] = vector_of(vector)
        return found

    def _keep(self, db: Database, sha256: str, seen: Any, vector: bytes) -> None:
        if store.is_preview(db):  # a dry run
            return
        detail = {"width": seen.width, "height": seen.height, "format": seen.format}
        store.save_measures(db, self.metric, self.clip.version, [(ScoreRow(sha256, 1.0, "", detail), vector)])


def _is_latin(text: str) -> bool:
    return all("LATIN" in unicodedata.name(letter, "LATIN") for letter in text if letter.isalpha())
