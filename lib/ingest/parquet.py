"""Rows of a Parquet file in bounded memory: the file's own word for how large its pages are is looked at first.

A page of a few kilobytes may unpack to gigabytes, and a value that stands once in a dictionary is repeated in every
row. So every page's header is read before any page; values of a dictionary stay numbers until a row is made, and a
batch has as many rows as fit in memory at the length that its pages allow. Of nested columns the members of
structures and lists of plain values are read.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from lib.engines.parsing import TEXT_LIMIT
from lib.errors import GleanerError

if TYPE_CHECKING:
    from pyarrow import Array
    from pyarrow.parquet import ParquetFile

log = logging.getLogger("gleaner")

LARGEST_PAGE = 16 * 2**20  # bytes, unpacked; writers aim at one
BATCH_BYTES = 32 * 2**20  # what the values of a batch may take
MOST_ROWS = 10_000  # of a batch
LARGEST_FOOTER = 64 * 2**20  # bytes; of a file with ten thousand row groups some 40 MiB
MOST_ENTRIES = 200_000  # columns or row groups that a footer may name
LARGEST_HEADER = 2**20  # bytes of a page's header, which may carry the least and the greatest value
LONGEST_TEXT = 4 * TEXT_LIMIT  # bytes of what counts of a value
DEEPEST = 4  # structures within each other
MOST_IN_LISTS = 4_000_000  # values that the lists of a column may hold in a row group
MOST_OF_A_LIST = 40_000  # values of one list that are read; more take more room than a row may
OBJECT = 32  # bytes that a number takes in Python
_LIST_ITEM = re.compile(r"\.(?:list\.(?:element|item)|bag\.array_element|array\.array|list\.array)$")
_PREFIXED = "DELTA_BYTE_ARRAY"  # values that repeat the beginning of the one before
_NUM_VALUES = {5: "data", 7: "dictionary", 8: "data"}  # fields of a page's header that hold its number of values


class Page(NamedTuple):
    """A page as its header describes it; sizes in bytes."""

    unpacked: int
    packed: int
    values: int
    dictionary: bool


def parquet_columns(path: Path) -> list[str]:
    """Returns the names of all columns, those inside a structure with its name before them."""
    import pyarrow

    try:
        return [name for field in _open(path, ()).schema_arrow for name, _ in _leaves(field.name, field.type)]
    except (pyarrow.ArrowException, OSError, ValueError, TypeError, MemoryError) as error:
        raise GleanerError(f"{path} cannot be read as Parquet ({error}); give a whole copy.") from error


def parquet_rows(
    path: Path,
    wanted: Callable[[str], bool],
    reasons: Counter[str],
    encoding: str = "utf-8",
    left_out: Counter[str] | None = None,
) -> Iterator[Mapping[str, Any]]:
    """Yields the rows with those columns whose names are wanted; bytes of no declared kind are read as `encoding`.

    Given `left_out` with all others too, but those of such bytes, which are pictures as a rule. A column that would
    take too much memory is left out, a row group that cannot be read as well; both are said and counted, in `left_out`
    a column that is not wanted. Raises GleanerError where the file is no Parquet.
    """
    import pyarrow
    import pyarrow.parquet

    others = reasons if left_out is None else left_out
    unreadable = (pyarrow.ArrowException, OSError, ValueError, TypeError, OverflowError, MemoryError)
    try:
        table = _open(path, ())
        leaves = [leaf for field in table.schema_arrow for leaf in _leaves(field.name, field.type)]
        needed = {name for name, kind in leaves if wanted(name) and _is_readable(kind)}
        kept = {name for name, kind in leaves if left_out is not None and _is_kept(kind)}
        chosen = needed | kept
        if left_out is not None and (passed := len({name for name, _ in leaves} - chosen)):
            left_out["columns_of_bytes_or_nested"] += passed
        names = [
            column.path
            for column in map(table.schema.column, range(len(table.schema)))
            if _LIST_ITEM.sub("", column.path) in chosen
        ]
        table = _open(path, _by_dictionary(table, names))
    except unreadable as error:
        raise GleanerError(f"{path} cannot be read as Parquet ({error}); give a whole copy.") from error
    for group in range(table.metadata.num_row_groups):
        try:
            columns, rows = _readable(path, table, group, names, lambda name: reasons if name in needed else others)
            for batch in table.iter_batches(batch_size=rows, row_groups=[group], columns=columns) if columns else ():
                for values in zip(*(_values(column, encoding) for column in batch.columns), strict=True):
                    # Of columns of one name the first counts.
                    yield dict(zip(reversed(batch.schema.names), reversed(values), strict=True))
        except unreadable as error:
            log.warning("row group %d of %s cannot be read (%s); give a whole copy", group, path, error)
            reasons["broken_row_group"] += 1


def _by_dictionary(table: ParquetFile, names: Collection[str]) -> list[str]:
    """The columns to read as numbers of a dictionary: all but those of encodings that pyarrow reads as values only."""
    others: set[str] = set()
    packed: set[str] = set()
    for group in map(table.metadata.row_group, range(table.metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            packed |= {column.path_in_schema} if column.has_dictionary_page else set()
            others |= {column.path_in_schema} if any(one.startswith("DELTA") for one in column.encodings) else set()
    return [name for name in names if name in packed or name not in others]


def _leaves(name: str, kind: Any, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yields the columns that a field consists of, by their path."""
    from pyarrow import types

    if types.is_struct(kind) and depth < DEEPEST:
        for inner in kind:
            yield from _leaves(f"{name}.{inner.name}", inner.type, depth + 1)
    else:
        yield name, kind


def _open(path: Path, names: Collection[str]) -> ParquetFile:
    """The file with texts as numbers of a dictionary. A column may be named in vain: those of numbers have none."""
    import pyarrow.parquet

    with path.open("rb") as handle:
        handle.seek(-8, os.SEEK_END)
        if int.from_bytes(handle.read(4), "little") > LARGEST_FOOTER:
            raise ValueError("its footer is too large")
    return pyarrow.parquet.ParquetFile(
        path,
        read_dictionary=list(names),
        buffer_size=2**20,  # a column is read as it is needed, not at once
        thrift_string_size_limit=LARGEST_FOOTER,
        thrift_container_size_limit=MOST_ENTRIES,
    )


def _is_readable(kind: Any) -> bool:
    """True for texts, numbers, truth values, moments, and lists of them."""
    from pyarrow import types

    if _is_list(kind):
        return not _is_list(kind.value_type) and _is_readable(kind.value_type)
    numbers = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    value = _plain_kind(kind)
    return _is_text(value) or any(is_it(value) for is_it in (*numbers, types.is_temporal))


def _is_kept(kind: Any) -> bool:
    """True for what is read, but for bytes that are not declared to be text."""
    from pyarrow import types

    value = _plain_kind(kind.value_type if _is_list(kind) else kind)
    declared = types.is_string(value) or types.is_large_string(value) or types.is_string_view(value)
    return _is_readable(kind) and (declared or not _is_text(value))


def _plain_kind(kind: Any) -> Any:
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind))


def _readable(
    path: Path, table: ParquetFile, group: int, names: list[str], counter_of: Callable[[str], Counter[str]]
) -> tuple[list[str], int]:
    """The columns of a row group that fit in memory, and how many rows of them at once."""
    metadata = table.metadata.row_group(group)
    columns, rows = [], MOST_ROWS
    with path.open("rb") as handle:
        for place in range(metadata.num_columns):
            column = metadata.column(place)
            if column.path_in_schema not in names:
                continue
            shape = table.schema.column(place)
            size = _largest_value(handle, column, shape.length)
            if shape.max_repetition_level and column.num_values > MOST_IN_LISTS:
                size = None  # a row may hold all of them
            elif shape.max_repetition_level and size is not None:
                size = max(size, OBJECT) * max(1.0, column.num_values / max(1, metadata.num_rows))
            if size is None:
                log.warning(
                    "the column %s of row group %d in %s is left out: it unpacks to more than %d MiB a page",
                    column.path_in_schema, group, path, LARGEST_PAGE >> 20,
                )  # fmt: skip
                counter_of(_LIST_ITEM.sub("", column.path_in_schema))["column_too_large"] += 1
            else:
                columns.append(column.path_in_schema)
                rows = max(1, min(rows, int(BATCH_BYTES / size)))
    return columns, rows


def _largest_value(handle: BinaryIO, column: Any, length: int) -> float | None:
    """The bytes that a row takes where its pages have the longest values; None where a page would not fit."""
    size = float(max(8, length))  # of a number, or of a value of fixed length
    for page in _pages(handle, column):
        if page.unpacked > LARGEST_PAGE:
            return None
        if not page.dictionary:
            size = max(size, page.unpacked / max(1, page.values))
    if _PREFIXED in column.encodings:  # a value may be as long as all that stands before it
        if column.total_uncompressed_size > LARGEST_PAGE:
            return None
        size = max(size, float(column.total_uncompressed_size))
    return size


def _pages(handle: BinaryIO, column: Any) -> Iterator[Page]:
    """The headers of a column's pages. Raises ValueError for what is none."""
    start = column.data_page_offset
    if column.has_dictionary_page and 0 < (column.dictionary_page_offset or 0) < start:
        start = column.dictionary_page_offset
    end, left = start + column.total_compressed_size, column.num_values
    while start < end and left > 0:
        page, header = _page_at(handle, start)
        yield page
        left -= 0 if page.dictionary else page.values
        start += header + page.packed


def _page_at(handle: BinaryIO, offset: int) -> tuple[Page, int]:
    """A page's header and how many bytes it has."""
    size = 4096
    while True:
        handle.seek(offset)
        reader = _Thrift(handle.read(size))
        try:
            found = reader.struct()
            break
        except IndexError:
            if size >= LARGEST_HEADER or len(reader.body) < size:
                raise ValueError("a page has no header") from None
            size *= 8
    held = next(((kind, found[field]) for field, kind in _NUM_VALUES.items() if field in found), None)
    numbers = [found.get(2), found.get(3), held and held[1].get(1)]
    if held is None or not all(isinstance(number, int) and number >= 0 for number in numbers):
        raise ValueError("a page's header says no size")
    return Page(found[2], found[3], held[1][1], held[0] == "dictionary"), reader.place


class _Thrift:
    """Reads a structure of Thrift's compact protocol: the numbers in it by field, all else is passed over.

    Raises IndexError where the bytes end early and ValueError for what is no such structure.
    """

    def __init__(self, body: bytes):
        self.body = body
        self.place = 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        if depth > 8:
            raise ValueError("a page's header is too deep")
        found: dict[int, Any] = {}
        field = 0
        while (head := self._byte()) != 0:
            field = field + (head >> 4) if head >> 4 else self._zigzag()
            found[field] = self._value(head & 15, depth)
        return found

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (1, 2):  # true and false stand in the head
            return kind == 1
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 12:
            return self.struct(depth + 1)
        if kind not in (3, 7, 8):
            raise ValueError("a page's header has a field of an unknown kind")
        skipped = {3: 1, 7: 8}.get(kind) or self._number()  # first: reading the number moves the place
        self.place += skipped
        if self.place > len(self.body):
            raise IndexError
        return None

    def _byte(self) -> int:
        self.place += 1
        return self.body[self.place - 1]

    def _number(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a page's header has a number without end")

    def _zigzag(self) -> int:
        number = self._number()
        return (number >> 1) ^ -(number & 1)


def _values(column: Array, encoding: str) -> list[Any]:
    """Returns the values of a column: texts cut to what counts of them, one that repeats as one object."""
    from pyarrow import types

    if types.is_struct(column.type):
        parts = [
            (field.name, _values(part, encoding)) for field, part in zip(column.type, column.flatten(), strict=True)
        ]
        return [{name: values[place] for name, values in parts} for place in range(len(column))]
    if _is_list(column.type):
        return _lists(column, encoding)
    if not types.is_dictionary(column.type):
        return _cut(column, encoding)
    used = column.indices.unique().drop_null()
    known = dict(zip(used.to_pylist(), _cut(column.dictionary.take(used), encoding), strict=True))
    return [known.get(number) for number in column.indices.to_pylist()]


def _lists(column: Array, encoding: str) -> list[Any]:
    values, place, made = _values(column.flatten(), encoding), 0, list[Any]()
    for length in column.value_lengths().to_pylist():
        made.append(None if length is None else values[place : place + min(length, MOST_OF_A_LIST)])
        place += length or 0
    return made


def _cut(values: Array, encoding: str) -> list[Any]:
    import pyarrow
    import pyarrow.compute
    from pyarrow import types

    if not _is_text(values.type):
        if types.is_decimal(values.type):
            return [value if value is None else str(value) for value in values.to_pylist()]
        if types.is_temporal(values.type):  # Python's own dates end before Parquet's; those are words in brackets
            shown = values.cast(pyarrow.string()).to_pylist()
            return [None if value is None or value.startswith("<") else value for value in shown]
        return list(values.to_pylist())
    declared = types.is_string(values.type) or types.is_large_string(values.type) or types.is_string_view(values.type)
    letters = "utf-8" if declared else encoding
    cut = pyarrow.compute.binary_slice(values.cast(pyarrow.large_binary()), 0, LONGEST_TEXT)
    return [value if value is None else value.decode(letters, "replace") for value in cut.to_pylist()]


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    kinds = (
        *(types.is_string, types.is_large_string, types.is_string_view, types.is_binary, types.is_large_binary),
        *(types.is_binary_view, types.is_fixed_size_binary),
    )
    return any(is_it(kind) for is_it in kinds)
