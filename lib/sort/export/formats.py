"""The forms of a dataset, and the flat record of a picture: its columns are the same for every picture of a dataset.

A writer takes pictures one by one, each with its record. What goes in has been decoded to its last row, by step 6 or by
`look`; what loaders do not open, `convert` writes in a format that all of them do.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from PIL import Image

from lib.db import Database
from lib.db import scores as store
from lib.files.pictures import SUFFIXES, sha256_of
from lib.images.colours import ColourSpace, in_srgb
from lib.images.frames import opened_frames
from lib.images.ground import flat_on, layered, may_be_clear
from lib.workspace import Workspace

ORIGIN = (
    "query", "engine", "image_url", "page_url", "title", "license", "license_url", "creator", "attribution",
)  # fmt: skip

SHARD_BYTES = 500_000_000  # half a gigabyte a shard, as Hugging Face cuts its own
ROWS_IN_GROUP = 100  # of Parquet: pictures are large, and a reader takes a row group at once

# Formats that every build of Pillow opens, and with it the loaders of Hugging Face, WebDataset and torchvision. HEIC and
# JPEG XL need a plug-in there; AVIF and JPEG 2000 are parts that a build may lack.
LOADED = frozenset({"jpeg", "png", "webp", "gif", "bmp", "dib", "tiff", "ppm", "ico", "cur", "tga", "pcx"})
# What each format is written with, and the longest side that it can have: the limits of libjpeg and of libwebp.
SAVED: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "jpeg": (65_500, {"quality": 95, "subsampling": 0}),
    "png": (2**31 - 1, {}),
    "webp": (16_383, {"quality": 95}),
}
CONVERTED = ".converted"  # a folder below the one that is built, gone before that is a dataset
CHANGED, MISSING, UNREADABLE = "changed", "missing_file", "unreadable_file"
# Reasons that lie in the moment: another export looks again.
PASSING = frozenset({CHANGED, MISSING, UNREADABLE, "out_of_memory", "worker_killed"})


class Look(NamedTuple):
    """One picture as it was found: `reason` says why it cannot be read, '' where it can.

    `width` and `height` are upright. `sha256` is that of the file that was written, of what was converted.
    """

    reason: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    frames: int = 1
    sha256: str = ""


def records(
    db: Database, workspace: Workspace, page: Sequence[tuple[str, str]], criteria: Sequence[str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, record) of (sha256, path as the workspace writes it); what is not there or has no header has no `width`.

    `label_<criterion>` and `score_<criterion>` are there for all criteria, empty where one does not know the picture.
    """
    contents = [sha256 for sha256, _ in page]
    labels = {criterion: store.known_labels(db, criterion, contents) for criterion in criteria}
    sizes, origins = store.known_sizes(db, contents), store.provenance(db, contents)
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
        yield path, record | {name: origin.get(name, "") for name in ORIGIN}


def file_name(record: Mapping[str, Any], path: Path) -> str:
    """The file's name in a dataset: by its content, so that it is the same in every export and clashes with none."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:  # such as `.jpg_large` and `.bin`, which no reader takes for a picture's
        suffix = f".{record['format']}"
    return f"{(record.get('original_sha256') or record['sha256'])[:24]}{suffix}"


def look(task: tuple[str, str, bool], formats: tuple[str, ...] | None = None) -> Look:
    """Decodes every frame of the file at (path, sha256, known to be sound): only the header of what is sound already.

    With `formats` any other is `other_format`. What cannot be read is a value, not an error.
    """
    from lib.images.decode import DecodeError, codec_boundary, read_header

    path, sha256, is_sound = Path(task[0]), task[1], task[2]
    try:
        is_same = sha256_of(path) == sha256
        if is_sound and is_same:
            header = read_header(path)
            return Look("", *header.upright_size, header.format, header.frames)
        with opened_frames(path, formats) as frames:
            header, count = frames.header, frames.count
            for number in range(1 if frames.parts else count):  # what lies behind a JPEG is opened by no loader
                with frames.at(number) as frame, codec_boundary():
                    if count == 1 and header.format == "jpeg":  # as many bytes are read for an eighth of the pixels
                        frame.image.draft("L", (header.width // 8, header.height // 8))
                    frame.image.load()
        return Look("" if is_same else CHANGED, *header.upright_size, header.format, 1 if frames.parts else count)
    except DecodeError as error:
        return Look(error.reason)
    except FileNotFoundError:
        return Look(MISSING)
    except OSError:
        return Look(UNREADABLE)


def convert(task: tuple[str, str, str]) -> Look:
    """Writes the first frame of (path, to, format) upright, in its own size, with its profile and its transparency.

    On a ground where the format has no transparency. Raises nothing for a picture that cannot be read or written so.
    """
    from lib.images.decode import DecodeError, codec_boundary, upright

    path, target, form = Path(task[0]), Path(task[1]), task[2]
    longest, how = SAVED[form]
    try:
        with opened_frames(path) as frames:
            if max(frames.header.width, frames.header.height) > longest:
                return Look("too_large")
            count = 1 if frames.parts else frames.count
            with frames.at(0) as frame, codec_boundary():
                frame.image.load()
                made, profile = _as_saved(frame.image, frame.colours, form)
                made = upright(made, frame.orientation)
                made.info.clear()  # what it says of turns and colours has been carried out
                more = {"icc_profile": profile} if profile else {}
                made.save(target, form, **how, **more)
        return Look("", *made.size, form, count, sha256_of(target))
    except DecodeError as error:
        return Look(error.reason)


def _as_saved(image: Image.Image, space: ColourSpace, form: str) -> tuple[Image.Image, bytes]:
    """A loaded picture in a mode that the format has, and the profile of its numbers; without one they are sRGB's."""
    from lib.images.decode import flattened

    profile = image.info.get("icc_profile") or b""
    channels = profile[16:20]
    clear = layered(image) if may_be_clear(image) else None
    if image.mode.startswith("I;16") and form == "png" and clear is None:
        return image, profile if channels == b"GRAY" else b""
    if clear is not None:
        plain = clear.convert("RGB")
    elif image.mode == "CMYK":
        plain, channels = in_srgb(image, space).convert("RGB"), b""
        space = ColourSpace()
    else:
        is_grey = image.mode == "L" and form != "webp"
        plain = image if is_grey else flattened(image, None)
        if image.mode == "L" and not is_grey and channels == b"GRAY":  # numbers of greys, which WebP does not have
            plain, space = in_srgb(image, space).convert("RGB"), ColourSpace()
    if channels != {"L": b"GRAY", "RGB": b"RGB "}[plain.mode]:
        plain, profile = in_srgb(plain, space), b""
    if clear is None:
        return plain, profile
    plain.putalpha(clear.getchannel("A"))
    return (flat_on(plain, None) if form == "jpeg" else plain), profile


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


def _put(source: Path, target: Path, mode: str) -> None:
    if target.exists():
        return  # two contents never share a name; the same one again is the same file
    if source.parent.name == CONVERTED:
        os.replace(source, target)
    elif mode == "hardlink":
        os.link(source.resolve(), target)
    elif mode == "symlink":
        os.symlink(source.resolve(), target)
    else:
        shutil.copyfile(source, target)
