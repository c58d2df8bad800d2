"""The forms of a dataset, and the flat record of a picture: its columns are the same for every picture of a dataset.

A writer takes pictures one by one, each with its record. `write_without` takes pictures out of a dataset again.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from lib.db import Database
from lib.db import scores as store
from lib.files.pictures import SUFFIXES
from lib.journal.moves import hard_link
from lib.sort.export.columns import (
    CAPTION,
    LABEL,
    UNLABELLED,
    ListColumns,
    arrow_kind,
    as_kind,
    as_text,
    feature_of,
    folder_name,
    own_kind,
)
from lib.sort.export.shards import shard_without, shards_below
from lib.text import places, without_places
from lib.workspace import Workspace

ORIGIN = (
    "query", "query_sha256", "engine", "image_url", "page_url", "title", "license", "license_url", "creator",
    "attribution",
)  # fmt: skip

SHARD_BYTES = 500_000_000  # half a gigabyte a shard, as Hugging Face cuts its own
CONVERTED = ".converted"  # a folder below the one that is built, gone before that is a dataset
NAME_DIGITS = 24  # of a content's hash, in the name of its file
SHARD = re.compile(r"(train|val|test)-\d+\.(tar|parquet)")
ROWS_IN_GROUP = 100  # of Parquet: pictures are large, and a reader takes a row group at once


class Look(NamedTuple):
    """One picture as it was found: `reason` says why it cannot be read, '' where it can.

    `width` and `height` are upright. `sha256` is that of the file that was written, of what was converted; `exif` are
    the tags that were there before, as JSON.
    """

    reason: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    frames: int = 1
    sha256: str = ""
    exif: str = ""


@dataclass
class Columns:
    """The columns of records: labels and scores of `criteria`, those of lists, and on wish a label and a caption."""

    criteria: Sequence[str] = ()
    lists: ListColumns = field(default_factory=ListColumns)
    label: str = ""  # a criterion
    caption: str = ""  # a column


def records(
    db: Database, workspace: Workspace, page: Sequence[tuple[str, str]], columns: Columns
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, record) of (sha256, path as the workspace writes it); what is not there or has no header has no `width`.

    `label_<criterion>` and `score_<criterion>` are there for all criteria, empty where one does not know the picture.
    """
    criteria = columns.criteria
    contents = [sha256 for sha256, _ in page]
    labels = {criterion: store.known_labels(db, criterion, contents) for criterion in criteria}
    sizes, origins = store.known_sizes(db, contents), store.provenance(db, contents)
    kept = store.kept_columns(db, contents) if columns.lists.kinds else {}
    own = own_places(workspace)
    for sha256, text in page:
        path = workspace.to_path(text)
        known = sizes.get(sha256) if path.is_file() else (0, 0, "")
        width, height, form = known or _size(path)
        size = {"width": width, "height": height, "format": form}
        record: dict[str, Any] = {"sha256": sha256, **size, "source_name": text.rpartition("/")[2]}
        for criterion in criteria:
            label = labels[criterion].get(sha256)
            record[f"label_{criterion}"] = label.label if label else ""
            record[f"score_{criterion}"] = label.score if label else None
        origin: Mapping[str, str] = origins.get(sha256, {})
        record |= {name: without_places(origin.get(name, ""), own) for name in ORIGIN}
        yield path, with_columns(record, kept.get(sha256, {}), columns, own)


def own_places(workspace: Workspace) -> re.Pattern[str]:
    """Returns what finds the places of this machine: records go to others, and no text in them tells of it."""
    return places((workspace.root, Path.home()))


def with_columns(
    record: dict[str, Any], kept: Mapping[str, Any], columns: Columns, own: re.Pattern[str] | None = None
) -> dict[str, Any]:
    """Adds what lists have brought along, the label and the caption, where they are asked for.

    `own` finds the places of this machine, which no text tells.
    """
    brought = columns.lists.of(kept)
    record |= {name: without_places(it, own) if own and type(it) is str else it for name, it in brought.items()}
    if columns.label:
        record[LABEL] = record[f"label_{columns.label}"] or UNLABELLED
    if columns.caption:
        record[CAPTION] = as_text(record.get(columns.caption))
    return record


def file_name(record: Mapping[str, Any], path: Path) -> str:
    """The file's name in a dataset: by its content, so that it is the same in every export and clashes with none."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:  # such as `.jpg_large` and `.bin`, which no reader takes for a picture's
        suffix = f".{record['format']}"
    return f"{content_of(record)[:NAME_DIGITS]}{suffix}"


def content_of(record: Mapping[str, Any]) -> str:
    """The content that a picture was downloaded as, also where it was converted."""
    return str(record.get("original_sha256") or record["sha256"])


def _size(path: Path) -> tuple[int, int, str]:
    from lib.images.decode import DecodeError, read_header

    try:
        header = read_header(path)
    except DecodeError:
        return 0, 0, ""
    return (*header.upright_size, header.format)


class Writer(Protocol):
    """A form of a dataset. `split` is train, val or test. `add` gives the name by which the picture is found there."""

    def add(self, split: str, path: Path, record: Mapping[str, Any]) -> str: ...

    def close(self) -> None: ...


@dataclass
class ImageFolder:
    """`<split>/<name>` (or `<split>/<label>/<name>`) with a `metadata.jsonl` for each split.

    `as_texts` are columns that are written as text, '' for nothing; records' own whole numbers stay, 0 for nothing.
    """

    folder: Path
    mode: str = "copy"
    label: str = ""
    as_texts: Set[str] = frozenset()
    open_files: dict[str, Any] = field(default_factory=dict)

    def add(self, split: str, path: Path, record: Mapping[str, Any]) -> str:
        name = plain = file_name(record, path)
        if self.label:
            name = f"{folder_name(record[LABEL])}/{name}"
        target = self.folder / split / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _put(path, target, self.mode)
        if split not in self.open_files:
            self.open_files[split] = (self.folder / split / "metadata.jsonl").open("w", encoding="utf-8", newline="")
        texts = {one: _told(one, record[one]) for one in self.as_texts if one in record}
        self.open_files[split].write(json.dumps({"file_name": name, **record, **texts}, ensure_ascii=False) + "\n")
        return plain

    def close(self) -> None:
        for file in self.open_files.values():
            file.close()


@dataclass
class Parquet:
    """`<split>-00000.parquet` with the column `image` as Hugging Face's Image has it, its bytes inside or its path."""

    folder: Path
    embed: bool = True
    shard_bytes: int = SHARD_BYTES
    kinds: Mapping[str, str] = field(default_factory=dict)  # of columns that lists brought
    labels: Sequence[str] = ()  # the classes of the column `label`
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    shards: dict[str, tuple[Any, int]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, split: str, path: Path, record: Mapping[str, Any]) -> str:
        name = file_name(record, path)
        image = {
            "bytes": path.read_bytes() if self.embed else None,
            "path": name if self.embed else str(path.absolute()),
        }
        rows = self.rows.setdefault(split, [])
        classes = {LABEL: self.labels.index(record[LABEL])} if self.labels else {}
        rows.append({"image": image, **record, **classes})
        if len(rows) >= ROWS_IN_GROUP:
            self._flush(split)
        return name

    def _flush(self, split: str) -> None:
        import pyarrow
        import pyarrow.parquet

        rows = self.rows.pop(split, [])
        if not rows:
            return
        table = pyarrow.Table.from_pylist(rows, schema=self._schema(rows[0]))
        writer, size = self.shards.get(split, (None, 0))
        if writer is not None and size > self.shard_bytes:
            writer.close()
            writer, size = None, 0
        if writer is None:
            number = self.numbers[split] = self.numbers.get(split, -1) + 1
            writer = pyarrow.parquet.ParquetWriter(self.folder / f"{split}-{number:05}.parquet", table.schema)
        writer.write_table(table)
        self.shards[split] = (writer, size + sum(len(row["image"]["bytes"] or b"") for row in rows))

    def close(self) -> None:
        for split in list(self.rows):
            self._flush(split)
        for writer, _ in self.shards.values():
            writer.close()

    def _schema(self, row: Mapping[str, Any]) -> Any:
        """Columns by name, so that an empty block has the same types; and the hints for Hugging Face's `datasets`."""
        import pyarrow

        fields = [("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))]
        features: dict[str, Any] = {"image": {"_type": "Image"}}
        for name in row:
            if name == LABEL and self.labels:
                fields.append((name, pyarrow.int64()))
                features[name] = {"names": list(self.labels), "_type": "ClassLabel"}
            elif name != "image":
                kind = self.kinds.get(name) or own_kind(name)
                fields.append((name, arrow_kind(kind)))
                features[name] = feature_of(kind)
        return pyarrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


@dataclass
class Removal:
    """The change that taking pictures out makes to a dataset: files that leave their place, and pictures by side."""

    files: list[Path] = field(default_factory=list)
    pictures: Counter[str] = field(default_factory=Counter)
    names: set[str] = field(default_factory=set)  # of pictures, as the attribution file has them, without endings


def write_without(place: Path, to: Path | None, contents: Set[str], sides: Sequence[str] = ()) -> Removal:
    """Writes below `to` what the files of a dataset that hold any of the contents are without them; None only looks.

    `sides` are those of the dataset.

    Raises OSError, or ValueError for a file that is no longer what an export wrote.
    """
    removal = Removal(names=names_of(contents))
    for side, shard in shards_below(place, sides):
        older, keys = shard_without(shard, to / shard.relative_to(place) if to else None, contents)
        removal.files += older
        removal.pictures[side] += len(keys)
        removal.names |= {key if shard.parent == place else f"{side}/{key}" for key in keys}
    for path in sorted(place.iterdir()):
        target = to / path.name if to else None
        if (match := SHARD.fullmatch(path.name)) and path.is_file():
            without = _tar_without if match[2] == "tar" else _parquet_without
            if gone := without(path, target, contents):
                removal.files.append(path)
                removal.pictures[match[1]] += gone
        elif path.name in ("train", "val", "test") and path.is_dir():
            _folder_without(path, target, contents, removal)
    return removal


def names_of(contents: Set[str]) -> set[str]:
    """The names of contents in a dataset, without their endings."""
    return {sha256[:NAME_DIGITS] for sha256 in contents}


def _folder_without(folder: Path, to: Path | None, contents: Set[str], removal: Removal) -> None:
    """One side of an imagefolder: its pictures by their names and by its `metadata.jsonl`."""
    names, kept, listed, dropped = names_of(contents), list[str](), folder / "metadata.jsonl", False
    leaving = {path for path in folder.rglob("*") if path.stem in names and (path.is_symlink() or path.is_file())}
    for line in listed.read_text(encoding="utf-8").splitlines(keepends=True) if listed.is_file() else ():
        record = json.loads(line)
        if content_of(record) not in contents:
            kept.append(line)
            continue
        dropped, named = True, Path(os.path.normpath(folder / record["file_name"]))
        if os.path.lexists(named) and folder in named.parents:
            leaving.add(named)
    removal.pictures[folder.name] += len(leaving)
    removal.files += sorted(leaving)
    if dropped:
        removal.files.append(listed)
        if to and kept:
            to.mkdir(exist_ok=True)
            (to / listed.name).write_text("".join(kept), encoding="utf-8", newline="")


def _tar_without(path: Path, target: Path | None, contents: Set[str]) -> int:
    """The number of pictures that a shard loses; one that keeps none is not written."""
    names = names_of(contents)
    try:
        with tarfile.open(path) as shard:
            entries = {entry: entry.name.partition(".")[0] for entry in shard.getmembers()}
            kept = [entry for entry, name in entries.items() if name not in names]
            if target and 0 < len(kept) < len(entries):
                with tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as made:
                    for entry in kept:
                        made.addfile(entry, shard.extractfile(entry))
            return len(names & set(entries.values()))
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no tar file ({error})") from error


def _parquet_without(path: Path, target: Path | None, contents: Set[str]) -> int:
    """The number of pictures that a shard loses; one that keeps none is not written."""
    import pyarrow
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as shard:
        columns = [name for name in ("sha256", "original_sha256") if name in shard.schema_arrow.names]
        groups = [shard.read_row_group(number, columns).to_pylist() for number in range(shard.num_row_groups)]
        kept = [[content_of(row) not in contents for row in group] for group in groups]
        staying, all_of_them = sum(map(sum, kept)), sum(map(len, kept))
        if target and 0 < staying < all_of_them:
            with pyarrow.parquet.ParquetWriter(target, shard.schema_arrow) as writer:
                for number, mask in enumerate(kept):
                    if any(mask):
                        writer.write_table(shard.read_row_group(number).filter(pyarrow.array(mask)))
        return all_of_them - staying


def _told(name: str, value: Any) -> str | int:
    return value or 0 if own_kind(name) == "int32" else as_kind(value, "string") or ""


def _put(source: Path, target: Path, mode: str) -> None:
    if target.exists():
        return  # two contents never share a name; the same one again is the same file
    if source.parent.name == CONVERTED:
        os.replace(source, target)
    elif mode == "hardlink":
        hard_link(source.resolve(), target)
    elif mode == "symlink":
        os.symlink(source.resolve(), target)
    else:
        shutil.copyfile(source, target)
