"""Numbered tar shards as img2dataset writes them, each with a table of statuses and its statistics beside it.

`00000.tar` holds `<key>.<ext>`, `<key>.txt` with the caption and `<key>.json` with all columns; `00000.parquet` has a
row for every picture that was asked for, also for those that could not be had, and `00000_stats.json` counts them. A
key is the shard's number and the picture's place in it. The names of columns, their types and the words for a status
are img2dataset's, so that what reads its output reads this.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.sort.export.columns import arrow_kind, own_kind

NUMBERED = re.compile(r"\d{5}\.tar")
MOST_ROWS = 10_000  # of a shard: its key has four digits for them, as img2dataset's has by default
ROWS_AT_ONCE = 1_000  # of the table, in memory
SUCCESS, NO_DOWNLOAD, NO_PICTURE = "success", "failed_to_download", "failed_to_resize"
_POINTERS = frozenset({"GPSInfo", "ExifOffset", "InteropOffset", "MakerNote"})  # where other tags stand
# Reasons that say nothing of the picture: its file is not there any more, or is another one.
_NOT_HAD = frozenset({"missing_file", "unreadable_file", "changed"})


@dataclass
class Shard:
    """A shard that is being written: its files, and what has been counted of it."""

    place: Path  # of the tar
    number: int
    tar: tarfile.TarFile
    started: float
    size: int = 0
    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    told: Counter[str] = field(default_factory=Counter)
    waiting: list[dict[str, Any]] = field(default_factory=list)
    table: Any = None


@dataclass
class TarShards:
    """Writes `00000.tar` and so on, below a folder for each side where there are several (`sides`).

    Loaders want the same extensions for every key, so that all pictures get the one of the most common format; they
    tell formats by the bytes, and the record says which it is. Every picture has a `.txt`, an empty one where it has no
    caption. `kinds` are the types of columns that lists brought, by their names here.
    """

    folder: Path
    extension: str
    shard_bytes: int
    kinds: Mapping[str, str] = field(default_factory=dict)
    sides: bool = True
    shards: dict[str, Shard] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)

    def add(self, split: str, path: Path, record: Mapping[str, Any]) -> str:
        content = path.read_bytes()
        shard = self._shard(split, len(content))
        key = _key(shard)
        row = _row(record, key, SUCCESS, None, record.get("exif") or exif_of(content))
        text = json.dumps(row, ensure_ascii=False, indent=4).encode()
        for suffix, part in (
            (self.extension, content),
            ("txt", (row["caption"] or "").encode("utf-8", "replace")),
            ("json", text),
        ):
            entry = tarfile.TarInfo(f"{key}.{suffix}")
            entry.size, entry.mtime, entry.mode = len(part), 0, 0o644
            shard.tar.addfile(entry, io.BytesIO(part))
        shard.size += len(content) + len(text)
        self._note(shard, row)
        return f"{split}/{key}.{self.extension}" if self.sides else f"{key}.{self.extension}"

    def fail(self, split: str, record: Mapping[str, Any], reason: str, *, downloaded: bool = True) -> None:
        """Notes a picture that was asked for and is not there; `downloaded` is False where step 5 did not get it."""
        shard = self._shard(split, 0)
        status = NO_DOWNLOAD if not downloaded or reason in _NOT_HAD else NO_PICTURE
        unknown = dict.fromkeys(("width", "height", "original_width", "original_height"))
        self._note(shard, _row({**record, **unknown}, _key(shard), status, reason, None))

    def _note(self, shard: Shard, row: dict[str, Any]) -> None:
        shard.rows += 1
        shard.counts[row["status"]] += 1
        shard.told[row["error_message"] or SUCCESS] += 1
        shard.waiting.append(row)
        if len(shard.waiting) >= ROWS_AT_ONCE:
            self._write_rows(shard)

    def _write_rows(self, shard: Shard) -> None:
        import pyarrow
        import pyarrow.parquet

        if shard.waiting:
            if shard.table is None:
                kinds = {name: self.kinds.get(name) or own_kind(name) for name in shard.waiting[0]}
                schema = pyarrow.schema([(name, arrow_kind(kind)) for name, kind in kinds.items()])
                shard.table = pyarrow.parquet.ParquetWriter(shard.place.with_suffix(".parquet"), schema)
            shard.table.write_table(pyarrow.Table.from_pylist(shard.waiting, schema=shard.table.schema))
            shard.waiting = []

    def _shard(self, split: str, coming: int) -> Shard:
        shard = self.shards.get(split)
        is_full = shard is not None and (
            shard.rows >= MOST_ROWS or (shard.size > 0 and shard.size + coming > self.shard_bytes)
        )
        if shard is not None and not is_full:
            return shard
        if shard is not None:
            self._finish(shard)
        number = self.numbers[split] = self.numbers.get(split, -1) + 1
        folder = self.folder / split if self.sides else self.folder
        folder.mkdir(exist_ok=True)
        place = folder / f"{number:05}.tar"
        tar = tarfile.open(place, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115  (closed with its shard)
        made = Shard(place, number, tar, time.time())
        self.shards[split] = made
        return made

    def _finish(self, shard: Shard) -> None:
        shard.tar.close()
        self._write_rows(shard)
        if shard.table is not None:
            shard.table.close()
        ended = time.time()
        times = {"duration": ended - shard.started, "start_time": shard.started, "end_time": ended}
        _write_statistics(_beside(shard.place), shard.counts, shard.told, times)

    def close(self) -> None:
        for shard in self.shards.values():
            self._finish(shard)
        self.shards = {}


def _beside(place: Path) -> Path:
    return place.with_name(f"{place.stem}_stats.json")


def _write_statistics(path: Path, counts: Counter[str], told: Mapping[str, int], times: Mapping[str, float]) -> None:
    statistics = {
        "count": counts.total(),
        "successes": counts[SUCCESS],
        NO_DOWNLOAD: counts[NO_DOWNLOAD],
        NO_PICTURE: counts[NO_PICTURE],
        **times,
        "status_dict": dict(told),
    }
    path.write_text(json.dumps(statistics, indent=4), encoding="utf-8", newline="")


def _key(shard: Shard) -> str:
    return f"{shard.number:05}{shard.rows:04}"


def _row(record: Mapping[str, Any], key: str, status: str, error: str | None, exif: str | None) -> dict[str, Any]:
    """Returns the row of a picture, the same columns for every picture of a dataset."""
    own = {
        "caption": record.get("caption") or None,
        "url": record["image_url"] or None,
        "key": key,
        "status": status,
        "error_message": error,
        "width": record["width"],
        "height": record["height"],
        "original_width": record.get("original_width") or record["width"],
        "original_height": record.get("original_height") or record["height"],
        "exif": exif,
        "sha256": record["sha256"] or None,
    }
    return own | {name: value for name, value in record.items() if name not in own}


def exif_of(picture: Path | bytes) -> str:
    """Returns the EXIF tags of a picture as JSON, by the names that img2dataset gives them; `{}` where it has none.

    Where a picture was taken is nobody's business: the tags of GPS are not among them.
    """
    from PIL import ExifTags, Image

    from lib.images.decode import DecodeError, codec_boundary

    found: dict[str, str] = {}
    try:
        with codec_boundary(), Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture)) as image:
            exif = image.getexif()
            for part, tags in (("Image", exif), ("EXIF", exif.get_ifd(ExifTags.IFD.Exif))):
                for tag, value in tags.items():
                    name = ExifTags.TAGS.get(tag, "GPSInfo")
                    if (
                        name not in _POINTERS
                        and not isinstance(value, (bytes, dict))
                        and len(text := str(value)) <= 500
                    ):
                        found[f"{part} {name}"] = text.strip("\0 ")
    except (DecodeError, OSError):  # metadata that cannot be read is none
        pass
    return json.dumps(found)


def shards_below(place: Path, sides: Sequence[str]) -> list[tuple[str, Path]]:
    """Returns (side, tar) of every numbered shard of a dataset; those beside its card are of its only side."""
    found = [(sides[0] if sides else "train", path) for path in place.glob("*.tar") if NUMBERED.fullmatch(path.name)]
    for side in ("train", "val", "test"):
        found += [(side, path) for path in (place / side).glob("*.tar") if NUMBERED.fullmatch(path.name)]
    return sorted(found)


def shard_without(path: Path, target: Path | None, contents: Set[str]) -> tuple[list[Path], list[str]]:
    """Returns the files that a shard without the contents replaces, and the keys of pictures that it loses.

    The new ones are written below the target's folder; of a shard that keeps no row none is. Raises ValueError for what
    is no shard, and OSError.
    """
    import pyarrow
    import pyarrow.parquet

    table_path = path.with_suffix(".parquet")
    table = pyarrow.parquet.read_table(table_path)
    rows = table.select([name for name in ("key", "status", "sha256", "original_sha256") if name in table.column_names])
    listed = rows.to_pylist()
    keeps = [((row.get("original_sha256") or row["sha256"]) or "") not in contents for row in listed]
    if all(keeps):
        return [], []
    lost = {row["key"] for row, stays in zip(listed, keeps, strict=True) if not stays}
    pictures = sorted(row["key"] for row in listed if row["key"] in lost and row["status"] == SUCCESS)
    statistics_path = _beside(path)
    older = [one for one in (path, table_path, statistics_path) if one.is_file()]
    if target and any(keeps):
        target.parent.mkdir(parents=True, exist_ok=True)
        _tar_without(path, target, lost)
        kept = table.filter(pyarrow.array(keeps))
        pyarrow.parquet.write_table(kept, target.with_suffix(".parquet"))
        told = [row.get("error_message") for row in kept.select(["error_message"]).to_pylist()]
        before = json.loads(statistics_path.read_text(encoding="utf-8")) if statistics_path.is_file() else {}
        times = {name: before[name] for name in ("duration", "start_time", "end_time") if name in before}
        counts = Counter(kept.column("status").to_pylist())
        _write_statistics(_beside(target), counts, Counter(error or SUCCESS for error in told), times)
    return older, pictures


def _tar_without(path: Path, target: Path, keys: Set[str]) -> None:
    try:
        with tarfile.open(path) as shard, tarfile.open(target, "w", format=tarfile.GNU_FORMAT) as made:
            for entry in shard:
                if entry.name.partition(".")[0] not in keys:
                    made.addfile(entry, shard.extractfile(entry))
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no tar file ({error})") from error
