"""Hashes and what pictures are compared by: against SciPy, against brute force, and against alterations."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from PIL import Image, ImageEnhance, ImageFilter
from support import drawing

from lib.dedup.compare import compare
from lib.dedup.fingerprints import fingerprint
from lib.dedup.near import plain_cells
from lib.hashing import dct
from lib.hashing.buffers import Buffers
from lib.hashing.hamming import COLUMNS, GATHER_FROM, cross_join, distance, gathered, self_join, to_words
from lib.hashing.kinds import HashChoice, pixel_digest

# A photograph that comes with a core requirement; the package itself takes a second to import and is not needed.
PHOTOGRAPH = Path(str(find_spec("sklearn").submodule_search_locations[0])) / "datasets" / "images" / "china.jpg"


def blocks(count: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 64, 64), dtype=np.uint8)


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


def read_buffers(path: Path) -> bytes:
    return fingerprint(str(path)).packed


def collapse(hashes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct hashes, and the index of each row among them: equal hashes share a cell."""
    cells = plain_cells({str(number): row.tobytes() for number, row in enumerate(hashes)}, 0, 1)
    found = [cells.cell(str(number))[1] for number in range(len(hashes))]
    distinct = sorted(set(found))
    rows = np.frombuffer(b"".join(distinct), np.uint8).reshape(len(distinct), -1)
    return rows, np.array([distinct.index(value) for value in found])


def buffers_of(path: Path) -> Buffers:
    return Buffers.from_bytes(read_buffers(path))


def hash_of(path: Path) -> bytes:
    return dct.hash_greys(buffers_of(path).greys[:1])[0].tobytes()


def test_bits_equal_those_of_scipy_on_random_blocks():
    greys = blocks(500)
    exact = scipy.fft.dctn(greys.astype(np.float64), type=2, axes=(1, 2))[:, :16, :16].reshape(500, -1)
    expected = np.packbits(exact > np.median(exact, axis=1, keepdims=True), axis=1)
    assert np.array_equal(dct.hash_greys(greys), expected)


def test_half_of_the_bits_are_set():
    assert (np.bitwise_count(dct.hash_greys(blocks(50))).sum(axis=1) == 128).all()


@pytest.mark.parametrize(
    ("name", "grey", "expected"),
    [
        (
            "waves",
            np.add.outer(np.sin(np.arange(64) / 5) * 60, np.cos(np.arange(64) / 9) * 60) + 128,
            "b555e04cfbcef880a0ca0ad63aa5682f5fda06d26bcc7a7d198e2965557a0927",
        ),
        (
            "mosaic",
            (np.mgrid[:64, :64][0] * 37 + np.mgrid[:64, :64][1] ** 2 * 11 + np.prod(np.mgrid[:64, :64], axis=0) * 5)
            % 256,
            "e92529244d2db87b9b4b6b6de7966cbae7929271cb4c349204da0f6295352e59",
        ),
    ],
)
def test_hashes_stay_what_they_were(name: str, grey: np.ndarray, expected: str):
    """A changed hash makes every cached one worthless: whoever changes it must change the algorithm's version, too."""
    assert dct.hash_greys(grey.astype(np.uint8)[None])[0].tobytes().hex() == expected


def test_flat_pictures_are_told_from_faint_ones():
    faint = np.tile(np.linspace(100, 120, 64), (64, 1))
    greys = np.stack([np.full((64, 64), 7), np.full((64, 64), 255), faint]).astype(np.uint8)
    assert dct.flat_pictures(greys).tolist() == [True, True, False]


def test_no_pictures_have_no_hashes():
    assert dct.hash_greys(np.empty((0, 64, 64), np.uint8)).shape == (0, 32)


ALTERATIONS = {
    "jpeg 75": lambda p: (p, {"format": "JPEG", "quality": 75}),
    "jpeg 30": lambda p: (p, {"format": "JPEG", "quality": 30}),
    "webp 60": lambda p: (p, {"format": "WEBP", "quality": 60}),
    "half size": lambda p: (p.resize((p.width // 2, p.height // 2)), {"format": "JPEG", "quality": 85}),
    "quarter size": lambda p: (p.resize((p.width // 4, p.height // 4)), {"format": "JPEG", "quality": 85}),
    "double size": lambda p: (p.resize((p.width * 2, p.height * 2)), {"format": "JPEG", "quality": 30}),
    "darker": lambda p: (ImageEnhance.Brightness(p).enhance(0.7), {"format": "JPEG", "quality": 90}),
    "more contrast": lambda p: (ImageEnhance.Contrast(p).enhance(1.3), {"format": "JPEG", "quality": 90}),
    "grey": lambda p: (p.convert("L"), {"format": "JPEG", "quality": 90}),
    "paler": lambda p: (ImageEnhance.Color(p).enhance(0.5), {"format": "JPEG", "quality": 90}),
    "blurred": lambda p: (p.filter(ImageFilter.GaussianBlur(1.2)), {"format": "JPEG", "quality": 90}),
    "palette": lambda p: (p.quantize(256), {"format": "PNG"}),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_a_harmless_alteration_stays_the_same_picture(name: str, tmp_path: Path):
    for seed in range(2):
        one = saved(drawing(seed, 480, 360), tmp_path / f"{seed}.png")
        picture, options = ALTERATIONS[name](drawing(seed, 480, 360))
        other = saved(picture, tmp_path / f"{seed}.altered", **options)
        assert distance(hash_of(one), hash_of(other)) <= HashChoice().same_bits
        finding = compare(buffers_of(one), buffers_of(other))
        assert finding.same, finding


def captioned(picture: Image.Image) -> Image.Image:
    picture.paste((255, 255, 255), (0, picture.height * 88 // 100, picture.width, picture.height))
    return picture


def stamped(picture: Image.Image) -> Image.Image:
    side = picture.height // 8
    picture.paste((230, 20, 20), (picture.width - side - 9, 9, picture.width - 9, 9 + side))
    return picture


def turned_hue(picture: Image.Image) -> Image.Image:
    hue, saturation, value = picture.convert("HSV").split()
    return Image.merge("HSV", (hue.point([(v + 80) % 256 for v in range(256)]), saturation, value)).convert("RGB")


EDITS = {
    "caption": (captioned, "c"),
    "stamp": (stamped, "changed in one place"),
    "hue": (turned_hue, ""),
    "stretched": (lambda p: p.resize((p.width, p.width)), "other proportions"),
    "crop": (lambda p: p.crop((30, 20, p.width - 30, p.height - 20)), "c"),
    "another picture": (lambda p: drawing(99, *p.size), "c"),
    "negative": (lambda p: p.point(lambda v: 255 - v), "c"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_not_the_same_picture(name: str, tmp_path: Path):
    alter, reason = EDITS[name]
    one = saved(drawing(5, 480, 360), tmp_path / "one.png")
    other = saved(alter(drawing(5, 480, 360)), tmp_path / "other.png")
    finding = compare(buffers_of(one), buffers_of(other))
    assert not finding.same and finding.reason.startswith(reason), finding


@pytest.mark.parametrize(
    ("count", "radius", "width"), [(0, 5, 4), (1, 5, 4), (17, 128, 4), (700, 110, 4), (COLUMNS + 40, 20, 1)]
)
def test_the_join_equals_brute_force(count: int, radius: int, width: int):
    words = np.random.default_rng(3).integers(0, 2**63, (count, width), dtype=np.uint64)
    expected = set()
    for row in range(count):
        apart = np.bitwise_count(words[row + 1 :] ^ words[row]).sum(axis=1)
        expected |= {(row, row + 1 + int(k), int(apart[k])) for k in np.nonzero(apart <= radius)[0]}
    found = [triple for block in self_join(words, radius) for triple in zip(*(b.tolist() for b in block), strict=True)]
    assert len(found) == len(set(found)), "a pair came twice"
    assert set(found) == expected
    assert count < 17 or expected, "the case compares nothing"


def brute_force(rows: np.ndarray, others: np.ndarray, radius: int) -> set[tuple[int, int, int]]:
    apart = np.stack([np.bitwise_count(others ^ row).sum(axis=1) for row in rows])
    return {(int(i), int(j), int(apart[i, j])) for i, j in zip(*np.nonzero(apart <= radius), strict=True)}


def copies(families: int, each: int, width: int, bits: int) -> np.ndarray:
    """Hashes in families: every member differs from the first in at most `bits` bits."""
    luck = np.random.default_rng(7)
    heads = luck.integers(0, 2**63, (families, width), dtype=np.uint64)
    made = np.repeat(heads, each, axis=0)
    for row in made:
        for place in luck.integers(0, 64 * width, luck.integers(0, bits + 1)).tolist():
            row[place // 64] ^= np.uint64(1 << (place % 64))
    return luck.permutation(made)


@pytest.mark.parametrize(
    ("families", "each", "width", "bits", "radius"),
    [
        (40, 12, 4, 40, 64),
        (40, 12, 4, 90, 64),
        (480, 1, 4, 40, 64),
        (3, 90, 1, 9, 8),
        (20, 20, 16, 60, 128),
        (1, 300, 4, 1, 0),
    ],
)
def test_copies_that_lie_together_are_met_like_any_others(families: int, each: int, width: int, bits: int, radius: int):
    others = copies(families, each, width, bits)
    rows = np.concatenate([copies(families, each, width, radius), others, others[:5] ^ np.uint64(2**64 - 1)] * 2)
    assert len(rows) >= GATHER_FROM * len(others), "the copies are not gathered"
    blocks = [tuple(part.tolist() for part in block) for block in cross_join(rows, others, radius)]
    found = [pair for block in blocks for pair in zip(*block, strict=True)]
    assert len(found) == len(set(found)), "a pair came twice"
    assert set(found) == brute_force(rows, others, radius) and found


def test_a_head_stands_for_all_its_copies():
    heads = gathered(np.ascontiguousarray(copies(10, 30, 4, 20).T))
    assert heads is not None and len(heads.heads) == 10 and sorted(heads.members.tolist()) == list(range(300))
    assert gathered(np.ascontiguousarray(copies(300, 1, 4, 20).T)) is None, "strangers have nothing to gather round"


def test_equal_hashes_become_one():
    hashes = np.random.default_rng(4).integers(0, 256, (5, 32), dtype=np.uint8)
    rows = hashes[[0, 1, 0, 2, 0, 1]]
    distinct, where = collapse(rows)
    assert len(distinct) == 3
    assert np.array_equal(distinct[where], rows)


def test_distance_counts_bits():
    one, other = np.random.default_rng(5).integers(0, 256, (2, 32), dtype=np.uint8)
    assert distance(one.tobytes(), other.tobytes()) == int(np.unpackbits(one ^ other).sum())
    assert int(np.bitwise_count(to_words(one[None]) ^ to_words(other[None])).sum()) == distance(
        one.tobytes(), other.tobytes()
    )


def test_buffers_survive_packing(tmp_path: Path):
    packed = read_buffers(saved(drawing(1, 300, 200), tmp_path / "a.png"))
    buffers = Buffers.from_bytes(packed)
    assert buffers.to_bytes() == packed
    assert (buffers.width, buffers.height, buffers.greys.shape) == (300, 200, (1, 64, 64))


@pytest.mark.parametrize(
    ("orientation", "turn"),
    [(3, Image.Transpose.ROTATE_180), (6, Image.Transpose.ROTATE_90), (8, Image.Transpose.ROTATE_270)],
)
def test_exif_orientation_makes_no_difference(orientation: int, turn: Image.Transpose, tmp_path: Path):
    upright = saved(drawing(2), tmp_path / "upright.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = saved(drawing(2).transpose(turn), tmp_path / "lying.jpg", quality=95, exif=exif.tobytes())
    assert distance(hash_of(upright), hash_of(lying)) <= 4
    assert compare(buffers_of(upright), buffers_of(lying)).same


def test_what_hides_behind_white_is_seen(tmp_path: Path):
    """White shapes on a transparent ground look like nothing on white; they are still another picture."""
    plain = drawing(3).convert("RGBA")
    hidden = plain.copy()
    clear = Image.new("RGBA", (160, 240), (255, 255, 255, 0))
    for picture in (plain, hidden):
        picture.paste(clear, (0, 0))
    hidden.paste((255, 255, 255, 255), (20, 40, 120, 180))
    one, other = saved(plain, tmp_path / "a.png"), saved(hidden, tmp_path / "b.png")
    assert buffers_of(one).greys.shape == (2, 64, 64)
    assert np.array_equal(buffers_of(one).greys[0], buffers_of(other).greys[0])
    assert not compare(buffers_of(one), buffers_of(other)).same


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path):
    one = saved(drawing(3), tmp_path / "a.png")
    other = saved(drawing(3).convert("RGBA"), tmp_path / "b.png")
    assert read_buffers(one) == read_buffers(other)


def test_a_palette_has_a_ground_only_where_one_of_its_colours_is_clear(tmp_path: Path):
    plain = drawing(3).quantize(64)
    shown = saved(plain, tmp_path / "a.png")
    clear = saved(plain, tmp_path / "b.png", transparency=int(np.asarray(plain)[0, 0]))
    assert [len(buffers_of(path).greys) for path in (shown, clear)] == [1, 2]


def test_a_grey_picture_has_the_grey_of_its_coloured_twin(tmp_path: Path):
    for ending in ("png", "jpg"):
        grey = saved(drawing(3).convert("L"), tmp_path / f"a.{ending}")
        coloured = saved(drawing(3).convert("L").convert("RGB"), tmp_path / f"b.{ending}")
        one, other = buffers_of(grey), buffers_of(coloured)
        assert np.abs(one.greys.astype(int) - other.greys).max() <= 2
        assert (one.chroma == 128).all() and np.abs(other.chroma.astype(int) - 128).max() <= 1


def test_animations_are_told_apart_by_a_later_frame(tmp_path: Path):
    def animated(name: str, *seeds: int) -> Path:
        frames = [drawing(seed) for seed in seeds]
        return saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:], duration=80)

    one, other, still = animated("a.gif", 1, 2, 3), animated("b.gif", 1, 4, 5), saved(drawing(1), tmp_path / "c.gif")
    assert not compare(buffers_of(one), buffers_of(other)).same
    assert compare(buffers_of(one), buffers_of(still)).reason == "3 and 1 frames or pages"


def indexed(palette: list[int]) -> Image.Image:
    picture = Image.frombytes("P", (40, 30), bytes(range(40)) * 30)
    picture.putpalette(palette)
    return picture


GREYS = [v for level in range(256) for v in (level, level, level)]
PIXELS = {
    "another palette": (indexed(GREYS), indexed(GREYS[::-1]), False),
    "another shape": (Image.new("RGB", (300, 200), "red"), Image.new("RGB", (200, 300), "red"), False),
    "another mode": (Image.new("L", (30, 30), 9), Image.new("RGB", (30, 30), (9, 9, 9)), False),
    "another alpha": (Image.new("RGBA", (9, 9), (1, 2, 3, 0)), Image.new("RGBA", (9, 9), (1, 2, 3, 255)), False),
    "one grey level": (Image.new("L", (30, 30), 9), Image.new("L", (30, 30), 10), False),
    "the same": (drawing(1), drawing(1), True),
}


@pytest.mark.parametrize("name", PIXELS)
def test_pixel_digests(name: str, tmp_path: Path):
    one, other, equal = PIXELS[name]
    first = saved(one, tmp_path / "a.png", compress_level=1)
    second = saved(other, tmp_path / "b.png", compress_level=9)
    assert (pixel_digest(first) == pixel_digest(second)) is equal


def test_the_digest_sees_through_the_container(tmp_path: Path):
    jpeg = io.BytesIO()
    drawing(1).save(jpeg, "JPEG", quality=80)
    one = saved(Image.open(io.BytesIO(jpeg.getvalue())), tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(jpeg.getvalue())
    assert pixel_digest(one) == pixel_digest(tmp_path / "b.jpg")


@pytest.mark.parametrize("side", [32, 64])
def test_small_fields_equal_those_of_numpy(side: int):
    values = blocks(1)[0, :side, :side].astype(np.float32)
    padded = np.pad(values, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * values
    each = side // 4
    assert all(np.array_equal(*pair) for pair in zip(dct.gradient(values), np.gradient(values), strict=True))
    assert np.array_equal(dct.laplacian(values), around)
    assert np.allclose(dct.block_means(values, 4), values.reshape(4, each, 4, each).mean(axis=(1, 3)), rtol=1e-5)
    assert dct.median(values.ravel()) == np.median(values)
    assert dct.mean(values) == pytest.approx(values.mean())
