"""What is taken for the same picture and for the better copy, on photographs."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter
from support import flat, load_step

from lib.dedup.compare import RANKS, compare, residual, toned
from lib.dedup.fingerprints import fingerprint
from lib.hashing.buffers import Buffers
from lib.hashing.enlarged import Verdict, read_details, verdict

# Photographs that come with a core requirement; the package itself takes a second to import and is not needed.
PHOTOGRAPHS = Path(str(find_spec("sklearn").submodule_search_locations[0])) / "datasets" / "images"
NAMES = ("china.jpg", "flower.jpg")


def photograph(name: str) -> Image.Image:
    with Image.open(PHOTOGRAPHS / name) as opened:
        return opened.convert("RGB")


def buffers_of(picture: Image.Image, folder: Path, **options: object) -> Buffers:
    path = folder / "picture"
    picture.save(path, **{"format": "JPEG", "quality": 90, **options})
    return Buffers.from_bytes(fingerprint(str(path)).packed)


def marked(picture: Image.Image, size: float, opacity: int) -> Image.Image:
    """With half-transparent words on it, `size` in shares of the width."""
    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    place = (picture.width * 0.2, picture.height * 0.72)
    ImageDraw.Draw(layer).text(place, "WATERMARK", fill=(255, 255, 255, opacity), font_size=picture.width * size)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def cut(picture: Image.Image, share: float) -> Image.Image:
    across, down = round(picture.width * share), round(picture.height * share)
    return picture.crop((across, down, picture.width, picture.height))


def dotted(picture: Image.Image) -> Image.Image:
    side = round(min(picture.size) * 0.03)
    x, y = round(picture.width * 0.8), round(picture.height * 0.9)
    made = picture.copy()
    ImageDraw.Draw(made).ellipse([x, y, x + side, y + side], fill=(220, 30, 30))
    return made


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "tilted by half a degree": lambda p: p.rotate(0.5, resample=Image.Resampling.BICUBIC),
    "tilted by -1.5 degrees": lambda p: p.rotate(-1.5, resample=Image.Resampling.BICUBIC),
    "cropped by 0.6 % at two sides": lambda p: cut(p, 0.006),
    "cropped by 2 % at two sides": lambda p: cut(p, 0.02),
    "faint watermark": lambda p: marked(p, 0.1, 130),
    "faint words in small print": lambda p: marked(p, 0.035, 60),
    "a dot of 3 % of the short side": dotted,
}
HARMLESS: dict[str, tuple[Callable[[Image.Image], Image.Image], dict[str, object]]] = {
    "JPEG of quality 12": (lambda p: p, {"quality": 12}),
    "WebP": (lambda p: p, {"format": "WEBP", "quality": 40}),
    "quarter size": (lambda p: p.resize((p.width // 4, p.height // 4), Image.Resampling.LANCZOS), {}),
    "odd size": (lambda p: p.resize((p.width * 71 // 100, p.height * 71 // 100), Image.Resampling.LANCZOS), {}),
    "enlarged": (lambda p: p.resize((p.width * 5 // 3, p.height * 5 // 3), Image.Resampling.BICUBIC), {}),
    "brighter": (lambda p: ImageEnhance.Brightness(p).enhance(1.3), {}),
    "more contrast": (lambda p: ImageEnhance.Contrast(p).enhance(1.4), {}),
    "grey": (lambda p: p.convert("L"), {}),
    "stronger colours": (lambda p: ImageEnhance.Color(p).enhance(1.6), {}),
    "blurred": (lambda p: p.filter(ImageFilter.GaussianBlur(1.5)), {}),
    "sharpened": (lambda p: p.filter(ImageFilter.UnsharpMask(2, 150, 2)), {}),
    "blurred, then a bad JPEG": (lambda p: p.filter(ImageFilter.GaussianBlur(1)), {"quality": 20}),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("edit", EDITS)
def test_small_moves_and_marks_are_edits(tmp_path: Path, name: str, edit: str):
    picture = photograph(name)
    finding = compare(buffers_of(picture, tmp_path), buffers_of(EDITS[edit](picture), tmp_path))
    assert not finding.same, finding


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("alteration", HARMLESS)
def test_what_encoders_and_sliders_do_is_the_same_picture(tmp_path: Path, name: str, alteration: str):
    picture = photograph(name)
    alter, options = HARMLESS[alteration]
    finding = compare(buffers_of(picture, tmp_path), buffers_of(alter(picture), tmp_path, **options))
    assert finding.same, finding


def test_nothing_is_left_over_of_equal_pictures_and_flat_ones():
    grey = np.asarray(photograph("china.jpg").convert("L").resize((64, 64)), np.float32)
    chromas = np.full((4, 16, 16), 128, np.uint8)
    for values in (grey, np.full((64, 64), 90, np.float32), np.zeros((32, 32), np.float32)):
        found = residual(values, values, chromas)
        assert found.moved < 1e-3 and max(found.standing_out) < 0.1 and len(found.standing_out) == len(RANKS)


@pytest.mark.parametrize("shift", [0.25, 0.5])
def test_a_shift_is_measured_in_shares_of_the_side(shift: float):
    """A shift of a smooth picture by part of a pixel, made in the frequencies: exact but for the edges."""
    soft = photograph("flower.jpg").convert("L").filter(ImageFilter.GaussianBlur(12))
    grey = np.asarray(soft.resize((64, 64)), np.float32)
    turns = np.exp(-2j * np.pi * np.fft.fftfreq(64) * shift)[None, :]
    moved = np.fft.ifft2(np.fft.fft2(grey) * turns).real.astype(np.float32)
    found = residual(grey, moved, np.full((2, 16, 16), 128, np.uint8))
    assert found.moved == pytest.approx(shift / 64, rel=0.25)


FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}


def scaled(picture: Image.Image, factor: float, kernel: str) -> Image.Image:
    return picture.resize([round(side * factor) for side in picture.size], FILTERS[kernel])


def saved(picture: Image.Image, path: Path, **options: object) -> Path:
    picture.save(path, **options)
    return path


def judged(small: Path, large: Path) -> Verdict:
    return verdict(read_details(small), read_details(large))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("factor", "kernel", "quality"),
    [(1.3, "bilinear", 90), (1.3, "lanczos", 80), (1.7, "bicubic", 75), (2, "lanczos", 95), (3, "bilinear", 85)],
)
def test_an_enlargement_is_known_for_what_it_is(tmp_path: Path, name: str, factor: float, kernel: str, quality: int):
    original = saved(photograph(name), tmp_path / "original.png")
    large = saved(scaled(photograph(name), factor, kernel), tmp_path / "large.jpg", quality=quality)
    assert judged(original, large) == Verdict.ENLARGED
    assert judged(large, original) == Verdict.ORIGINAL, "only the larger one can be an enlargement"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("factor", "quality"), [(1.5, 92), (2, None), (2, 85), (2.37, 95), (3, 85)])
def test_repeated_pixels_tell_of_an_enlargement_of_a_better_copy(
    tmp_path: Path, name: str, factor: float, quality: int | None
):
    """One that lies not there: what was saved since is detail that the smaller one lacks."""
    small = saved(photograph(name), tmp_path / "small.jpg", quality=75)
    options = {"format": "JPEG", "quality": quality} if quality else {"format": "PNG"}
    large = saved(scaled(photograph(name), factor, "nearest"), tmp_path / "large", **options)
    assert judged(small, large) == Verdict.ENLARGED


@pytest.mark.parametrize("quality", [3, 10, 40, None])
@pytest.mark.parametrize("factor", [1.5, 2, 3, 8])
def test_flat_blocks_of_a_bad_jpeg_are_no_repeated_pixels(tmp_path: Path, quality: int | None, factor: float):
    options = {"format": "JPEG", "quality": quality} if quality else {"format": "PNG"}
    large = saved(photograph("china.jpg"), tmp_path / "large", **options)
    with Image.open(large) as opened:
        small = saved(scaled(opened.convert("RGB"), 1 / factor, "box"), tmp_path / "small.png")
    assert judged(small, large) != Verdict.ENLARGED


def again(picture: Image.Image, *qualities: int) -> Image.Image:
    """Saved and opened for each quality."""
    for quality in qualities:
        held = io.BytesIO()
        picture.save(held, "JPEG", quality=quality)
        with Image.open(held) as opened:
            picture = opened.convert("RGB")
    return picture


ENLARGED: dict[str, tuple[Callable[[Image.Image], Image.Image], dict[str, object]]] = {
    "1.7 times, JPEG 40, then 88": (lambda p: again(scaled(p, 1.7, "lanczos"), 40), {"quality": 88}),
    "1.4 times, JPEG 60, then 90": (lambda p: again(scaled(p, 1.4, "bicubic"), 60), {"quality": 90}),
    "2 times, JPEG 75, then 95": (lambda p: again(scaled(p, 2, "bilinear"), 75), {"quality": 95}),
    "2.6 times, JPEG 50, then 80": (lambda p: again(scaled(p, 2.6, "bicubic"), 50), {"quality": 80}),
    "1.5 times, JPEG 35": (lambda p: scaled(p, 1.5, "lanczos"), {"quality": 35}),
    "2 times, nearest": (lambda p: scaled(p, 2, "nearest"), {"quality": 85}),
    "2 times, then sharpened": (
        lambda p: scaled(p, 2, "bicubic").filter(ImageFilter.UnsharpMask(1.5, 100, 2)),
        {"quality": 90},
    ),
    "1.8 times, JPEG 60, then PNG": (lambda p: again(scaled(p, 1.8, "bicubic"), 60), {"format": "PNG"}),
    "2 times, WebP": (lambda p: scaled(p, 2, "lanczos"), {"format": "WEBP", "quality": 80}),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ENLARGED)
def test_an_original_does_not_go_for_its_enlargement(tmp_path: Path, capsys, name: str, how: str):
    """However often and however badly that was saved. What cannot be told stays as well."""
    folder = tmp_path / "photos"
    folder.mkdir()
    saved(photograph(name), folder / "original.jpg", quality=92)
    enlarge, options = ENLARGED[how]
    saved(enlarge(photograph(name)), folder / "a larger one.jpg", **{"format": "JPEG", **options})
    groups = run(folder, capsys, "--dry-run")["groups"]
    gone = {Path(m["path"]).name for group in groups for m in group["members"] if m["decision"] == "remove"}
    assert "original.jpg" not in gone


def test_an_original_stays_among_more_copies_than_are_compared(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr("lib.dedup.judge.MOST", 0)
    folder = tmp_path / "photos"
    folder.mkdir()
    saved(photograph("china.jpg"), folder / "original.jpg", quality=92)
    saved(scaled(photograph("china.jpg"), 2, "bicubic"), folder / "a larger one.jpg", quality=95)
    members = [member for group in run(folder, capsys, "--dry-run")["groups"] for member in group["members"]]
    assert [(Path(m["path"]).name, m["decision"]) for m in members] == [("original.jpg", "keep")]


@pytest.mark.parametrize("quality", [45, 75, 92])
@pytest.mark.parametrize("blur", [0, 1.2])
@pytest.mark.parametrize("how", ["lanczos", "box"])
def test_a_larger_original_does_not_go_for_its_reduced_copy(
    tmp_path: Path, capsys, quality: int, blur: float, how: str
):
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = photograph("china.jpg").filter(ImageFilter.GaussianBlur(blur)) if blur else photograph("china.jpg")
    saved(picture, folder / "original.jpg", quality=quality)
    saved(scaled(again(picture, quality), 0.55, how), folder / "copy.jpg", quality=95)
    groups = run(folder, capsys, "--dry-run")["groups"]
    gone = {Path(m["path"]).name for group in groups for m in group["members"] if m["decision"] == "remove"}
    assert "original.jpg" not in gone
    assert blur or gone == {"copy.jpg"}, "and where it is sharp the copy goes"


REDUCED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "by box": lambda p: scaled(p, 0.5, "box"),
    "by bicubic": lambda p: scaled(p, 0.77, "bicubic"),
    "by lanczos": lambda p: scaled(p, 0.6, "lanczos"),
    "sharpened": lambda p: scaled(p, 0.5, "bicubic").filter(ImageFilter.UnsharpMask(1, 80, 2)),
    "brighter": lambda p: ImageEnhance.Brightness(scaled(p, 0.4, "lanczos")).enhance(1.2),
    "grey": lambda p: scaled(p, 0.5, "lanczos").convert("L"),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", REDUCED)
@pytest.mark.parametrize("blur", [0, 1.5])
def test_an_original_is_no_enlargement_of_its_reduced_copy(tmp_path: Path, name: str, how: str, blur: float):
    """Not even a soft one."""
    picture = photograph(name).filter(ImageFilter.GaussianBlur(blur)) if blur else photograph(name)
    original = saved(picture, tmp_path / "original.jpg", quality=85)
    small = saved(REDUCED[how](picture), tmp_path / "small.jpg", quality=92)
    assert judged(small, original) != Verdict.ENLARGED


def test_turned_transparent_and_tiny_pictures_are_read(tmp_path: Path):
    picture = photograph("china.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    lying = saved(scaled(picture, 2, "bicubic").transpose(Image.Transpose.ROTATE_90), tmp_path / "l.jpg", exif=exif)
    assert judged(saved(picture, tmp_path / "a.png"), lying) == Verdict.ENLARGED
    for mode in ("RGBA", "LA", "P", "1", "I;16", "CMYK"):
        made = picture.resize((40, 30)).convert("L").convert(mode) if mode != "I;16" else Image.new(mode, (40, 30))
        small = saved(made, tmp_path / f"small.{'tif' if mode in ('CMYK', 'I;16') else 'png'}")
        assert judged(small, small) == Verdict.ORIGINAL


def run(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    words = [str(folder), "--workspace", str(folder.parent / "ws"), "--workers", "1", "--json", *map(str, arguments)]
    assert load_step("dedup").main(words) == 0
    return flat(capsys.readouterr().out)


def keepers(found: dict) -> list[str]:
    return [Path(group["keeper"]).name for group in found["groups"]]


@pytest.mark.parametrize("names", [("a", "b", "c", "d", "e"), ("e", "d", "c", "b", "a"), ("c", "a", "e", "b", "d")])
def test_the_original_stays_whatever_the_files_are_called(tmp_path: Path, capsys, names):
    """Before its enlargements and its reduced copy."""
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = photograph("china.jpg")
    saved(picture, folder / f"{names[0]}.jpg", quality=88)
    with Image.open(folder / f"{names[0]}.jpg") as opened:
        original = opened.convert("RGB")
    saved(scaled(original, 1.3, "bicubic"), folder / f"{names[1]}.jpg", quality=95)
    saved(scaled(original, 3, "bilinear"), folder / f"{names[2]}.jpg", quality=95)
    saved(scaled(original, 2, "lanczos"), folder / f"{names[3]}.jpg", quality=90)
    saved(scaled(original, 0.5, "lanczos"), folder / f"{names[4]}.jpg", quality=95)
    found = run(folder, capsys, "--dry-run")
    assert keepers(found) == [f"{names[0]}.jpg"]
    assert {m["decision"] for m in found["groups"][0]["members"]} == {"remove"}
    assert keepers(run(folder, capsys, "--dry-run", "--keep", "largest")) == [f"{names[2]}.jpg"]


def test_what_was_compared_for_its_size_is_remembered(tmp_path: Path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = photograph("flower.jpg")
    saved(picture, folder / "original.png")
    saved(scaled(picture, 2, "bicubic"), folder / "large.jpg", quality=90)
    first = run(folder, capsys, "--remove", "none")
    assert first["summary"]["decoded"] == 6, "each for its hash, for the second look, and at full size"
    second = run(folder, capsys, "--remove", "none")
    assert second["summary"]["decoded"] == 0 and keepers(second) == keepers(first) == ["original.png"]


def test_a_photograph_in_a_palette_does_not_pass_for_lossless(tmp_path: Path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    saved(photograph("china.jpg"), folder / "b.jpg", quality=85)
    with Image.open(folder / "b.jpg") as opened:
        saved(opened.quantize(256), folder / "a.png")
    assert keepers(run(folder, capsys, "--dry-run")) == ["b.jpg"]


def pooled(values: list[float], weights: list[int]) -> list[float]:
    """The rising sequence nearest to the values by weighted least squares: pooling of adjacent violators, by hand."""
    pools: list[tuple[float, int, int]] = []  # mean, weight, length
    for value, weight in zip(values, weights, strict=True):
        pool = (value, weight, 1)
        while pools and pools[-1][0] >= pool[0]:
            mean, heavy, length = pools.pop()
            total = heavy + pool[1]
            pool = ((mean * heavy + pool[0] * pool[1]) / total, total, length + pool[2])
        pools.append(pool)
    return [mean for mean, _, length in pools for _ in range(length)]


@pytest.mark.parametrize("seed", range(20))
def test_a_tone_curve_is_the_nearest_that_never_falls(seed: int):
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 256, (64, 64)).astype(np.uint8)
    target = np.clip(source * rng.uniform(0.2, 1.2) + rng.normal(0, 60, source.shape), 0, 255).astype(np.uint8)
    bins = source >> 2
    used = np.unique(bins)
    means = [float(target[bins == level].mean()) for level in used]
    places = [float(source[bins == level].mean()) for level in used]
    curve = pooled(means, [int((bins == level).sum()) for level in used])
    assert curve != means, "it falls somewhere, or nothing is tested"
    assert np.allclose(toned(source, target), np.interp(np.arange(256), places, curve)[source], atol=1e-4)
