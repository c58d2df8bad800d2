"""`reports/index.html`, the front door of a workspace: how far the steps got, datasets, pictures, and every page.

It is made anew at the end of every run and written only where it changed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lib.db import Database
from lib.db.overview import (
    DONE,
    FAILED,
    HELD,
    INTERRUPTED,
    NEVER,
    RUNNING,
    UNDONE,
    WAITING,
    DatasetRow,
    Overview,
    StepState,
    overview,
    sample_files,
)
from lib.pages.model import Card, DatasetView, Heading, ReportEntry, SampleView, StepView
from lib.pages.render import INDEX, picture_url, read_head, render, write_page
from lib.pages.thumbnails import thumbnail_data_uri
from lib.temporary import clear_dead
from lib.text import command_line, counted
from lib.workspace import Workspace

MOST_CARDS = 4  # totals shown of each report
STRIP = 12  # pictures in the strip
STRIP_SIDE = 144  # pixels: drawn at 72, sharp on screens with two pixels for one
TITLES = {
    "domains": ("Where the pictures come from", "Step 3 · domain report"),
    "cleanup": ("What was cleaned up", "Step 4 · cleanup"),
    "dedup": ("Repeated pictures", "Step 6 · deduplication"),
}
# Step, what it does, one of the things that are due there, and the command to begin or to go on with.
STEPS = {
    "collect": ("Search", "search", 'python 1_collect.py --keywords "wooden boat" --engine openverse'),
    "ingest": ("Ingest", "answer", "python 2_ingest_db.py"),
    "report": ("Report", "", "python 3_domain_report.py"),
    "cleanup": ("Clean up", "", "python 4_db_cleanup.py --dry-run"),
    "download": ("Download", "picture", "python 5_download.py"),
    "dedup": ("Deduplicate", "new file", "python 6_dedup.py all --dry-run"),
    "sort": ("Sort", "new file", "python 7_sort_quality.py quality --dry-run"),
}
EXPORT = "python 7_sort_quality.py export --as imagefolder"  # what follows the last step
ASKING = ("export", "filter", "vlm")  # these do nothing, or something else, without the flags that they were given
TO_EXPORT = "The steps are done. This makes a dataset of the pictures that were kept."
MARKS = {
    DONE: "keep", WAITING: "review", HELD: "review", RUNNING: "review", INTERRUPTED: "remove", FAILED: "remove",
    NEVER: "", UNDONE: "",
}  # fmt: skip
# Singular and plural of what is counted, where adding letters is not enough.
PLURALS = {
    "row taken out": "rows taken out",
    "picture not fetched": "pictures not fetched",
    "file in quarantine": "files in quarantine",
    "criterion": "criteria",
}
_SAMPLE = re.compile(r'<li data-content="([0-9a-f]{64})"><a [^>]*><img src="(data:image/jpeg;base64,[^"]*)"')


def refresh_index(workspace: Workspace, db: Database, command: Callable[[str], str] = str) -> Path:
    """Writes the index anew where anything on it changed; the same state gives the same bytes.

    `command` gives a command of a step as it has to be typed to work on this workspace.
    """
    page = workspace.reports / INDEX
    old = page.read_text(encoding="utf-8", errors="replace") if page.is_file() else ""
    found = overview(db)
    samples = _samples(workspace, db, dict(_SAMPLE.findall(old)))
    datasets = [_dataset(workspace, row) for row in found.datasets]
    steps, following = step_views(found, command, exported=not all(one.missing for one in datasets))
    html = render_index(
        page, _heading(workspace, found), steps, _entries(workspace),
        following=following, why=TO_EXPORT if EXPORT in following else "", datasets=datasets, samples=samples,
    )  # fmt: skip
    if html != old:
        return write_page(page, html)
    clear_dead(page.parent, target=page.name)
    return page


def render_index(
    page: Path,
    heading: Heading,
    steps: Sequence[StepView],
    reports: Sequence[ReportEntry] = (),
    *,
    following: str = "",
    why: str = "",
    datasets: Sequence[DatasetView] = (),
    samples: Sequence[SampleView] = (),
) -> str:
    """The index page; everything in the order to show it.

    `following` is the command to run next, and `why` a sentence on it.
    """
    return render(
        "index",
        "index.js",
        page,
        heading=heading,
        steps=steps,
        following=following,
        why=why,
        reports=[(report, picture_url(report.file, page)) for report in reports],
        datasets=[(one, "" if one.missing else picture_url(one.folder, page)) for one in datasets],
        samples=[(sample, picture_url(sample.file, page)) for sample in samples],
    )


def step_views(
    found: Overview, command: Callable[[str], str] = str, *, exported: bool = False
) -> tuple[list[StepView], str]:
    """The seven steps, and the command to run next: what broke off first, then what is due, then what never ran.

    At the end that is the export, where nothing is `exported` and there are pictures.
    """
    views = []
    for number, step in enumerate(found.steps, 1):
        title, noun, _ = STEPS[step.step]
        due = f"{counted(step.due, noun)} due" if step.due and step.state in (WAITING, NEVER, INTERRUPTED, HELD) else ""
        between = ", " if step.state == NEVER else ": "
        state = f"{step.state}{between}{due}" if due else step.state
        asks = step.state not in (DONE, RUNNING)
        views.append(
            StepView(
                number, title, state, MARKS[step.state], step.at, _counts(step.counts),
                command(_command(step)) if asks else "",
            )
        )  # fmt: skip
    following = _following(found.steps, views)
    if not following and not exported and found.files and found.steps[-1].state == DONE:
        following = command(EXPORT)
    return views, following


def _following(steps: Sequence[StepState], views: Sequence[StepView]) -> str:
    begun = [place for place, step in enumerate(steps) if step.state != NEVER]
    for states in ((INTERRUPTED, FAILED, HELD), (WAITING,)):
        for step, view in zip(steps, views, strict=True):
            if step.state in states:
                return view.command
    after = [view for place, view in enumerate(views) if place > max(begun, default=-1)]
    return after[0].command if after else ""


def _command(step: StepState) -> str:
    """The command that begins a step or goes on with it."""
    base = STEPS[step.step][2]
    program = " ".join(base.split()[:2])
    if step.words:
        return command_line([*program.split(), *step.words])
    if step.state == NEVER and not (step.step == "collect" and step.due):
        return base
    if step.step in ("dedup", "sort"):
        return f"{program} {step.what}".rstrip() if step.what not in ("", *ASKING) else base
    return program if step.step == "collect" else base


def _counts(counts: Mapping[str, int]) -> str:
    shown = [(number, noun) for noun, number in counts.items() if number]
    return ", ".join(
        f"{number:,} {PLURALS[noun]}" if noun in PLURALS and number != 1 else counted(number, noun)
        for number, noun in shown
    )


def _heading(workspace: Workspace, found: Overview) -> Heading:
    cards = [
        Card("Found", found.results, _word(found.results, "different result", "different results")),
        Card("Files", found.files, _word(found.files, "picture in place", "pictures in place")),
        Card(
            "In quarantine",
            found.quarantined,
            _word(found.quarantined, "file, can be restored", "files, can be restored"),
        ),
        Card("Exported", len(found.datasets), _word(len(found.datasets), "dataset", "datasets")),
    ]
    return Heading(f"Workspace {workspace.root.absolute().name}", cards=cards)


def _word(number: int, one: str, many: str) -> str:
    return one if number == 1 else many


def _dataset(workspace: Workspace, row: DatasetRow) -> DatasetView:
    manifest = workspace.to_path(row.manifest)
    folder, pictures, form = manifest.parent, None, ""
    try:
        told = json.loads(manifest.read_text(encoding="utf-8"))
        form, pictures = str(told["form"]), sum(map(int, told["pictures"].values()))
    except FileNotFoundError:
        return DatasetView(folder.name, folder, at=row.at, missing=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return DatasetView(folder.name, folder, form, pictures, row.at)


def _samples(workspace: Workspace, db: Database, known: Mapping[str, str]) -> list[SampleView]:
    """A few pictures; their thumbnails are taken from the index as it stands, where it has them."""
    samples = []
    for sha256, text in sample_files(db, STRIP):
        file = workspace.to_path(text)
        if thumb := known.get(sha256) or thumbnail_data_uri(file, STRIP_SIDE):
            samples.append(SampleView(sha256, file, thumb))
    return samples


def _entries(workspace: Workspace) -> list[ReportEntry]:
    """The pages that lie in `reports/`, by step, and within one the main report first."""
    pages = [path for path in workspace.reports.glob("*.html") if path.name != INDEX]
    entries = []
    for path in pages:
        head = read_head(path)
        title, step = _title(path.stem, head.title)
        entries.append(ReportEntry(path, title, step, head.generated, head.cards[:MOST_CARDS]))
    return sorted(entries, key=lambda e: (e.step, e.file.stem not in TITLES, _natural(e.file.stem)))


def _natural(stem: str) -> list[tuple[int, str]]:
    """A key that sorts `results_10` behind `results_9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", stem)]


def _title(stem: str, title: str) -> tuple[str, str]:
    if stem.startswith("by_"):
        return f"Pictures by {stem[3:]}", "Step 3 · domain report"
    if stem.startswith("results_"):
        return title or stem, "Step 3 · results of a search"
    if stem.startswith("sort_"):
        return f"Sorted by {stem[5:].replace('_', ' ')}", "Step 7 · sorting"
    return TITLES.get(stem, (title or stem.replace("_", " ").capitalize(), ""))
