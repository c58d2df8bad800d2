"""Rows of lists that are text, whatever wrote them: addresses, CSV, TSV, JSON Lines, and JSON as a whole.

Letters are told by the file's own mark, by the pattern of UTF-16 and UTF-32, by a name on the command line, or they are
UTF-8. A file that is none of these is refused with the reading that others would give: no letter is guessed. Columns
are told by the first line, and in a table without names by the one that holds addresses.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lib.engines.parsing import load_exact
from lib.errors import GleanerError, UsageError
from lib.ingest.columns import MOST_COLUMNS, URL_NAMES, NamedRow, is_link, named, normal, url_column
from lib.ingest.json_rows import is_row_alone, json_rows
from lib.records import ParseError
from lib.text import escape_controls

HEAD = 64 * 1024  # bytes that a format is told by
LONGEST_LINE = 4 * 2**20  # characters; of what people keep in lists the longest are embeddings, some 100 KB
SAMPLE = 50  # rows that columns are told by
SHOWN = 12  # columns of a list that a sentence names
_BLOCK = 2**20
_MARKS = (  # the longer first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"), (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_EXAMPLES = ("cp1252", "cp1251")  # what most lists are that are not UTF-8, as a sentence shows a line of them
_SEPARATORS = {"\t": "tsv", ",": "csv", ";": "csv with semicolons", "|": "csv with bars"}
_DECLARED = re.compile(r'"?sep=(.)"?', re.IGNORECASE)
_LINE = re.compile("\r\n|\r|\n")
_PICTURE = re.compile(r"\.(?:jpe?g|jfif|png|gif|webp|avif|heic|tiff?|bmp|jxl)$", re.IGNORECASE)
_LAST_COMMA = re.compile(r",\s*\}\Z")
_PARTS = re.compile("[\ufeff\u2028\u2029\x85]")
_QUOTED = re.compile(r'(?:^|\t)"(?:[^"\t]|"")*"(?:\t|$)', re.MULTILINE)

_ADDRESS_ALONE = (("url", "url"),)

Rows = Iterator[NamedRow | None]  # None for what is no row


@dataclass(frozen=True)
class Layout:
    """The way a list is read: its kind, its letters, its columns, and the one of them that holds the address."""

    kind: str
    encoding: str = "utf-8"
    separator: str = ""
    names: tuple[str, ...] = ()  # in the order of a table's fields
    column: str = ""  # by its normal name
    skipped: int = 0  # lines before the first row
    quoted: bool = True
    headless: bool = False  # its first line is a row already
    linked: bool = True  # the column holds addresses

    @property
    def description(self) -> str:
        letters = self.encoding.removesuffix("-sig")
        return self.kind if letters in ("utf-8", "") else f"{self.kind}, {letters}"


def text_encoding(path: Path, given: str = "") -> str:
    """Returns the encoding of a file; empty for what is no text. Raises UsageError where that is not known."""
    with path.open("rb") as handle:
        head = handle.read(HEAD)
    if found := marked_encoding(head):
        return found
    if given:
        return _named_encoding(path, head, given)
    if b"\0" in head.lstrip(b"\r\n").split(b"\n", 1)[0]:
        return unmarked_encoding(head)
    valid, broken, example = _count_lines(path)
    if broken * 2 <= valid:  # letters of other encodings look like UTF-8's by chance, mostly in short lines
        return "utf-8"
    number, line = example
    readings = " and ".join(f"{_reading(line, name)} in {name}" for name in _EXAMPLES)
    raise UsageError(
        f"{path} is not UTF-8: line {number:,} would be {readings}. Name its encoding with --encoding, such as"
        f" --encoding {_EXAMPLES[0]}; with --encoding utf-8 addresses of such lines are left out."
    )


def _named_encoding(path: Path, head: bytes, given: str) -> str:
    """Returns the encoding that somebody has named, UTF-16 and UTF-32 with their order. Raises UsageError."""
    if given not in ("utf-16", "utf-32"):
        return given
    found = unmarked_encoding(head)
    if not found.startswith(given):
        raise UsageError(
            f"{path} is not {given.upper()}: it has neither its mark nor its zeros. Leave --encoding out, or name"
            f" another, or the order of its bytes too, such as --encoding {given}-le."
        )
    return found


def marked_encoding(head: bytes) -> str:
    """Returns the encoding that a byte-order mark tells; empty without one."""
    return next((name for mark, name in _MARKS if head.startswith(mark)), "")


def unmarked_encoding(head: bytes) -> str:
    """Returns UTF-16 or UTF-32 by where the zeros stand that ASCII has there; empty where it is no text."""
    for width, name in ((4, "utf-32"), (2, "utf-16")):
        part = head[: len(head) // width * width]
        zeros = [part[place::width].count(0) * width / max(1, len(part)) for place in range(width)]
        low = min((0, width - 1), key=lambda place: zeros[place])  # where the letters of ASCII stand
        if zeros[width - 1 - low] > 0.3 and zeros[low] < zeros[width - 1 - low] / 2:
            found = f"{name}-{'be' if low else 'le'}"
            try:
                codecs.getincrementaldecoder(found)().decode(part)
                return found
            except UnicodeDecodeError:
                continue
    return ""


def _count_lines(path: Path) -> tuple[int, int, tuple[int, bytes]]:
    """Counts lines with letters beyond ASCII: those that are UTF-8 and those that are not, of these the first too."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as handle:
        try:
            while block := handle.read(_BLOCK):
                decoder.decode(block)
            decoder.decode(b"", final=True)
            return 0, 0, (0, b"")
        except UnicodeDecodeError:
            handle.seek(0)
        valid, broken, number, example = 0, 0, 0, (0, b"")
        while line := handle.readline(LONGEST_LINE):
            number += 1
            if line.isascii():
                continue
            try:
                line.decode()
                valid += 1
            except UnicodeDecodeError:
                broken += 1
                example = example if example[0] else (number, line)
    return valid, broken, example


def _reading(line: bytes, encoding: str) -> str:
    place = next(place for place, byte in enumerate(line) if byte > 127)
    shown = line[max(0, place - 30) : place + 30].decode(encoding, "replace").strip()
    return f"'{escape_controls(shown)}'"


def text_layout(path: Path, encoding: str, wanted: str = "") -> Layout | None:
    """Returns the way a text is read; None where it holds no addresses, with the columns seen in a UsageError.

    `wanted` is the name of the column with the address, or its number from 1, as on the command line.
    """
    with path.open("rb") as handle:
        raw = handle.read(HEAD)
    head = codecs.getincrementaldecoder(encoding)("replace").decode(raw).lstrip("\ufeff")
    whole = len(raw) < HEAD
    first = head.lstrip()[:1]
    if not first or "\x00" in head.lstrip().split("\n", 1)[0]:
        return None
    if first == "[":
        return Layout("json", encoding, column=_json_column(path, encoding, wanted))
    if first == "{":
        return _objects(path, encoding, wanted)
    return _table(path, head, whole, encoding, wanted) or _plain(head, whole, encoding)


def _objects(path: Path, encoding: str, wanted: str) -> Layout | None:
    """Tells JSON Lines from one object over many lines."""
    rows, is_long = list[Mapping[str, Any] | None](), False
    for line in islice(_whole_lines(path, Layout("jsonl", encoding)), SAMPLE):
        is_long = is_long or line is None  # longer than a row may be: it tells nothing about the others
        if line and line.strip():
            rows.append(exact_row(line))
    read = [row for row in rows if row is not None]
    if len(rows) == 1 and read and is_row_alone(read[0], wanted):  # a list of one row, which keeps what it holds
        return Layout("jsonl", encoding, column=column_of(_flat_names(read), wanted, path))
    if (len(rows) == 1 and not is_long) or not (rows and (rows[0] or len(read) * 2 >= len(rows))):
        return Layout("json", encoding, column=_json_column(path, encoding, wanted))
    return Layout("jsonl", encoding, column=column_of(_flat_names(read), wanted, path))


def _json_column(path: Path, encoding: str, wanted: str) -> str:
    """Returns the column of a JSON file. Raises UsageError where it holds no list of addresses."""
    rows, seen = list[Mapping[str, Any]](), list[str]()
    with _open(path, encoding) as handle:
        for row in json_rows(handle, wanted, seen):
            rows += [row] if row is not None else []
            if len(rows) >= SAMPLE:
                break
    return column_of(_flat_names(rows) if rows else seen, wanted, path)


def _flat_names(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the names of rows, those inside an object with the object's name."""
    found: dict[str, None] = {}
    for row in rows:
        for name, value in list(row.items())[:MOST_COLUMNS]:
            found[str(name)] = None
            if isinstance(value, dict):
                found |= dict.fromkeys(f"{name}.{inner}" for inner in list(value)[:MOST_COLUMNS])
    return list(found)


def column_of(names: Sequence[str], wanted: str, path: Path, links: Sequence[str] = ()) -> str:
    """Returns the normal name of the column with the address. Raises UsageError where there is none."""
    if wanted:
        held = [name for name in names if name == wanted] or [name for name in names if normal(name) == normal(wanted)]
        if held:
            return normal(held[0])
        if wanted.isdecimal() and 1 <= int(wanted) <= len(names):
            return normal(names[int(wanted) - 1])
        raise UsageError(f"{path} has no column {wanted}; {_columns(names, links)}.")
    if not (found := url_column(names)):
        raise UsageError(
            f"--import: {path} holds neither raw answers nor a list of URLs that could be told: no column is called"
            f" like an address; {_columns(names, links)}. Name the column with the addresses: --url-column NAME."
        )
    return normal(found)


def _columns(names: Sequence[str], links: Sequence[str]) -> str:
    if not names:
        return "no row of it could be read"
    shown = ", ".join(escape_controls(str(name)[:60]) for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    told = f"; addresses stand in {', '.join(escape_controls(name[:60]) for name in links)}" if links else ""
    return f"its columns are {shown}{more}{told}"


def _table(path: Path, head: str, whole: bool, encoding: str, wanted: str) -> Layout | None:
    """Returns the layout of a table whose columns are told by their names or by their addresses."""
    skipped, given = 0, ""
    lines = _LINE.split(head)
    while skipped < len(lines) - 1 and _is_remark(lines[skipped]):
        skipped += 1
    if match := _DECLARED.fullmatch(lines[skipped].strip(" \ufeff")):  # a line that Excel asks for
        skipped, given = skipped + 1, match[1]
    body = head.split("\n" if "\n" in head else "\r", skipped)[-1] if skipped else head
    found: list[tuple[int, int, Layout]] = []
    tried = list[tuple[Sequence[str], list[str]]]()
    for separator in given or _SEPARATORS:
        quoted = separator != "\t" or bool(_QUOTED.search(body))
        rows = _sample(body, whole, separator, quoted)
        if not rows or (len(rows[0]) < 2 and not given):
            continue
        layout = Layout(_SEPARATORS.get(separator, "csv"), encoding, separator, (), "", skipped, quoted)
        if any(map(is_link, rows[0])):  # no name is an address
            if headless := _headless(path, layout, rows, wanted):
                found.append((1, len(headless.names), headless))
            continue
        names = tuple(rows[0])
        links = [name for place, name in enumerate(names) if _links_in(rows[1:], place) * 2 > len(rows[1:]) > 0]
        if url_column(names) or wanted:
            try:
                column = column_of(names, wanted, path, links)
            except UsageError:
                tried.append((names, links))
                continue
            known = sum(normal(name) in URL_NAMES for name in names)
            found.append((2 + known, len(names), replace(layout, names=names, column=column)))
        elif len({len(row) for row in rows}) == 1 and len(rows) > 1:
            tried.append((names, links))
    if found:
        return max(found, key=lambda one: one[:2])[2]
    if tried and not is_link(lines[skipped]):
        column_of(*max(tried, key=lambda one: len(one[0]))[:1], wanted, path, tried[0][1])
    return None


def table_by(path: Path, encoding: str, column: str) -> Layout | None:
    """Returns the layout of a table with a column of that name, which holds no addresses; None where there is none."""
    with path.open("rb") as handle:
        raw = handle.read(HEAD)
    head = codecs.getincrementaldecoder(encoding)("replace").decode(raw).lstrip("\ufeff")
    try:
        found = _table(path, head, len(raw) < HEAD, encoding, column)
    except UsageError:
        return None
    return found and replace(found, linked=False)


def _is_remark(line: str) -> bool:
    """True for a blank line and for a comment that names no column, as may stand before a table."""
    names = [name.strip(' #"') for name in re.split(r"[\t,;|]", line)]
    return not line.strip() or (line.startswith("#") and not (len(names) > 1 and url_column(names)))


def _sample(body: str, whole: bool, separator: str, quoted: bool) -> list[list[str]]:
    """Returns the first rows; the last of a head that was cut is left out."""
    rows = list[list[str]]()
    try:
        for row in _reader(io.StringIO(body, newline=""), separator, quoted):
            if row:
                rows.append(row)
            if len(rows) > SAMPLE:
                return rows[:-1]
    except csv.Error:
        return rows
    return rows if whole or len(rows) < 2 else rows[:-1]


def _reader(lines: Any, separator: str, quoted: bool) -> Any:
    csv.field_size_limit(2**20)
    return csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)


def _links_in(rows: Sequence[Sequence[str]], place: int) -> int:
    return sum(place < len(row) and is_link(row[place]) for row in rows)


def _headless(path: Path, layout: Layout, rows: list[list[str]], wanted: str) -> Layout | None:
    """Returns the layout of a table without names: its address is where the addresses stand, in every row.

    Raises UsageError where several columns hold some.
    """
    width = len(rows[0])
    if layout.separator != "\t" and sum(len(row) == width for row in rows) < len(rows):
        return None
    links = [place for place in range(width) if _links_in(rows, place) * 2 >= len(rows)]
    if layout.separator != "\t" and not _splits(rows, layout.separator):
        return None
    numbers = [str(place + 1) for place in range(width)]
    if wanted:
        place = numbers.index(wanted) if wanted in numbers else -1
        if place < 0:
            raise UsageError(f"{path} has no names of columns; give the number of one, 1 to {width}: --url-column 1.")
    else:
        pictures = [place for place in links if _pictures_in(rows, place) * 2 > len(rows)]
        chosen = pictures if len(links) > 1 else links
        if len(chosen) != 1:
            if not links:
                return None
            several = " and ".join(str(place + 1) for place in links)
            raise UsageError(f"the columns {several} of {path} hold addresses and it names none; give the number of the"
                             " pictures' one: --url-column NUMBER.")  # fmt: skip
        place = chosen[0]
    names = [f"column {number}" for number in numbers]
    if width == 2:
        other = [row[1 - place].strip() for row in rows if len(row) == 2]
        is_id = all(re.fullmatch(r"[\w.-]*\d[\w.-]*", value) for value in other)
        names[1 - place] = "id" if is_id else "caption"
    names[place] = "url"
    return replace(layout, names=tuple(names), column="url", headless=True)


def _pictures_in(rows: Sequence[Sequence[str]], place: int) -> int:
    return sum(place < len(row) and bool(_PICTURE.search(_path_of(row[place]))) for row in rows)


def _path_of(link: str) -> str:
    try:
        return urlsplit(link.strip()).path
    except ValueError:
        return ""


def _splits(rows: list[list[str]], separator: str) -> bool:
    """True where commas part columns. In lists of addresses they belong to these, and half of one would be another."""
    if any(" " in field.strip() or not field for row in rows for field in row):
        return True
    if not all(is_link(row[0]) for row in rows):
        return True
    first = sum(bool(_PICTURE.search(_path_of(row[0]))) for row in rows)
    return first > sum(bool(_PICTURE.search(_path_of(separator.join(row)))) for row in rows)


def _plain(head: str, whole: bool, encoding: str) -> Layout | None:
    """Returns the layout of a list of addresses, one a line; lists made by hand have a stray line here and there."""
    lines = [line.strip() for line in _LINE.split(head) if line.strip()]
    if url_column([lines[0].strip('"')]):
        return Layout("text", encoding, column="url")
    shown = [line for line in (lines if whole or len(lines) < 2 else lines[:-1])[:SAMPLE] if not line.startswith("#")]
    links = sum(is_link(_unquoted(line)) for line in shown)
    return Layout("text", encoding, column="url") if links and links * 2 >= len(shown) else None


class _Lines:
    """The lines of a text, none longer than what fits: one that is raises csv.Error; the next call goes on behind it.

    A class, because a generator would have ended with the first error. `taken` are the lines since it was emptied.
    """

    def __init__(self, handle: io.TextIOWrapper):
        self._handle = handle
        self._waiting: list[str] = []  # the next one last
        self.taken: list[str] = []

    def give_back(self, lines: Sequence[str]) -> None:
        self._waiting += reversed(lines)

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._waiting.pop() if self._waiting else self._handle.readline(LONGEST_LINE)
        if not line:
            raise StopIteration
        if len(line) < LONGEST_LINE or line[-1] in "\r\n":
            line = line.lstrip("\ufeff")  # where files were put together, each has brought its mark
            self.taken.append(line)
            return line
        while (rest := self._handle.readline(LONGEST_LINE)) and rest[-1] not in "\r\n":
            pass
        raise csv.Error("a line without end")


def _whole_lines(path: Path, layout: Layout) -> Iterator[str | None]:
    """The lines of a text; None for one without end."""
    with _open(path, layout.encoding) as handle:
        lines = _Lines(handle)
        while True:
            try:
                yield next(lines)
            except StopIteration:
                return
            except csv.Error:
                yield None


def _unquoted(line: str) -> str:
    """Returns an address without the quotes that a table of one column puts around one with commas."""
    return line[1:-1].replace('""', '"') if len(line) > 1 and line[0] == line[-1] == '"' else line


def read_text(path: Path, layout: Layout, reasons: Counter[str]) -> Rows:
    """Yields one address a line, whatever it contains: commas belong to it."""
    for number, line in enumerate(_whole_lines(path, layout)):
        if line is None:
            yield None
        elif line.strip() and not line.startswith("#") and not (number == 0 and url_column([line.strip().strip('"')])):
            # What parts lines elsewhere, and the mark of a file put behind another, are in no address.
            for part in filter(None, map(str.strip, _PARTS.split(line))):
                row = NamedRow({"url": _unquoted(part)})
                row.names = _ADDRESS_ALONE
                yield row


def read_table(path: Path, layout: Layout, reasons: Counter[str]) -> Rows:
    """Yields the rows of a table under normal names; None for one with more fields than columns, or without end."""
    names = [normal(name) or f"column{place}" for place, name in enumerate(layout.names)]
    columns = tuple(dict(zip(reversed(names), reversed(layout.names), strict=True)).items())[::-1]
    is_last = names[-1] == layout.column
    with _open(path, layout.encoding) as handle:
        lines = _Lines(handle)
        for _ in range(layout.skipped):
            next(lines, None)
        table = _reader(lines, layout.separator, layout.quoted)
        try:
            while not layout.headless and not next(table):
                pass  # blank lines before the names
        except (csv.Error, StopIteration) as error:
            raise GleanerError(f"the first line of {path} cannot be read ({error}); shorten it.") from error
        for row in _rows_between(table, lines, layout):
            if row is None:
                yield None
            elif row and (layout.headless or tuple(row) != layout.names):  # as where tables were put together
                if (fitted := _fitted(row, names, is_last, layout.separator)) is not None:
                    fitted.names = columns if len(fitted) == len(columns) else columns[: len(fitted)]
                yield fitted


def _rows_between(table: Any, lines: _Lines, layout: Layout) -> Iterator[list[str] | None]:
    """Yields the rows of a table behind its names; None for one without end.

    A quotation mark that begins a field and is never closed would take all rows behind it into the field. Where those
    lines are rows by themselves, the mark stands for itself.
    """
    while True:
        lines.taken.clear()
        try:
            row = next(table)
        except StopIteration:
            return
        except csv.Error:  # such as a field without end; the table goes on behind it
            row = None
        first, *others = lines.taken or ("",)
        if others and _are_rows(others, layout):
            lines.give_back(others)
            table = _reader(lines, layout.separator, layout.quoted)
            row = next(_reader([first], layout.separator, False), None)
        yield row


def _are_rows(lines: Sequence[str], layout: Layout) -> bool:
    """True where most of the first lines are rows of a table by themselves, each with its address."""
    names = [normal(name) for name in layout.names]
    place = names.index(layout.column) if layout.column in names else 0
    single: list[list[str]] = [
        next(_reader([line], layout.separator, layout.quoted), []) for line in lines[:SAMPLE] if line.strip()
    ]
    fitting = sum(len(row) == len(names) and (is_link(row[place]) or not layout.linked) for row in single)
    return fitting * 2 > len(single)


def _fitted(row: list[str], names: list[str], is_last: bool, separator: str) -> NamedRow | None:
    """Returns a row under its names. One without quotes around its commas is read where the address stands last.

    Elsewhere nobody can tell whose they are, and it is no row: half an address would be taken for the whole.
    """
    if len(row) > len(names):
        surplus = row[len(names) :]
        if any(surplus):
            if not is_last:
                return None
            row = [*row[: len(names) - 1], separator.join(row[len(names) - 1 :])]
    found = NamedRow()
    for name, value in zip(names, row, strict=False):
        found.setdefault(name, value)
    return found


def read_jsonl(path: Path, layout: Layout, reasons: Counter[str]) -> Rows:
    """Yields the object of each line under normal names."""
    for line in _whole_lines(path, layout):
        if line is None or line.strip():
            row = exact_row(line or "")
            yield None if row is None else named(row)


def read_json(path: Path, layout: Layout, reasons: Counter[str]) -> Rows:
    """Yields the rows of a JSON file under normal names."""
    with _open(path, layout.encoding) as handle:
        for row in json_rows(handle, "" if layout.column in URL_NAMES else layout.column, []):
            yield None if row is None else named(row)


def exact_row(line: str) -> Mapping[str, Any] | None:
    """Returns the object in a line; None where there is none, or more in it than a list has a use for."""
    line = line.strip("\ufeff \x1e\r\n,")
    try:
        row = load_exact(line.encode("utf-8", "replace"))
    except ParseError:
        mended = _LAST_COMMA.sub("}", line)
        return exact_row(mended) if mended != line else None
    return row if isinstance(row, dict) else None


def _open(path: Path, encoding: str) -> io.TextIOWrapper:
    if encoding.replace("_", "-").lower() in ("utf-8", "utf8"):
        encoding = "utf-8-sig"
    return path.open(encoding=encoding, errors="replace", newline="")


READERS: dict[str, Callable[[Path, Layout, Counter[str]], Rows]] = {
    "text": read_text,
    **dict.fromkeys(_SEPARATORS.values(), read_table),
    "jsonl": read_jsonl,
    "json": read_json,
}
