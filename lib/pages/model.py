"""Plain values that the steps fill and the pages show. Text may be hostile; the templates escape it.

`file` fields are paths of pictures on disk. The pages make thumbnails of them and link to them relative to the page,
so a picture that a step moved must be given where it lies now. Times are shown as given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = ("bytes", "pixels", "same", "edited", "semantic", "filename")
DECISIONS = ("remove", "review", "keep")


@dataclass(frozen=True)
class Card:
    """One total at the top of a page."""

    label: str  # "Pictures"
    value: int | float | str  # integers are shown with thousands separators
    note: str = ""  # a few words below the number


@dataclass(frozen=True)
class Heading:
    """The head of every page."""

    title: str
    subtitle: str = ""  # one sentence: over what, with which settings
    generated: str = ""  # when, e.g. "2025-03-01T12:00:00Z"
    cards: Sequence[Card] = ()
    notes: Sequence[str] = ()  # sentences a reader must know: what was left out, what is an estimate
    command: str = ""  # a command line that a reader may want next: the real run, or the way back
    command_is: str = ""  # what it does, in a few words: "To do this"


@dataclass(frozen=True)
class DomainRow:
    """One registrable domain. Rows are shown in the order given; the table can be sorted."""

    domain: str
    count: int  # pictures
    share: float  # of all pictures, 0 to 1
    cumulative: float  # share of this row and all rows before it, 0 to 1
    unique: int | None = None  # pictures seen on no other domain; None when that was not counted
    family: str = ""  # service family, e.g. "Pinterest"; empty for none
    downloaded: int | None = None  # files fetched; None when step 5 did not run
    failed: int | None = None
    median_size: str = ""  # e.g. "1280 × 853"
    samples: Sequence[Path] = ()  # a few picture files from this domain
    named: bool = True  # False for pictures without a domain, and for the sum of all others
    engines: str = ""  # those that found them, where several were searched


@dataclass(frozen=True)
class FamilyRow:
    """One service family (VK, Pinterest, ...) over its domains."""

    family: str
    count: int
    share: float  # 0 to 1
    domains: int  # how many registrable domains belong to it
    note: str = ""


@dataclass(frozen=True)
class MemberView:
    """One file of a duplicate group."""

    path: str  # as in the JSON result; what the decisions file names it by
    file: Path | None = None  # where the picture lies now; None when it is nowhere
    kind: str = ""  # one of KINDS; empty for the keeper
    decision: str = "keep"  # one of DECISIONS
    distance: float | None = None  # to the keeper, in the unit of `kind` (bits for hashes)
    width: int | None = None  # pixels, upright
    height: int | None = None
    size_bytes: int | None = None
    format: str = ""  # "JPEG"
    reason: str = ""  # why this decision, a few words
    page_url: str = ""  # where it was found; shown as a link when it is http or https
    title: str = ""  # of the picture or its page; shown in place of the file's name, which then stands below
    folder: str = ""
    dates: str = ""  # "taken 2019-05-01", "file of 2024-03-02"
    moved: bool = False  # it lies in the quarantine

    @property
    def name(self) -> str:
        return self.path.replace("\\", "/").rpartition("/")[2] or self.path


@dataclass(frozen=True)
class GroupView:
    """A keeper and the files that repeat it."""

    id: str  # stable within the run; part of the decisions file
    keeper: MemberView
    members: Sequence[MemberView]


@dataclass(frozen=True)
class BrokenReason:
    """The files that could not be compared for one reason."""

    reason: str  # "truncated"
    files: Sequence[Path]


@dataclass(frozen=True)
class Bucket:
    """One outcome of a sorting criterion, in the order it should be shown."""

    name: str  # "high", also the folder's name
    count: int | None = None  # all pictures in it, when not all are given as items
    note: str = ""  # its rule: "score of at least 65"


@dataclass(frozen=True)
class SheetItem:
    """One picture of a contact sheet."""

    file: Path | None
    name: str
    bucket: str  # name of a Bucket
    score: float | None = None
    reason: str = ""  # why it is in this bucket
    width: int | None = None
    height: int | None = None
    detail: str = ""  # further text for the large view
    # Where it came from, as far as that is known; addresses are links where they are http or https.
    title: str = ""  # takes the name's place
    page_url: str = ""
    creator: str = ""
    license: str = ""  # its name
    license_url: str = ""
    published: str = ""  # as the engine said it
    first_seen: str = ""
    found_by: str = ""  # engines and search: "bing and yandex, “mountain lake”"


@dataclass(frozen=True)
class ReportEntry:
    """One existing report on the index page."""

    file: Path
    title: str
    step: str = ""  # "3 · Domain report"
    generated: str = ""
    counts: Sequence[Card] = ()


@dataclass(frozen=True)
class StepView:
    """One of the seven steps on the index page."""

    number: int
    title: str  # "Search"
    state: str  # "done", "waiting: 12 pictures due"
    mark: str = ""  # colour of the state: one of DECISIONS, or empty
    at: str = ""  # when it got there
    counts: str = ""  # "250 files, 2 pictures not fetched"
    command: str = ""  # what to run, where there is something to do


@dataclass(frozen=True)
class DatasetView:
    """One exported dataset on the index page."""

    name: str
    folder: Path
    form: str = ""  # "imagefolder"
    pictures: int | None = None
    at: str = ""
    missing: bool = False  # it is not at its place any more


@dataclass(frozen=True)
class SampleView:
    """One picture of the strip on the index page: its content's digest, its file, and its thumbnail as a data URI."""

    sha256: str
    file: Path
    thumb: str


@dataclass(frozen=True)
class HitView:
    """One hit of a search."""

    rank: int  # from 1, as the engine showed them
    title: str = ""
    page_url: str = ""  # shown as a link when it is http or https
    image_url: str = ""
    domain: str = ""
    family: str = ""
    published: str = ""  # as the engine says it
    date: str = ""  # the same as 2019, 2019-05 or 2019-05-01; empty where it is not known
    first_seen: str = ""
    width: int | None = None  # pixels, upright, of the file; else as the engine claims
    height: int | None = None
    claimed: bool = False  # the size is only claimed
    size_bytes: int | None = None
    format: str = ""
    likeness: int | None = None  # bits of 256 that differ from the query picture's hash
    turn: str = ""  # "mirrored", "cropped": how the query picture has to be looked at for that
    licence: str = ""
    licence_url: str = ""
    creator: str = ""
    file: Path | None = None
    state: str = ""  # why there is no file, or where it lies: "not fetched yet", "in quarantine"


@dataclass(frozen=True)
class CopiesView:
    """Hits that show one picture."""

    hits: Sequence[HitView]
    basis: str = ""  # why they are taken for one picture: "found by step 6", "same bytes"


@dataclass(frozen=True)
class SearchView:
    """The search that a page of results is about."""

    name: str  # the keyword, or the query picture's name
    engine: str
    is_picture: bool = False
    file: Path | None = None  # the query picture, where it is
    unit: str = ""  # one sentence: what likeness is measured in
    basis: str = ""  # one sentence: by what hits are taken for copies
