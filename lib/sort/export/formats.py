"""The forms of a dataset, and the flat record of a picture: its columns are the same for every picture of a dataset.

A writer takes pictures one by one, each with its record. `write_without` takes pictures out of a dataset again.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from lib.db import Database
from lib.db import scores as store
from lib.files.pictures import SUFFIXES
from lib.journal.moves import hard_link
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


def records(
    db: Database, workspace: Workspace, page: Sequence[tuple[str, str]], criteria: Sequence[str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, record) of (sha256, path as the workspace writes it); what is not there or has no header has no `width`.

    `label_<criterion>` and `score_<criterion>` are there for all criteria, empty where one does not know the picture.
    """
    contents = [sha256 for sha256, _ in page]
    labels = {criterion: store.known_labels(db, criterion, contents) for criterion in criteria}
    sizes, origins = store.known_sizes(db, contents), store.provenance(db, contents)
    own = places((workspace.root, Path.home()))  # records go to others: no text in them tells of this machine
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
        yield path, record | {name: without_places(origin.get(name, ""), own) for name in ORIGIN}


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
    """A form of a dataset. `split` is train, val or test."""

    def add(self, split: str, path: Path, record: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


@dataclass
class ImageFolder:
    """`<split>/<name>` (or `<split>/<label>/<name>`) with a `metadata.jsonl` for each split."""

    folder: Path
    mode: str = "copy"
    label: str = ""
    open_files: dict[str, Any] = field(default_factory=dict)

    def add(self, split: str, path: Path, record: Mapping[str, Any]) -> None:
        name = file_name(record, path)
        if self.label:
            name = f"{record[f'label_{self.label}'] or 'unlabelled'}/{name}"
        target = self.folder / split / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _put(path, target, self.mode)
        if split not in self.open_files:
            self.open_files[split] = (self.folder / split / "metadata.jsonl").open("w", encoding="utf-8", newline="")
        self.open_files[split].write(json.dumps({"file_name": name, **record}, ensure_ascii=False) + "\n")

    def close(self) -> None:
        for file in self.open_files.values():
            file.close()


@dataclass
class TarShards:
    """`<split>-000000.tar`: each picture as `<key>.<ext>` with `<key>.json` beside it; alike bytes for alike input.

    Loaders want the same extensions for every key, so that all pictures get the one of the most common format; they
    tell formats by the bytes, and the record says which it is.
    """

    folder: Path
    extension: str = "jpg"
    shard_bytes: int = SHARD_BYTES
    shards: dict[str, tuple[tarfile.TarFile, int]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, split: str, path: Path, record: Mapping[str, Any]) -> None:
        content, name = path.read_bytes(), file_name(record, path)
        key = name.rpartition(".")[0]
        text = json.dumps(record, ensure_ascii=False).encode()
        shard, size = self._shard(split, len(content) + len(text))
        for suffix, part in ((self.extension, content), ("json", text)):
            entry = tarfile.TarInfo(f"{key}.{suffix}")
            entry.size, entry.mtime, entry.mode = len(part), 0, 0o644
            shard.addfile(entry, io.BytesIO(part))
        self.shards[split] = (shard, size + len(content) + len(text))

    def _shard(self, split: str, coming: int) -> tuple[tarfile.TarFile, int]:
        shard, size = self.shards.get(split, (None, 0))
        if shard is not None and size + coming <= self.shard_bytes:
            return shard, size
        if shard is not None:
            shard.close()
        number = self.numbers[split] = self.numbers.get(split, -1) + 1
        return tarfile.open(self.folder / f"{split}-{number:06}.tar", "w", format=tarfile.GNU_FORMAT), 0

    def close(self) -> None:
        for shard, _ in self.shards.values():
            shard.close()


@dataclass
class Parquet:
    """`<split>-00000.parquet` with the column `image` as Hugging Face's Image has it, its bytes inside or its path."""

    folder: Path
    embed: bool = True
    shard_bytes: int = SHARD_BYTES
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    shards: dict[str, tuple[Any, int]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, split: str, path: Path, record: Mapping[str, Any]) -> None:
        image = {
            "bytes": path.read_bytes() if self.embed else None,
            "path": file_name(record, path) if self.embed else str(path.absolute()),
        }
        rows = self.rows.setdefault(split, [])
        rows.append({"image": image, **record})
        if len(rows) >= ROWS_IN_GROUP:
            self._flush(split)

    def _flush(self, split: str) -> None:
        import pyarrow
        import pyarrow.parquet

        rows = self.rows.pop(split, [])
        if not rows:
            return
        table = pyarrow.Table.from_pylist(rows, schema=_schema(rows[0]))
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


def _schema(row: Mapping[str, Any]) -> Any:
    """Columns by name, so that an empty block has the same types; and the hint that `image` is a picture."""
    import pyarrow

    fields = [("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())]))]
    features: dict[str, dict[str, str]] = {"image": {"_type": "Image"}}
    for name in row:
        if name != "image":
            kind = (
                "int32"
                if name in ("width", "height", "original_frames")
                else "float64"
                if name.startswith("score_")
                else "string"
            )
            fields.append((name, getattr(pyarrow, kind)()))
            features[name] = {"dtype": kind, "_type": "Value"}
    return pyarrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


@dataclass
class Removal:
    """The change that taking pictures out makes to a dataset: files that leave their place, and pictures by side."""

    files: list[Path] = field(default_factory=list)
    pictures: Counter[str] = field(default_factory=Counter)


def write_without(place: Path, to: Path | None, contents: Set[str]) -> Removal:
    """Writes below `to` what the files of a dataset that hold any of the contents are without them; None only looks.

    Raises OSError, or ValueError for a file that is no longer what an export wrote.
    """
    removal = Removal()
    for path in sorted(place.iterdir()):
        target = to / path.name if to else None
        if (shard := SHARD.fullmatch(path.name)) and path.is_file():
            without = _tar_without if shard[2] == "tar" else _parquet_without
            if gone := without(path, target, contents):
                removal.files.append(path)
                removal.pictures[shard[1]] += gone
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
            to.mkdir()
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
