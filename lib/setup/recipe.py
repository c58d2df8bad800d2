"""A recipe at work: steps 1 to 7 as processes, round after round, until enough pictures are kept or nothing is left.

`lib.cli.recipe` reads and checks the file and makes the `Recipe` of it; here it is run.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.db import open_for_preview
from lib.db.downloads import opted_out
from lib.db.files import iter_present_files
from lib.db.journal import last_counts, table_counts
from lib.db.queries import list_queries
from lib.db.where import Condition
from lib.errors import EXIT_BLOCKED, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, GleanerError
from lib.progress import chunked
from lib.setup.environment import run_child
from lib.text import command_line, counted
from lib.workspace import Workspace

log = logging.getLogger("gleaner.setup")

VARIABLE = "GLEANER_RECIPE"  # tells the steps which recipe they run for; their rows in `runs` keep it
PAGES = 5  # what a query of every engine goes to where nothing is asked for (`Engine.default_pages`)
BLOCK = 500
STOPS = frozenset({"captcha", "blocked"})
ENDINGS = {"ok": "has more pages", "end": "gave all it has", "empty": "found nothing", "captcha": "showed a captcha"}
COLLECT, INGEST = "1_collect.py", "2_ingest_db.py"
ON_FILES = ("6_dedup.py", "7_sort_quality.py")  # which work on pictures that have been downloaded

Words = tuple[str, ...]


class RecipeStepError(GleanerError):
    """A step of a recipe ended with an exit code other than 0, which becomes that of the recipe."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"`{command}` ended with exit code {code}; its reason is above, and the recipe can be rerun.")
        self.exit_code = code


@dataclass(frozen=True)
class Searches:
    """Step 1 of a recipe. `pages` and `results` are how far a query goes in one round; `filters` are among `flags`."""

    engines: Words
    flags: Words
    keywords: Words
    filters: Words
    pages: int | None
    results: int | None
    expand: int | None

    def command(self, round_number: int, engines: Sequence[str], more: Sequence[str] = ()) -> Words:
        """The search of a round: so many times as far as in the first, with the keywords `more` beside its own."""
        keywords = ("--keywords", *self.keywords, *more) if self.keywords or more else ()
        return (COLLECT, "--engine", *engines, *keywords, *self.flags, *self._reach(round_number))

    def queue_command(self, round_number: int, engines: Sequence[str]) -> Words:
        """The search for what `--expand` has queued."""
        return (COLLECT, "--engine", *engines, *self._reach(round_number))

    def expand_command(self, engines: Sequence[str], times: int = 1) -> Words:
        """The command that queues keywords which the titles of the recipe's own searches suggest, so many times as
        many as in the first round: the best of them are queued already."""
        keywords = ("--keywords", *self.keywords) if self.keywords else ()
        number = str((self.expand or 0) * times)
        return (COLLECT, "--expand", number, "--yes", "--engine", *engines, *keywords, *self.filters)

    def _reach(self, round_number: int) -> Words:
        words: Words = ()
        if self.pages is not None:
            words += ("--max-pages", str(self.pages * round_number))
        if self.results is not None:
            words += ("--max-results", str(self.results * round_number))
        return words

    def is_at_its_reach(self, row: dict[str, Any], round_number: int) -> bool:
        """True for a query that ended by our own limit, so that a later round gets more of it."""
        by_pages = self.pages is not None and row["pages"] >= self.pages * round_number
        by_results = self.results is not None and row["items"] >= self.results * round_number
        return bool(row["outcome"] == "ok" and (by_pages or by_results))


@dataclass(frozen=True)
class Recipe:
    """A whole run that was checked. The commands are words without Python and `--workspace`.

    `imports` are those of step 2 that take in files, `others` those of steps 3 to 7 in their order. `where` picks what
    counts as kept.
    """

    path: Path
    text: bytes
    digest: str
    target: int | None
    max_rounds: int
    searches: Searches | None
    imports: tuple[Words, ...]
    others: tuple[Words, ...]
    export: Words | None
    where: Condition | None

    def round(self) -> Iterator[Words]:
        """The commands of the first round, in their order; later ones begin with another search."""
        if self.searches:
            yield self.searches.command(1, self.searches.engines)
        yield from self.imports
        if self.searches:
            yield (INGEST,)
        yield from self.others


@dataclass
class RecipeReport:
    """The end of a recipe: what was kept, in how many rounds, and why it stopped there."""

    kept: int = 0
    rounds: int = 0
    ended: str = ""
    sources: list[str] = field(default_factory=list)
    dataset: bool = False
    exit_code: int = EXIT_OK


class RecipeRun:
    """One run of a recipe in a workspace. `out` is where the steps' results go: a file number, or None for stdout."""

    def __init__(self, python: Path, root: Path, recipe: Recipe, workspace: Path, out: int | None = None) -> None:
        self.python, self.root, self.recipe, self.out = python, root, recipe, out
        self.workspace = Workspace(workspace)
        self.report = RecipeReport()
        self.blocked: set[str] = set()
        self.expanded: list[str] = []
        self.expansions = 0
        self.pictures = 0
        self.recorded = False

    def plan(self) -> Iterator[str]:
        """The commands as they would be run, quoted for a shell; what is no command is a comment."""
        recipe = self.recipe
        yield from (self.line(words) for words in recipe.round())
        if recipe.target and recipe.searches:
            rounds = counted(recipe.max_rounds, "round")
            yield f"# until {counted(recipe.target, 'picture')} are kept, in {rounds} at most; round 2:"
            yield self.line(recipe.searches.command(2, recipe.searches.engines))
            if recipe.searches.expand:
                yield "# where no source has more pages:"
                yield self.line(recipe.searches.expand_command(recipe.searches.engines))
            yield "# then the other steps again, and at the end:" if recipe.export else "# then the other steps again"
        if recipe.export:
            yield self.line(recipe.export)

    def line(self, words: Words) -> str:
        """One command as it is run."""
        return command_line(self._command(words))

    def run(self) -> RecipeReport:
        """Runs it. Raises RecipeStepError where a step fails, KeyboardInterrupt where it was interrupted."""
        for number in range(1, self.recipe.max_rounds + 1):
            came = self._search(number)
            if number > 1 and not came:
                if self._has_more(number):
                    continue
                self.report.ended = "nothing is left to search for"
                break
            self.report.rounds += 1
            if not self._work(number):
                self.report.ended, self.report.exit_code = "nothing was found", EXIT_FAILED
                break
            self.report.kept = self._count_kept()
            log.info("round %d: %s kept", number, counted(self.report.kept, "picture"))
            if not self.recipe.target or self._is_reached():
                break
        self._finish()
        return self.report

    def _is_reached(self) -> bool:
        return self.report.kept >= (self.recipe.target or 0)

    def _search(self, number: int) -> bool:
        """Step 1 of a round; true where it brought pages that were not here."""
        searches = self.recipe.searches
        engines = [name for name in searches.engines if name not in self.blocked] if searches else []
        if searches is None or not engines:
            return False
        if self._collect(searches.command(number, engines, self.expanded)):
            return True
        if number == 1 or self._has_more(number) or not self._expand(searches, engines):
            return False
        return self._collect(searches.queue_command(number, engines))

    def _expand(self, searches: Searches, engines: Sequence[str]) -> bool:
        """Queues further keywords; false where the titles suggest no more."""
        while searches.expand and self.expansions < self.recipe.max_rounds:
            self.expansions += 1
            self._do(searches.expand_command(engines, self.expansions))
            counts = self._last_counts()
            queued = [row["text"] for row in self._queries() if row["state"] == "pending" and row["kind"] == "keyword"]
            self.expanded += dict.fromkeys(text for text in queued if text not in self.expanded)
            if counts.get("queued"):
                return True
            if counts.get("proposed", 0) < searches.expand * self.expansions:
                return False
        return False

    def _collect(self, words: Words) -> bool:
        code = self._do(words, allowed=(EXIT_BLOCKED,))
        if code == EXIT_BLOCKED:  # what the other sources have brought goes on
            held = (row for row in self._queries() if row["state"] == "pending" and row["outcome"] in STOPS)
            self.blocked |= {row["engine"] for row in held}
        return bool(self._last_counts().get("pages"))

    def _has_more(self, number: int) -> bool:
        searches = self.recipe.searches
        rows = [row for row in self._queries() if row["engine"] not in self.blocked]
        return searches is not None and any(searches.is_at_its_reach(row, number) for row in rows)

    def _work(self, number: int) -> bool:
        """Steps 2 to 7 of a round; false where there is no picture to work on. What is new to none needs no work."""
        for words in self.recipe.imports if number == 1 else ():
            self._do(words)
        if self.recipe.searches:
            self._do((INGEST,))
        before = self.pictures
        with open_for_preview(self.workspace.database) as db:
            self.pictures = table_counts(db)["images"]
        if number == 1 or self.pictures > before:
            for words in self.recipe.others if self.pictures else ():
                if words[0] in ON_FILES and not self._has_files():
                    break
                self._do(words)
        return self.pictures > 0

    def _has_files(self) -> bool:
        """True where a picture is there; step 5 has said why where none came."""
        with open_for_preview(self.workspace.database) as db:
            return next(iter_present_files(db), None) is not None

    def _finish(self) -> None:
        report, recipe = self.report, self.recipe
        report.sources = self._sources()
        if recipe.target and not report.ended:
            reached = self._is_reached()
            report.ended = "the target is reached" if reached else f"max_rounds = {recipe.max_rounds} is reached"
        if self.blocked and not (recipe.target and self._is_reached()):
            report.exit_code = EXIT_BLOCKED
        if recipe.export and report.kept:
            self._do(recipe.export)
            report.dataset = True
        elif not report.kept:
            report.exit_code = report.exit_code or EXIT_FAILED
            report.ended = report.ended or f"no picture was kept{', so no dataset was made' if recipe.export else ''}"

    def _sources(self) -> list[str]:
        """Returns for each source in one sentence how its searches ended."""
        ended: dict[str, Counter[str]] = {}
        for row in self._queries():
            how = row["outcome"] or row["state"]
            ended.setdefault(row["engine"], Counter())[ENDINGS.get(how, how.replace("_", " "))] += 1
        return [
            f"{engine}: " + ", ".join(f"{how} ({counted(n, 'query')})" for how, n in counts.items())
            for engine, counts in ended.items()
        ]

    def _queries(self) -> list[dict[str, Any]]:
        if self.recipe.searches is None or not self.workspace.database.exists():
            return []
        with open_for_preview(self.workspace.database) as db:
            return list_queries(db, self.recipe.searches.engines)

    def _last_counts(self) -> dict[str, Any]:
        with open_for_preview(self.workspace.database) as db:
            return last_counts(db, "collect")

    def _count_kept(self) -> int:
        """Pictures that an export would hold: present, not opted out, and picked by `where`."""
        kept = 0
        with open_for_preview(self.workspace.database) as db:
            for block in chunked(iter_present_files(db), BLOCK):
                contents = {sha256 for sha256, _ in block}
                contents -= opted_out(db, sorted(contents))
                kept += len(self.recipe.where.matching(db, sorted(contents)) if self.recipe.where else contents)
        return kept

    def _command(self, words: Words) -> list[str]:
        script = self.root / words[0]
        return [_from_here(self.python), _from_here(script), *words[1:], "--workspace", str(self.workspace.root)]

    def _do(self, words: Words, allowed: tuple[int, ...] = ()) -> int:
        """Runs one command. Raises RecipeStepError and KeyboardInterrupt."""
        line, started = self.line(words), time.monotonic()
        log.info("\n== %s", line)
        name = re.sub(r"[^\w.-]", "_", self.recipe.path.name)[:80]
        environment = {**os.environ, VARIABLE: f"{name} sha256:{self.recipe.digest}"}
        code = run_child(self._command(words), environment=environment, out=self.out, alone=True)
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        if code not in (EXIT_OK, *allowed):
            raise RecipeStepError(line, code)
        log.info("   %.1f s", time.monotonic() - started)
        self._record()
        return code

    def _record(self) -> None:
        """Keeps the recipe's text beside the reports, so that the dataset can be made again."""
        if self.recorded or not self.workspace.database.exists():
            return
        self.recorded = True
        self.workspace.refuse_links()
        self.workspace.reports.mkdir(exist_ok=True)
        (self.workspace.reports / f"recipe-{self.recipe.digest[:8]}.toml").write_bytes(self.recipe.text)


def _from_here(path: Path) -> str:
    """A path as it is written shortest from the current folder."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
