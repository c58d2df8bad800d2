"""The results of single searches: a page, a CSV and a JSON each, with the hits grouped by copy and set against the
query picture."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from email.utils import parsedate
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lib.db import Context
from lib.db import results as table
from lib.db.hashes import known_hashes
from lib.db.results import HitRow, SearchRow
from lib.domains import family_of, host_of, is_possible, shown_host
from lib.hashing import dct, views
from lib.hashing.buffers import ALGORITHM, Buffers, packed_buffers
from lib.hashing.hamming import numpy_kernel, to_words
from lib.hashing.kinds import HashChoice
from lib.images.decode import DecodeError
from lib.images.frames import opened_frames
from lib.pages.model import Card, CopiesView, Heading, HitView, SearchView
from lib.pages.render import write_page
from lib.pages.results import render_results
from lib.report.tables import csv_text
from lib.text import counted
from lib.work.stream import stream

MOST_SEARCHES = 100  # pages that one command makes where no search is named
# Bits of 256: two hashes no further apart show one picture, as step 6 has it, or are worth a look.
SAME_BITS, REVIEW_BITS = HashChoice().same_bits, HashChoice().review_bits
# A view counts where it brings the hashes so much nearer: of forty views one is by chance a few bits nearer.
GAIN_BITS = 12
FROM_STEP_6, SAME_BYTES, SAME_ADDRESS, ALIKE = "found by step 6", "same bytes", "same address", "hashes are near"
STATES = {
    "pending": "not fetched yet",
    "failed": "not fetched",
    "blocked": "not fetched",
    "opted_out": "its owner has opted out",
}
_DATE = re.compile(r"\s*(\d{4})(?:\s?[-./:年]\s?(\d{1,2})(?:\s?[-./:月]\s?(\d{1,2}))?)?(?!\d)")
_DAY_MONTH = re.compile(r"\b(?P<day>\d{1,2}) (?P<month>[A-Za-z]{3,9})\.?,? (?P<year>\d{4})\b")
_MONTH_DAY = re.compile(r"\b(?P<month>[A-Za-z]{3,9})\.? (?:(?P<day>\d{1,2})(?:st|nd|rd|th)?,? )?(?P<year>\d{4})\b")
_MONTHS = {name: n for n, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)}
UNIT = (
    "Likeness counts the bits of 256 in which the perceptual hashes differ: 0 is the same picture, up to "
    f"{SAME_BITS} is what step 6 takes for one, and strangers lie about 128 apart."
)


@dataclass(frozen=True)
class Hit:
    """One line of the CSV. `likeness_bits` is of 256; None where no file, or no query picture, could be hashed.

    `width` and `height` are of the file, upright, or as claimed where `size_is_claimed`.
    """

    group: int
    copies: int
    basis: str
    rank: int
    page_url: str
    title: str
    published: str
    date: str
    first_seen: str
    width: int | None
    height: int | None
    size_is_claimed: bool
    bytes: int | None
    format: str
    likeness_bits: int | None
    likeness_as: str
    domain: str
    family: str
    licence: str
    licence_url: str
    creator: str
    attribution: str
    image_url: str
    state: str
    reason: str
    sha256: str
    file: str


@dataclass(frozen=True)
class SearchResults:
    """A search with its hits, those of one picture one behind the other."""

    search: SearchRow
    hits: tuple[Hit, ...]
    query_file: Path | None = None
    as_of: str = ""
    hashed_now: int = 0  # files that step 6 has kept no hash of

    @property
    def is_picture(self) -> bool:
        return self.search.kind == "image"

    @property
    def groups(self) -> int:
        return len({hit.group for hit in self.hits})

    def as_dict(self) -> dict[str, Any]:
        search = self.search
        named = {"query": search.id, "engine": search.engine, "kind": search.kind, "name": search.name}
        return {**named, "pictures": self.groups, "hits": [asdict(hit) for hit in self.hits]}


def chosen_searches(context: Context, names: Sequence[str]) -> tuple[list[SearchRow], int]:
    """The searches that are named, or the newest ones with hits; and how many more there are."""
    if names:
        found = {row.id: row for row in (table.find_search(context.db, name) for name in names)}
        return list(found.values()), 0
    rows = table.searches_with_hits(context.db)
    return rows[:MOST_SEARCHES], len(rows[MOST_SEARCHES:])


def make_results(context: Context, search: SearchRow, *, workers: int) -> SearchResults:
    """Gathers the hits of a search, groups them by copy, and compares each with the query picture."""
    rows = table.hits_of(context.db, search.id)
    query = _query_file(context, search)
    likeness = _Likeness(context, workers, query)
    likeness.read(rows)
    groups = _grouped(context, search, rows, likeness)
    addresses: dict[int, str] = {}
    for image_id, _, url in table.addresses_of(context.db, search.id):
        addresses.setdefault(image_id, url)
    hits: list[Hit] = []
    for number, (members, basis) in enumerate(_in_order(groups, likeness), 1):
        made = (_hit(row, addresses.get(row.image_id, ""), likeness) for row in members)
        hits += (replace(hit, group=number, copies=len(members), basis=basis) for hit in made)
    as_of = max([search.updated_at, *(max(row.first_seen_at, row.updated_at) for row in rows)])
    return SearchResults(search, tuple(hits), query, as_of, likeness.hashed_now)


def write_results(context: Context, found: SearchResults, *, workers: int) -> list[Path]:
    """Writes the page, the CSV and the JSON of a search into `reports/`. Same data, same bytes."""
    stem = context.workspace.reports / f"results_{found.search.id}"
    page = stem.with_suffix(".html")
    html = render_results(page, _heading(found), _search_view(found), _views(context, found), workers=workers)
    text = json.dumps(found.as_dict(), ensure_ascii=False, indent=1) + "\n"
    written = [(page, html), (stem.with_suffix(".csv"), csv_text(Hit, found.hits)), (stem.with_suffix(".json"), text)]
    return [write_page(path, content) for path, content in written]


def lines_of(found: SearchResults) -> list[str]:
    """One line a search and one for each of the three hits that matter most, for a terminal."""
    search = found.search
    hits = counted(len(found.hits), "hit")
    lines = [f"{search.id}. {search.engine}: {search.name}, {hits}, {counted(found.groups, 'picture')}"]
    alike = [hit for hit in found.hits if hit.likeness_bits is not None]
    dated, sized = [hit for hit in found.hits if hit.date], [hit for hit in found.hits if hit.width and hit.height]
    if alike:
        best = min(alike, key=lambda hit: hit.likeness_bits or 0)
        lines.append(f"   most alike  {counted(best.likeness_bits or 0, 'bit')} of 256  {_where(best)}")
    if dated:
        oldest = min(dated, key=lambda hit: late(hit.date))
        lines.append(f"   oldest      {oldest.date}  {_where(oldest)}")
    if sized:
        largest = max(sized, key=lambda hit: (hit.width or 0) * (hit.height or 0))
        claimed = " (claimed)" if largest.size_is_claimed else ""
        lines.append(f"   largest     {largest.width} x {largest.height}{claimed}  {_where(largest)}")
    return lines


def _where(hit: Hit) -> str:
    return hit.page_url or f"hit {hit.rank}"


def as_date(text: str) -> str:
    """A date that a site wrote down as 2019, 2019-05 or 2019-05-01; empty where it is not to be understood."""
    if match := _DATE.match(text):
        year, month, day = (int(part or 0) for part in match.groups())
    elif (match := _DAY_MONTH.search(text) or _MONTH_DAY.search(text)) and (
        month := _MONTHS.get(match["month"][:3].casefold(), 0)
    ):
        year, day = int(match["year"]), int(match["day"] or 0)
    elif found := parsedate(text):
        year, month, day = found[:3]
    else:
        return ""
    if not 1800 <= year <= 2200:  # photography's time: other numbers of four digits are no years
        return ""
    if not 1 <= month <= 12:
        return f"{year:04}"
    return f"{year:04}-{month:02}-{day:02}" if 1 <= day <= 31 else f"{year:04}-{month:02}"


def late(date: str) -> str:
    """The last day that a date may mean: 2019-05-01 is known to be older than 2019."""
    return date + "-12-31"[len(date) - 4 :]


class _Likeness:
    """Perceptual hashes of the hits' files, and how far each lies from the query picture's.

    Step 6 has kept most of them; the others are made here, and kept by nobody.
    """

    def __init__(self, context: Context, workers: int, query: Path | None):
        self.context, self.workers = context, workers
        self.hashes: dict[str, bytes | None] = {}  # None: too flat, or not to be decoded
        self.stored: set[str] = set()
        self.bits: dict[str, tuple[int, str]] = {}
        self.query = _query_views(query) if query else None

    @property
    def hashed_now(self) -> int:
        return len(self.hashes) - len(self.stored)

    def read(self, rows: Iterable[HitRow]) -> None:
        """Fills `hashes` for every file that is there, and `bits` where there is a query picture."""
        places = {row.sha256: row.path for row in rows if row.sha256 and row.file_state != "missing"}
        known = known_hashes(self.context.db, sorted(places), dct.KIND, dct.BITS, ALGORITHM)
        self.hashes |= known
        self.stored = set(known)
        missing = sorted(places.keys() - known.keys()) if self.query is not None else []
        by_path = {str(self.context.workspace.to_path(places[sha256])): sha256 for sha256 in missing}
        where = "threads" if self.workers > 1 else "local"
        with self.context.bar(len(by_path), "Hashing", "picture") as progress:
            for outcome in stream(hash_of, list(by_path), executor=where, workers=self.workers, chunk=8):
                self.hashes[by_path[outcome.item]] = outcome.value
                progress.update()
        self._compare()

    def _compare(self) -> None:
        usable = [sha256 for sha256, value in self.hashes.items() if value]
        if self.query is None or not usable:
            return
        values = to_words(np.frombuffer(b"".join(self.hashes[s] or b"" for s in usable), np.uint8).reshape(-1, 32))
        apart = np.bitwise_count(values[:, None, :] ^ self.query[None, :, :]).sum(axis=2, dtype=np.int64)
        for sha256, row in zip(usable, apart, strict=True):
            view = int(row[1:].argmin())
            plain, turned = int(row[0]), int(row[1:][view])
            better = turned <= REVIEW_BITS and turned + GAIN_BITS <= plain
            self.bits[sha256] = (turned, _turn(view)) if better else (plain, "")


def hash_of(path: str) -> bytes | None:
    """The perceptual hash that step 6 keeps, 32 bytes; None for a picture too flat for one. Raises DecodeError."""
    greys = _buffers(Path(path)).greys[:1]
    return None if dct.flat_pictures(greys)[0] else dct.hash_greys(greys)[0].tobytes()


def _buffers(path: Path) -> Buffers:
    with opened_frames(path) as frames:
        return Buffers.from_bytes(packed_buffers(frames))


def _query_views(path: Path) -> np.ndarray | None:
    """Hashes of the query picture as it is and in its views: uint64 of shape (1 + views, 4); None without a hash."""
    try:
        found = _buffers(path)
    except (DecodeError, OSError):
        return None
    greys = found.greys[:1]
    if dct.flat_pictures(greys)[0]:
        return None
    return to_words(np.concatenate([dct.hash_greys(greys), views.view_hashes(greys, [found.box])[0]]))


def _turn(number: int) -> str:
    """One or two words for a view of the query picture."""
    seen = views.view(number, views.UNTRIMMED)
    if number == views.INSIDE:
        return "without its border"
    return seen.turn or ("tilted" if seen.tilt else "cropped")


def _query_file(context: Context, search: SearchRow) -> Path | None:
    """The query picture: where it lay, or where its content lies among the files."""
    if search.kind != "image":
        return None
    places = [search.words] if search.words else []
    if search.image_sha256 and (known := table.place_of_content(context.db, search.image_sha256)):
        places.append(known)
    return next((path for path in map(context.workspace.to_path, places) if path.is_file()), None)


class _Copies:
    """Hits joined into groups, with the reasons that joined each."""

    def __init__(self, members: Iterable[int]):
        self.parent = {member: member for member in members}
        self.why: list[tuple[int, str]] = []

    def of(self, member: int) -> int:
        while self.parent[member] != member:
            self.parent[member] = member = self.parent[self.parent[member]]
        return member

    def join(self, members: Sequence[int], why: str) -> None:
        for member in members[1:]:
            first, other = sorted((self.of(members[0]), self.of(member)))
            self.parent[other] = first
        if len(members) > 1:
            self.why.append((members[0], why))

    def reasons(self) -> Mapping[int, str]:
        found: dict[int, dict[str, None]] = {}
        for member, why in self.why:
            found.setdefault(self.of(member), {})[why] = None
        return {root: ", ".join(words) for root, words in found.items()}


def _grouped(
    context: Context, search: SearchRow, rows: Sequence[HitRow], likeness: _Likeness
) -> list[tuple[list[HitRow], str]]:
    """The hits by picture, with why they are taken for one."""
    copies = _Copies(row.image_id for row in rows)
    by_content: dict[str, list[int]] = {}
    for row in rows:
        if row.sha256:
            by_content.setdefault(row.sha256, []).append(row.image_id)
    by_picture: dict[str, list[int]] = {}  # the kept copy may be no hit itself
    for sha256, keeper in table.copies_known(context.db, sorted(by_content)):
        by_picture.setdefault(keeper, list(by_content.get(keeper, ()))).extend(by_content[sha256])
    by_address: dict[str, dict[int, None]] = {}
    for image_id, _, url in table.addresses_of(context.db, search.id):
        if host_of(url) and is_possible(url):  # `data:` and broken ones that step 4 takes out show no picture of theirs
            by_address.setdefault(url, {})[image_id] = None
    for found, why in ((by_picture, FROM_STEP_6), (by_content, SAME_BYTES), (by_address, SAME_ADDRESS)):
        for members in found.values():
            copies.join(list(members), why)
    for one, other in _near(likeness):
        copies.join([by_content[one][0], by_content[other][0]], ALIKE)
    reasons, groups = copies.reasons(), dict[int, list[HitRow]]()
    for row in rows:
        groups.setdefault(copies.of(row.image_id), []).append(row)
    return [(members, reasons.get(root, "")) for root, members in groups.items()]


def _near(likeness: _Likeness) -> list[tuple[str, str]]:
    """Pairs of contents whose hashes are near, where step 6 has not looked at both: else its finding counts."""
    usable = [sha256 for sha256, value in likeness.hashes.items() if value]
    if len(usable) < 2 or not likeness.hashed_now:
        return []
    words = to_words(np.frombuffer(b"".join(likeness.hashes[s] or b"" for s in usable), np.uint8).reshape(-1, 32))
    left, right, _ = numpy_kernel(words, np.ascontiguousarray(words.T), SAME_BITS)
    pairs = ((usable[i], usable[j]) for i, j in zip(left.tolist(), right.tolist(), strict=True) if i < j)
    return [pair for pair in pairs if not likeness.stored.issuperset(pair)]


def _in_order(groups: Sequence[tuple[list[HitRow], str]], likeness: _Likeness) -> list[tuple[list[HitRow], str]]:
    """Groups and their hits, the most alike first, then as the engine showed them."""

    def key(row: HitRow) -> tuple[int, int]:
        bits, _ = likeness.bits.get(row.sha256, (dct.BITS, ""))
        return bits, row.rank

    ordered = [(sorted(members, key=key), basis) for members, basis in groups]
    return sorted(ordered, key=lambda group: key(group[0][0]))


def _hit(row: HitRow, address: str, likeness: _Likeness) -> Hit:
    turned = row.orientation >= 5  # EXIF: width and height change places
    width, height = (row.file_height, row.file_width) if turned else (row.file_width, row.file_height)
    claimed = not (width and height)
    bits, turn = likeness.bits.get(row.sha256, (None, ""))
    there = bool(row.path) and row.file_state != "missing"
    state = ("" if row.file_state == "present" else "in quarantine") if there else STATES.get(row.state, "not there")
    return Hit(
        0, 1, "", row.rank + 1, row.page_url, row.title, row.published_at, as_date(row.published_at), row.first_seen_at,
        row.width if claimed else width, row.height if claimed else height, claimed, row.bytes, row.format,
        bits, turn, shown_host(row.registrable_domain or row.domain), family_of(row.registrable_domain, row.domain),
        row.license, row.license_url, row.creator, row.attribution, row.final_url or address,
        state, row.reason, row.sha256, row.path if there else "",
    )  # fmt: skip


def _views(context: Context, found: SearchResults) -> list[CopiesView]:
    groups: dict[int, list[Hit]] = {}
    for hit in found.hits:
        groups.setdefault(hit.group, []).append(hit)
    make = partial(_view, context)
    return [CopiesView([make(hit) for hit in hits], hits[0].basis) for hits in groups.values()]


def _view(context: Context, hit: Hit) -> HitView:
    state = f"{hit.state}: {hit.reason.replace('_', ' ')}" if hit.reason and hit.state else hit.state
    return HitView(
        hit.rank, hit.title, hit.page_url, hit.image_url, hit.domain, hit.family, hit.published, hit.date,
        hit.first_seen, hit.width, hit.height, hit.size_is_claimed, hit.bytes, hit.format.upper(), hit.likeness_bits,
        hit.likeness_as, hit.licence, hit.licence_url, hit.creator,
        context.workspace.to_path(hit.file) if hit.file else None, state,
    )  # fmt: skip


def _heading(found: SearchResults) -> Heading:
    search, hits = found.search, found.hits
    kind = "Picture search" if found.is_picture else "Keyword search"
    fetched = sum(bool(hit.file) for hit in hits)
    domains = len({hit.domain for hit in hits if hit.domain})
    numbers = {"Hit": len(hits), "Picture": found.groups, "Domain": domains, "File": fetched}
    notes_below = {"Picture": "copies counted once"} if found.groups < len(hits) else {}
    cards = [
        Card(noun if number == 1 else f"{noun}s", number, notes_below.get(noun, "")) for noun, number in numbers.items()
    ]
    notes = []
    if hits and not fetched:
        notes.append("No picture is fetched yet: run step 5 to see them, and this page again.")
    if found.is_picture and found.query_file is None:
        notes.append("The query picture is not where it was, so that nothing could be compared with it.")
    return Heading(f"Results for {search.name}", f"{kind} at {search.engine}", found.as_of, cards, notes)


def _search_view(found: SearchResults) -> SearchView:
    used = [
        why for why in (FROM_STEP_6, SAME_BYTES, SAME_ADDRESS, ALIKE) if any(why in hit.basis for hit in found.hits)
    ]
    basis = f"Hits of one picture stand together. Here they are told by: {', '.join(used)}." if used else ""
    has_bits = any(hit.likeness_bits is not None for hit in found.hits)
    search = found.search
    return SearchView(search.name, search.engine, found.is_picture, found.query_file, UNIT if has_bits else "", basis)
