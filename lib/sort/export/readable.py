"""The pictures of a dataset as a reader gets them: what can be read, what not and why, and what is converted.

What goes in has been decoded to its last row, by step 6 or by `look`. What not all loaders open is named or, on wish,
written by `convert` in a format that all of them do, also in another size, as img2dataset resizes: `keep-ratio` makes
the shorter side N, `center-crop` cuts the middle square out of that, `border` makes the longer side N and pads to a
square with white. What is resized stands upright and is in sRGB, without a profile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from lib.db import Context
from lib.db.hashes import known_hashes
from lib.db.scores import ScoreRow
from lib.db.worklist import Worklist
from lib.errors import GleanerError
from lib.files.pictures import sha256_of
from lib.hashing.buffers import ALGORITHM
from lib.hashing.kinds import HashChoice
from lib.images.colours import ColourSpace, in_srgb
from lib.images.decode import OTHER_FORMAT
from lib.images.formats import TRUSTED
from lib.images.frames import opened_frames
from lib.images.ground import flat_on, layered, may_be_clear
from lib.progress import chunked
from lib.sort.export.formats import CONVERTED, Look
from lib.sort.export.options import Encoding, ExportOptions
from lib.sort.export.shards import exif_of
from lib.text import counted
from lib.work.memory import prepare_decoder
from lib.work.stream import stream

BLOCK = 500
OURS = HashChoice()
LOOK = "look"
TOLD = ("left_out", "converted", "unopened")  # counts in the manifest

Records = Iterable[tuple[Path, str, dict[str, Any]]]  # (file, side, record)

# Formats that every build of Pillow opens, and with it the loaders of Hugging Face, WebDataset and torchvision. HEIC
# and JPEG XL need a plug-in there; AVIF and JPEG 2000 are parts that a build may lack.
LOADED = frozenset({"jpeg", "png", "webp", "gif", "bmp", "dib", "tiff", "ppm", "ico", "cur", "tga", "pcx"})
# What each format is written with, and the longest side that it can have: the limits of libjpeg and of libwebp.
SAVED: Mapping[str, tuple[int, Mapping[str, Any]]] = {
    "jpeg": (65_500, {"quality": 95, "subsampling": 0}),
    "png": (2**31 - 1, {}),
    "webp": (16_383, {"quality": 95}),
}
MOST_PIXELS = 64_000_000  # of a resized picture: a strip of a pixel's height would grow without end
DRAFTED = 2  # a JPEG is decoded at no less than so many times its new size: the rest is resampled
CHANGED, MISSING, UNREADABLE = "changed", "missing_file", "unreadable_file"
# Reasons that lie in the moment: another export looks again.
PASSING = frozenset({CHANGED, MISSING, UNREADABLE, "out_of_memory", "worker_killed"})


@dataclass
class Readable:
    """Looks at the pictures of an export, counts them, and gives those that go in."""

    context: Context
    options: ExportOptions
    files: Worklist
    splits: Counter[str] = field(default_factory=Counter)
    formats: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)  # by the reason why they cannot be read
    unopened: Counter[str] = field(default_factory=Counter)  # by format: what loaders may not open
    converted: Counter[str] = field(default_factory=Counter)  # by the format that they had
    first_frames: int = 0
    on_failure: Callable[[str, Mapping[str, Any], str], None] = field(default=lambda *_: None)

    def sound(self, records: Records) -> Iterator[dict[str, Any]]:
        """The records of the pictures that go in where all are wanted."""
        return (record for _, _, record, found in self._looked(records) if not found.reason)

    def counts(self) -> dict[str, int | float | str]:
        found: dict[str, int | float | str] = {}
        if self.left_out:
            found["unreadable"] = self.left_out.total()
            found.update(sorted(self.left_out.items()))
        if self.converted:
            found["converted"] = self.converted.total()
        if self.unopened:
            found["unopened_by_loaders"] = self.unopened.total()
        return found

    def manifest(self) -> dict[str, dict[str, int]]:
        """Sides and `TOLD`, for `recall` to read again."""
        return {"pictures": dict(self.splits)} | {name: dict(getattr(self, name)) for name in TOLD}

    def look(self) -> bool:
        """Finds out what can be read: as step 6 found, and by decoding what it has not; False when stopped halfway."""
        spread, apart = self.options.spread, list[tuple[str, str, bool]]()
        own = spread.executor == "local"  # decoders let go of the interpreter's lock: threads do what processes would
        executor = ("threads" if spread.workers > 1 else "local") if own else spread.executor
        work = partial(look, formats=TRUSTED) if own else look
        with self.context.bar(self.splits.total(), "Looking", "picture") as progress:
            how: dict[str, Any] = {"workers": spread.workers, "init": prepare_decoder}
            rounds = (
                lambda: stream(work, self._unseen(), executor=executor, chunk=8, **how),
                lambda: stream(look, apart, executor="processes", chunk=4, **how) if apart else iter(()),
            )
            for outcomes in rounds:
                for outcome in outcomes():
                    found = outcome.value or Look(outcome.error.split(":")[0])
                    if found.reason == OTHER_FORMAT:
                        apart.append(outcome.item)
                        continue
                    self._keep(LOOK, outcome.item[1], found)
                    progress.update()
                    if self.context.stopping():
                        return False
        return True

    def _unseen(self) -> Iterator[tuple[str, str, bool]]:
        """(path, content, known to be sound) of all but what step 6 found broken."""
        for page in self.files.contents():
            contents = [sha256 for sha256, _ in page]
            broken = known_hashes(self.context.db, contents, "broken", 0, ALGORITHM)
            sound = known_hashes(self.context.db, contents, "phash", OURS.bits, ALGORITHM)  # the name of step 6's own
            for sha256, place in page:
                path, reason = self.context.workspace.to_path(place), broken.get(sha256)
                if reason and path.is_file():
                    self._keep(LOOK, sha256, Look(reason.decode()))
                else:
                    yield str(path), sha256, sha256 in sound

    def _keep(self, kind: str, sha256: str, found: Look) -> None:
        self.files.keep(kind, [(ScoreRow(sha256, None, found.reason, found._asdict()), None)])

    def _kept(self, kind: str, contents: list[str]) -> dict[str, Look]:
        return {sha256: Look(**row.detail) for sha256, (row, _) in self.files.kept(kind, contents).items()}

    def _looked(self, records: Records) -> Iterator[tuple[Path, str, dict[str, Any], Look]]:
        """(file, side, record, how it was found) of every picture; a reason also where it cannot be converted."""
        for part in chunked(records, BLOCK):
            looks = self._kept(LOOK, [record["sha256"] for _, _, record in part])
            for path, split, record in part:
                found = looks[record["sha256"]]
                encoding = self.options.encoding
                if encoding and self._is_for_conversion(found) and is_too_large(encoding, found.width, found.height):
                    found = found._replace(reason="too_large")
                yield path, split, record, found

    def _is_for_conversion(self, found: Look) -> bool:
        encoding = self.options.encoding
        return bool(encoding and not found.reason and (encoding.side or found.format not in LOADED))

    def count(self, records: Records) -> None:
        """Counts sides, formats and what is left out, as they will be. Raises GleanerError where nothing remains."""
        self.splits.clear()
        for _, split, _, found in self._looked(records):
            if found.reason:
                self.left_out[found.reason] += 1
                continue
            self.splits[split] += 1
            if self._is_for_conversion(found):
                self.converted[found.format] += 1
                self.first_frames += found.frames > 1
                assert self.options.encoding
                found = found._replace(format=self.options.encoding.form)
            elif found.format not in LOADED:
                self.unopened[found.format] += 1
            self.formats[found.format] += 1
        if not self.splits.total():
            raise GleanerError(f"none of the pictures can be read ({listed(self.left_out)}); see the page of step 6.")

    def notes(self) -> list[str]:
        """Sentences on what is left out, converted, and in formats that not all loaders open."""
        notes = []
        if self.left_out:
            found = counted(self.left_out.total(), "picture")
            notes.append(f"Left out, since they cannot be read: {found} ({listed(self.left_out)}).")
        if self.converted:
            found = counted(self.converted.total(), "picture")
            frames = f", of {self.first_frames} the first frame alone" if self.first_frames else ""
            notes.append(f"{told_encoding(self.options.encoding)}: {found} ({listed(self.converted)}){frames}.")
        if self.unopened:
            found = counted(self.unopened.total(), "picture")
            notes.append(
                f"In a format that not all loaders open: {found} ({listed(self.unopened)}); --convert jpeg, png or webp"
                " writes them in one that all do."
            )
        return notes

    def recall(self, manifest: Mapping[str, Any]) -> None:
        self.splits = Counter(manifest["pictures"])
        self.left_out, self.converted, self.unopened = (Counter(manifest[name]) for name in TOLD)

    def chosen(self, records: Records, folder: Path) -> Iterator[tuple[Path, str, dict[str, Any]]]:
        """(file, side, record) of what goes into the dataset; what has gone meanwhile is counted."""
        for part in chunked(self._looked(records), BLOCK):
            made = self._kept(CONVERTED, [record["sha256"] for _, _, record, _ in part])
            for path, split, record, found in part:
                if found.reason:
                    self.on_failure(split, record, found.reason)
                    continue
                record |= {"width": found.width, "height": found.height, "format": found.format}
                if encoding := self.options.encoding:
                    record |= {"original_format": "", "original_sha256": "", "original_frames": None}
                    if encoding.side:
                        record |= {"original_width": found.width, "original_height": found.height}
                if done := made.get(sha256 := record["sha256"]):
                    origin = {"format": found.format, "sha256": sha256, "frames": found.frames}
                    record |= {f"original_{name}": value for name, value in origin.items()}
                    record |= {name: getattr(done, name) for name in ("sha256", "width", "height", "format")}
                    path = self._target(folder, sha256)
                    if self.options.form == "webdataset":
                        record["exif"] = done.exif
                if reason := done.reason if done else "" if path.is_file() else MISSING:
                    self.left_out[reason] += 1
                    self.splits[split] -= 1
                    self.converted[found.format] -= bool(done)
                    self.on_failure(split, record, reason)
                    continue
                yield path, split, record

    def chosen_as_planned(self, records: Records) -> Iterator[tuple[Path, str, dict[str, Any]]]:
        """As `chosen`, before anything has been converted: what a conversion will tell stands in the record too."""
        for path, split, record, found in self._looked(records):
            if not found.reason:
                if self.options.encoding:
                    record["original_frames"] = found.frames if self._is_for_conversion(found) else None
                yield path, split, record

    def convert(self, records: Records, folder: Path) -> None:
        """Writes what loaders do not open in the wanted format, below a folder that goes with the building."""
        if not self.converted:
            return
        folder.mkdir()
        assert self.options.encoding
        encoding, spread = self.options.encoding, self.options.spread
        tasks = (
            (str(path), str(self._target(folder, record["sha256"])), encoding)
            for path, _, record, found in self._looked(records)
            if self._is_for_conversion(found)
        )
        executor = "processes" if spread.executor == "local" else spread.executor
        with self.context.bar(self.converted.total(), "Converting", "picture") as progress:
            for outcome in stream(
                convert, tasks, executor=executor, workers=spread.workers, chunk=1, init=prepare_decoder
            ):
                found = outcome.value or Look(outcome.error.split(":")[0])
                self._keep(CONVERTED, Path(outcome.item[1]).stem, found)
                progress.update()
                if self.context.stopping():
                    return

    def _target(self, folder: Path, sha256: str) -> Path:
        form = self.options.encoding.form if self.options.encoding else ""
        return folder / f"{sha256}.{'jpg' if form == 'jpeg' else form}"


def look(task: tuple[str, str, bool], formats: tuple[str, ...] | None = None) -> Look:
    """Decodes every frame of the file at (path, sha256, known to be sound): only the header of what is sound already.

    With `formats` any other is `other_format`. What cannot be read is a value, not an error.
    """
    from lib.images.decode import DecodeError, codec_boundary, read_header

    path, sha256, is_sound = Path(task[0]), task[1], task[2]
    try:
        is_same = sha256_of(path) == sha256
        if is_sound and is_same and (header := read_header(path)).frames == 1:  # step 6 looks at some frames alone
            return Look("", *header.upright_size, header.format, header.frames)
        with opened_frames(path, formats) as frames:
            header, count = frames.header, frames.count
            for number in range(1 if frames.parts else count):  # what lies behind a JPEG is opened by no loader
                with frames.at(number) as frame, codec_boundary():
                    if count == 1 and header.format == "jpeg":  # as many bytes are read for an eighth of the pixels
                        frame.image.draft("L", (max(1, header.width // 8), max(1, header.height // 8)))
                    frame.image.load()
        return Look("" if is_same else CHANGED, *header.upright_size, header.format, 1 if frames.parts else count)
    except DecodeError as error:
        return Look(error.reason)
    except FileNotFoundError:
        return Look(MISSING)
    except OSError:
        return Look(UNREADABLE)


def is_too_large(encoding: Encoding, width: int, height: int) -> bool:
    """True where a picture of that size cannot be written so."""
    if encoding.side:
        width, height = target_size(encoding, width, height)
        if width * height > MOST_PIXELS:
            return True
    return max(width, height) > SAVED[encoding.form][0]


def target_size(encoding: Encoding, width: int, height: int) -> tuple[int, int]:
    """The size that a picture gets, in pixels; its own where no side is asked for, or it is small enough already."""
    side = encoding.side
    measured = max(width, height) if encoding.mode == "border" else min(width, height)
    if not side or (encoding.only_if_bigger and measured <= side):
        return width, height
    if encoding.mode in ("center-crop", "border"):
        return side, side
    return max(1, round(width * side / measured)), max(1, round(height * side / measured))


def convert(task: tuple[str, str, Encoding]) -> Look:
    """Writes the first frame of (path, to, encoding) upright, with its transparency where the format has any.

    On a ground where it has none. Without a new size the picture keeps its profile. Raises nothing for a picture that
    cannot be read or written so.
    """
    from lib.images.decode import DecodeError, codec_boundary, upright

    path, target, encoding = Path(task[0]), Path(task[1]), task[2]
    how = dict(SAVED[encoding.form][1])
    if encoding.quality is not None:
        how["compress_level" if encoding.form == "png" else "quality"] = encoding.quality
    try:
        with opened_frames(path) as frames:
            if is_too_large(encoding, frames.header.width, frames.header.height):
                return Look("too_large")
            count = 1 if frames.parts else frames.count
            with frames.at(0) as frame, codec_boundary():
                if encoding.side and frames.header.format == "jpeg":
                    _draft(frame.image, encoding)
                frame.image.load()
                made, profile = _as_saved(frame.image, frame.colours, encoding.form, as_srgb=bool(encoding.side))
                made = upright(made, frame.orientation)
                made.info.clear()  # what it says of turns and colours has been carried out
                if encoding.side:
                    whole = frames.header.upright_size
                    made = resized(made, encoding, *whole)
                more = {"icc_profile": profile} if profile else {}
                made.save(target, encoding.form, **how, **more)
        return Look("", *made.size, encoding.form, count, sha256_of(target), exif_of(path))
    except DecodeError as error:
        return Look(error.reason)


def _draft(image: Image.Image, encoding: Encoding) -> None:
    """Lets a JPEG be decoded smaller where it will be much smaller: a part of the work, and of the memory."""
    assert encoding.side
    measured = max(image.size) if encoding.mode == "border" else min(image.size)
    factor = DRAFTED * encoding.side / measured
    if factor < 1:
        image.draft(image.mode, (int(image.width * factor) + 1, int(image.height * factor) + 1))


def resized(image: Image.Image, encoding: Encoding, width: int, height: int) -> Image.Image:
    """The picture at its new size; `width` and `height` are those of the whole one, which may have been drafted."""
    size = target_size(encoding, width, height)
    if size == (width, height) and image.size == size:
        return image
    if encoding.mode == "center-crop" and size != (width, height):
        edge = min(image.size)
        left, top = (image.width - edge) / 2, (image.height - edge) / 2
        return _resample(image, size, (left, top, left + edge, top + edge))
    if encoding.mode == "border" and size != (width, height):
        assert encoding.side
        measured = max(width, height)
        inner = max(1, round(width * encoding.side / measured)), max(1, round(height * encoding.side / measured))
        ground = Image.new(image.mode, size, "white")
        ground.paste(_resample(image, inner), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        return ground
    return _resample(image, size)


def _resample(
    image: Image.Image, size: tuple[int, int], box: tuple[float, float, float, float] | None = None
) -> Image.Image:
    return image.resize(size, Image.Resampling.LANCZOS, box)


def _as_saved(image: Image.Image, space: ColourSpace, form: str, *, as_srgb: bool = False) -> tuple[Image.Image, bytes]:
    """A loaded picture in a mode that the format has, and the profile of its numbers; without one they are sRGB's.

    `as_srgb` gives no profile, and 8 bits.
    """
    from lib.images.decode import flattened

    profile = image.info.get("icc_profile") or b""
    channels = profile[16:20]
    clear = layered(image) if may_be_clear(image) else None
    if image.mode.startswith("I;16") and form == "png" and clear is None and not as_srgb:
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
    if as_srgb or channels != {"L": b"GRAY", "RGB": b"RGB "}[plain.mode]:
        plain, profile = in_srgb(plain, space), b""
    if clear is None:
        return plain, profile
    plain.putalpha(clear.getchannel("A"))
    return (flat_on(plain, None) if form == "jpeg" else plain), profile


def told_encoding(encoding: Encoding | None) -> str:
    """Says in which way pictures were written anew."""
    if encoding is None or not encoding.side:
        return f"Converted to {encoding.form if encoding else ''}"
    quality = "" if encoding.quality is None else f", quality {encoding.quality}"
    bigger = ", larger ones alone" if encoding.only_if_bigger else ""
    return f"Resized to {encoding.side} pixels ({encoding.mode}{bigger}) and written as {encoding.form}{quality}"


def listed(counts: Mapping[str, int]) -> str:
    """Counts in words, such as `2 truncated, 1 missing_file`."""
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()) if count)
