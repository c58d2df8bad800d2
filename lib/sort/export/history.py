"""The history of a dataset in words: every run that changed what an export takes, in order, with options and counts.

Nothing in it tells of the machine: paths are reduced to names, and options that name hosts, keys and folders of models
are left out. What a list of thousands of runs would say is summed up, and the card says so.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from lib.db import Database
from lib.db.history import PastRun, past_runs, recipes_of
from lib.db.where import name_of_path, without_paths
from lib.errors import EXIT_BLOCKED, EXIT_INTERRUPTED, EXIT_OK
from lib.text import counted, file_name_of

MOST_LINES = 100  # a card is read by people; a collection that took more runs is told in parts
ENDS = 30  # lines at either end of such a list that stay as they are
MOST_VALUES = 8  # of an option, such as prompts

# Counts of each step that are zero where a run has changed nothing that an export takes.
_CHANGES = {
    "collect": ("pages", "results", "queued"),
    "ingest": ("new_pictures", "new_addresses", "new_results", "read_again", "repaired", "undone"),
    "cleanup": ("rows", "undone", "restored"),
    "download": ("done", "new_files", "retired", "opted_out", "undone"),
    "dedup": ("removed", "undone", "restored", "brought_back", "kept", "deleted"),
    "sort": ("sorted", "rebucketed", "withdrawn", "measured", "undone", "taken_out"),
}
# Counts that add up over runs; the others are of what lay there at the time.
_ADDITIVE = {
    *(name for names in _CHANGES.values() for name in names),
    *("queries", "answers", "failed", "known_pictures", "not_moved"),
}
_UNTOLD = {"MiB", "files_a_second", "decoded", "run", "bytes", "seconds"}  # of the machine's work, not of the pictures


def _told(names: str, **usual: Any) -> dict[str, Any]:
    """Options by name, each with the value that goes without saying."""
    return dict.fromkeys(names.split()) | usual


# The options that decide about pictures; those of `_BARE` are told without their flags.
_BARE = ("engine", "mode", "criterion")
_TOLD: Mapping[str, Mapping[str, Any]] = {
    "collect": _told(
        "engine images keywords keywords_file size orientation type licence max_pages max_results replay expand retry"
        " limit"
    ),
    "ingest": _told(
        "source folder url_column encoding rescan retry_failed reparse check repair limit"
    ),
    "cleanup": _told("rule blocklist allowlist min_side languages forget_query restore reset"),
    "download": _told(
        "retry_failed refresh upgrade only blocklist allowlist verify strip_trailing placeholders limit",
        stage="all", robots="obey", max_bytes=50 * 2**20, max_megapixels=200,
    ),
    "dedup": _told(
        "mode hash_size threshold reference near_query far_query least_cosine protect link interactive apply decisions"
        " restore purge limit",
        hash="dct", clip_model="default", remove=["bytes", "pixels", "same"], keep="best",
    ),
    "sort": _told(
        "criterion name where limit high medium min_score keep drop keep_file drop_file labels near_query eps"
        " topic_text topic_top classes max_objects subject vlm_model vlm_prompt max_images drop_opted_out",
        square="separate", tolerance=0.02, strategy="fixed", edges=[0.5, 2.0, 8.0], every=1.0, parts=4, combine="mean",
        long_side=1024, margin=0.0, clip_model="default", min_samples=3, min_objects=1, min_confidence=0.5,
        detector="fasterrcnn_mobilenet_v3_large_320_fpn", vlm_min_score=0.6,
    ),
}  # fmt: skip
_FLAGS = {"source": "import", "folder": "import-folder"}
# Options whose values are files and folders of the machine.
_PATHS = {
    *("images", "keywords_file", "replay", "source", "folder", "blocklist", "allowlist", "placeholders", "reference"),
    *("protect", "apply", "decisions", "folders", "keep_file", "drop_file", "labels", "vlm_prompt", "restore"),
}
_STOPPED = {EXIT_INTERRUPTED: "interrupted", EXIT_BLOCKED: "stopped by a captcha or a block", 1: "ended by an error"}


@dataclass
class Told:
    """Runs that one line tells of: the same step with the same options, and nothing between them that changed a
    picture."""

    step: str
    words: str
    runs: list[PastRun] = field(default_factory=list)

    def line(self) -> str:
        """`2026-11-28, run 7: sort orientation: 94 pictures, 40 landscape`."""
        first, last = self.runs[0], self.runs[-1]
        if first is last:
            when = f"{_date(first)}, run {first.id}"
        else:
            dates = dict.fromkeys((_date(first), _date(last)))
            when = f"{' to '.join(dates)}, {counted(len(self.runs), 'run')} ({first.id} to {last.id})"
        what = " ".join(filter(None, (self.step, self.words)))
        where = dict.fromkeys(map(_folders, self.runs))
        return f"{when}: {what}: {_counts(self.runs)}{''.join(where)}{_end(self.runs)}".rstrip(": ")


def history(db: Database, before: int = 0, most: int = MOST_LINES) -> list[str]:
    """The lines of a card: its recipes, then the runs, oldest first; `before` is the number of the run that writes."""
    unchanged: Counter[str] = Counter()
    told: list[Told] = []
    for run in past_runs(db, before):
        if run.step not in _CHANGES or _is_export(run):  # they show and write, and change nothing of it
            continue
        if not _has_changed(run):
            unchanged[run.step] += 1
            continue
        words = " ".join(_options(run))
        told.append(Told(run.step, words, [run]))
    lines = [*_recipes(db, before), *_compacted(told, most)]
    if unchanged:
        steps = ", ".join(f"{step} {count}" for step, count in sorted(unchanged.items()))
        lines.append(f"Not told: {counted(unchanged.total(), 'run')} that changed none of it ({steps}).")
    return lines


def _recipes(db: Database, before: int) -> list[str]:
    """A sentence for each recipe that runs were part of: whoever has its file can make the dataset again."""
    lines = []
    for (name, digest), runs in recipes_of(db, before).items():
        span = f"{runs[0]} to {runs[-1]}" if len(runs) > 1 else f"{runs[0]}"
        own = ", this export among them" if runs[-1] == before and len(runs) > 1 else ""
        lines.append(f"By recipe {name} (SHA-256 {digest}): {counted(len(runs), 'run')}, {span}{own}.")
    if len(lines) > MOST_VALUES:  # one that was changed again and again has a digest each time
        lines[:-MOST_VALUES] = [f"{counted(len(lines) - MOST_VALUES, 'earlier recipe')}, or versions of one."]
    return lines


def _has_changed(run: PastRun) -> bool:
    """True for a run that changed which pictures there are, what is known of them or which of them an export takes."""
    names = _CHANGES[run.step]
    counts = any(value and (name in names or name.startswith("misread_")) for name, value in run.counts.items())
    return counts or any((run.done, run.undone, run.labels, run.answers, run.downloads))


def _is_export(run: PastRun) -> bool:
    """True for a run that made a dataset, and not for one that took pictures out of those made before."""
    return run.arguments.get("criterion") == "export" and not run.counts.get("taken_out")


def _compacted(told: Sequence[Told], most: int) -> list[str]:
    """About `most` lines: alike runs in a row become one; of a list that is still longer the middle is summed up."""
    if len(told) > most:
        told = [_joined(list(alike)) for _, alike in groupby(told, key=lambda one: (one.step, one.words, _fate(one)))]
    if len(told) <= most:
        return [one.line() for one in told]
    head, middle, tail = told[:ENDS], told[ENDS:-ENDS], told[-ENDS:]
    runs = [run for one in middle for run in one.runs]
    summed = [f"Then {counted(len(runs), 'run')} that are summed up here, by step and not in their order:"]
    by_fate: dict[tuple[str, str], list[PastRun]] = {}
    for one in middle:
        for run in one.runs:
            by_fate.setdefault((run.step, _fate(Told("", "", [run]))), []).append(run)
    summed += [Told(step, "with several options", some).line() for (step, _), some in by_fate.items()]
    return [*(one.line() for one in head), *summed, *(one.line() for one in tail)]


def _joined(alike: Sequence[Told]) -> Told:
    return Told(alike[0].step, alike[0].words, [run for one in alike for run in one.runs])


def _fate(one: Told) -> str:
    """The end of a run as far as sums go: those that were taken back are never added to others."""
    return "".join(f"{run.id}" if run.undone and run.done else "undone" if run.undone else "" for run in one.runs)


def _date(run: PastRun) -> str:
    return run.started_at[:10]


def _options(run: PastRun) -> Iterator[str]:
    given = run.arguments
    if given.get("undo"):
        yield f"--undo {given['undo']}"
        return
    for name, usual in _TOLD[run.step].items():
        value = given.get(name)
        if value in (None, False, "", [], usual):
            continue
        if name == "source" and (inputs := run.inputs):
            yield "--import " + ", ".join(f"{file} (SHA-256 {digest})" for file, digest in inputs)
            continue
        flag = "" if name in _BARE else f"--{_FLAGS.get(name, name.replace('_', '-'))}"
        yield f"{flag} {'' if value is True else _shown(name, value)}".strip()
        if name == "criterion" and value == "quality" and given.get("metric"):
            yield ", ".join(map(str, given["metric"]))


def _folders(run: PastRun) -> str:
    """The folders that a run worked on in place of the workspace's pictures, by their names; empty for none."""
    given = run.arguments
    found = given.get("folders") or [one for one in given.get("what") or () if one != given.get("mode")]
    return f"; in {_shown('folders', found)}" if found else ""


def _shown(name: str, value: Any) -> str:
    """The value of an option as a person types it; of many, the first few, and how many more there are."""
    values = value if isinstance(value, list) else [value]
    shown = [_word(name, one) for one in values[:MOST_VALUES]]
    more = f" and {len(values) - MOST_VALUES:,} more" if len(values) > MOST_VALUES else ""
    return ", ".join(shown) + more


def _word(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    if name in _PATHS:
        text = file_name_of(text)
    elif name in ("clip_model", "detector"):  # a folder of one's own may be one
        text = name_of_path(text)
    elif name == "where":
        text = without_paths(text)
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text


def _counts(runs: Sequence[PastRun]) -> str:
    """The numbers that are not zero; of several runs those that add up."""
    if len(runs) > 1:
        total: Counter[str] = Counter()
        for run in runs:
            total.update({name: value for name, value in run.counts.items() if _is_number(value) and name in _ADDITIVE})
        return ", ".join(_amount(name, value) for name, value in total.items() if value)
    (run,) = runs
    if not run.counts:
        held = {"journal_entries": run.done, "answers": run.answers, "downloads": run.downloads, "labels": run.labels}
        return ", ".join(_amount(name, value) for name, value in held.items() if value)
    numbers = {name: value for name, value in run.counts.items() if name not in _UNTOLD and value}
    return ", ".join(
        _amount(name, value) if _is_number(value) else f"{name.replace('_', ' ')} {file_name_of(str(value))}"
        for name, value in numbers.items()
        if not isinstance(value, float) and not name.endswith("_bytes")
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _amount(name: str, value: int) -> str:
    words = name.replace("_", " ")
    if value == 1 and words.endswith("s") and not words.endswith("ss"):
        words = words[:-3] + "y" if words.endswith("ies") else words[: -2 if words.endswith("sses") else -1]
    return f"{value:,} {words}"


def _end(runs: Sequence[PastRun]) -> str:
    """An end other than the usual one, and what has been taken back since."""
    marks = [f"; {_ended(run)}" for run in runs if _ended(run)]
    if len(runs) > 1:
        marks = [f"; {counted(len(marks), 'run')} not to the end"] if marks else []
    undone, done = sum(run.undone for run in runs), sum(run.done for run in runs)
    if not undone:
        return "".join(marks)
    first = runs[0]
    by = f" by run {first.undone_by}" if len(runs) == 1 and first.undone_by else ""
    date = max(run.undone_at for run in runs)[:10]
    what = "undone" if not done else f"{undone:,} of {undone + done:,} undone"
    rest = "; its labels stay" if first.step == "sort" and first.labels else ""
    return "".join([*marks, f"; {what} on {date}{by}{rest}"])


def _ended(run: PastRun) -> str:
    if run.exit_code is None:
        return "it did not come to its end, and its own counts are not known"
    return _STOPPED.get(run.exit_code, "") if run.exit_code != EXIT_OK else ""
