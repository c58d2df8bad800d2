"""The technical score: its formulas on tiny arrays, and what known damage does to photographs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_image
from support import ROOT

from lib.quality import signals as formulas
from lib.quality.measure import measure_technical, technical_of
from lib.quality.score import ANCHORS, WEIGHTS, TechnicalScore, between, jpeg_quality, judge, quality_of_file
from lib.quality.signals import Signals, measure_signals

KODAK = ROOT.parent / "shared" / "photos" / "kodak"  # used where it lies beside the checkout
PHOTOS = ("china.jpg", "flower.jpg", "nature-1", "nature-2", *(f"kodak/{n}.png" for n in (3, 8, 15, 20, 23)))


@cache
def photo(name: str) -> Image.Image | None:
    """A photograph that ships with scikit-learn or lies beside the checkout, or a drawing with nature's spectrum."""
    if name.endswith(".jpg"):
        return Image.fromarray(load_sample_image(name))
    if name.startswith("kodak/"):
        path = KODAK.parent / name
        return Image.open(path).convert("RGB") if path.exists() else None
    return like_nature(int(name[-1]))


def like_nature(seed: int, width: int = 640, height: int = 448) -> Image.Image:
    """Clouds with a spectrum of 1/f, and sharp-edged discs on them: as sharp at every scale as photographs."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    planes = []
    for _ in range(3):
        noise = np.fft.rfft2(random.normal(size=(height, width)))
        planes.append(np.fft.irfft2(noise / frequency**1.4, (height, width)))
    values = np.stack(planes, -1)
    values = (values - values.min()) / np.ptp(values) * 330 - 40
    y, x = np.mgrid[:height, :width]
    for _ in range(150):
        cx, cy, radius = random.uniform(0, width), random.uniform(0, height), 120 / random.uniform(2, 30)
        values[np.hypot(x - cx, y - cy) < radius] = random.uniform(10, 250, 3)
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


Damage = Callable[[Image.Image], Image.Image]


def blurred(sigma: float) -> Damage:
    return lambda image: image.filter(ImageFilter.GaussianBlur(sigma))


def noisy(sigma: float) -> Damage:
    def damage(image: Image.Image) -> Image.Image:
        values = np.asarray(image, float)
        values = values + np.random.default_rng(7).normal(0, sigma, values.shape)
        return Image.fromarray(np.clip(values + 0.5, 0, 255).astype(np.uint8))

    return damage


def as_jpeg(quality: int) -> Damage:
    def damage(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer)

    return damage


def darkened(factor: float) -> Damage:
    return lambda image: Image.fromarray(np.rint(np.asarray(image) * factor).astype(np.uint8))


def enlarged(factor: float, kernel: Image.Resampling = Image.Resampling.BICUBIC) -> Damage:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)), kernel)


SERIES: dict[str, list[Damage]] = {
    "blurry": [blurred(sigma) for sigma in (1, 2, 3, 5)],
    "noisy": [noisy(sigma) for sigma in (10, 20, 30, 50)],
    "blocky": [as_jpeg(quality) for quality in (75, 50, 25, 10, 5)],
    "dark": [darkened(factor) for factor in (0.7, 0.5, 0.35, 0.2, 0.1)],
    "upscaled": [enlarged(factor) for factor in (1.5, 2, 3, 4)],
}


def verdict(image: Image.Image) -> TechnicalScore:
    tables = getattr(image, "quantization", None)
    return judge(signals_of(image), jpeg_quality(tables) if tables else None)


def signals_of(image: Image.Image) -> Signals:
    return measure_signals(np.asarray(image.convert("L")))


def photos() -> Iterator[tuple[str, Image.Image]]:
    for name in PHOTOS:
        if (image := photo(name)) is not None:
            yield name, image


@pytest.mark.parametrize("damage", SERIES)
def test_every_stronger_step_scores_less(damage: str) -> None:
    for name, image in photos():
        scores = [verdict(image).score, *(verdict(step(image)).score for step in SERIES[damage])]
        assert scores == sorted(set(scores), reverse=True), (name, damage, scores)


def test_the_damage_is_the_reason_that_is_named() -> None:
    wrong, total = [], 0
    for damage, steps in SERIES.items():
        for name, image in photos():
            for number, step in enumerate(steps):
                total += 1
                if (found := verdict(step(image))).reason != damage:
                    wrong.append((damage, number, name, found.reason, found.traits))
    assert len(wrong) <= 0.05 * total, wrong


@pytest.mark.parametrize("name", ["china.jpg", "nature-1", "nature-2"])
def test_an_undamaged_picture_has_no_damage_named(name: str) -> None:
    image = photo(name)
    assert image
    assert verdict(image).reason == "no defect found", verdict(image)


@pytest.mark.parametrize("kernel", [Image.Resampling.LANCZOS, Image.Resampling.BILINEAR])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_enlargements_are_told_from_blur(factor: int, kernel: Image.Resampling) -> None:
    image = photo("china.jpg")
    assert image
    assert verdict(enlarged(factor, kernel)(image)).worst == "upscaled"
    assert verdict(blurred(factor)(image)).worst == "blurry"


def columns(values: list[float], side: int = 32) -> np.ndarray:
    """One tile whose rows are all the same."""
    return np.tile(np.array(values, np.float32), (1, side, 1))


def test_reblur_of_a_step_is_a_third() -> None:
    # One gradient of 100 before; nine of 100/9 after: energies 100^2 and 9 (100/9)^2, whose ratio is 1/9.
    step = columns([0.0] * 16 + [100.0] * 16)
    assert formulas.reblur(step)[0] == pytest.approx(1 / 3)


def test_reblur_of_a_ramp_and_of_nothing_is_one() -> None:
    assert formulas.reblur(columns([float(v) for v in range(32)]))[0] == pytest.approx(1)
    assert formulas.reblur(columns([7.0] * 32))[0] == 1
    assert formulas.reblur(np.zeros((1, 4, 4), np.float32))[0] == 1


def test_reblur_takes_off_the_noise_it_is_told_of() -> None:
    # Alternating +-s is a gradient of 2 s everywhere; two independent samples differ by sqrt(2) s: energy 2 s^2.
    noise = np.random.default_rng(1).normal(0, 8, (4, 64, 64)).astype(np.float32)
    edge = np.zeros((4, 64, 64), np.float32)
    edge[:, :, 32:] = 200
    clean, told, untold = (
        formulas.reblur(edge)[0],
        formulas.reblur(edge + noise, 8)[0],
        formulas.reblur(edge + noise)[0],
    )
    assert abs(told - clean) < abs(untold - clean) / 3


@pytest.mark.parametrize("sigma", [4, 8, 16])
def test_noise_is_measured_in_grey_levels(sigma: float) -> None:
    tiles = np.random.default_rng(2).normal(128, sigma, (9, 192, 192)).astype(np.float32)
    assert formulas.noise_sigma(tiles, formulas.halved(tiles)) == pytest.approx(sigma, rel=0.15)


def test_texture_is_no_noise() -> None:
    image = photo("nature-1")
    assert image
    assert signals_of(image).noise < 1


def test_halving_takes_means() -> None:
    tile = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
    assert formulas.halved(tile).tolist() == [[[2.5, 4.5], [10.5, 12.5]]]


@pytest.mark.parametrize("shift", [0, 3])
def test_blockiness_finds_the_grid_wherever_it_lies(shift: int) -> None:
    blocks = np.repeat(np.random.default_rng(3).integers(0, 100, 30), 8).astype(float)
    ramp = np.arange(192) * 0.5
    tile = columns(list(blocks[shift : shift + 192] + ramp), 192)
    across, down = np.abs(np.diff(tile)).mean(axis=1), np.abs(np.diff(tile, axis=1)).mean(axis=2)
    assert formulas.blockiness(across, across) > 10
    assert formulas.blockiness(down, down) == 0  # no gradient down the columns, hence no grid


def test_entropy_and_clipping_of_known_histograms() -> None:
    histogram = np.zeros(256)
    histogram[[0, 100, 200, 255]] = 0.25
    assert formulas.entropy(histogram) == pytest.approx(2)
    assert formulas.clipped_share(histogram) == pytest.approx(0.25)
    assert formulas.quantile(histogram, 0.99) == pytest.approx(254.96 / 255, abs=0.01)


def test_the_spectrum_of_white_noise_does_not_fall() -> None:
    noise = np.random.default_rng(4).normal(128, 20, (9, 192, 192)).astype(np.float32)
    assert formulas.fall(noise, 0) == pytest.approx(0, abs=0.03)
    assert formulas.fall(columns([7.0] * 192, 192), 0) == 0  # nothing to be seen
    assert formulas.fall(columns([7.0] * 32), 0) == 0  # too small to tell


def test_a_slight_blur_cuts_off_the_end_of_the_spectrum_and_noise_does_not_fill_it() -> None:
    for name, image in photos():
        sharp, soft = signals_of(image), signals_of(blurred(1)(image))
        # A Gaussian of 1 pixel leaves exp(-2 pi^2 f^2) of an amplitude: e^(-2.5) between the middles of the two bands.
        assert sharp.fall[0] - soft.fall[0] > 1.2, name
        assert signals_of(noisy(8)(image)).fall[0] == pytest.approx(sharp.fall[0], abs=0.4), name


def test_standard_deviation_of_a_known_histogram() -> None:
    histogram = np.zeros(256)
    histogram[[100, 140]] = 0.5
    assert formulas.spread(histogram) == pytest.approx(20)


def test_sharpness_noise_and_contrast_do_not_depend_on_exposure() -> None:
    image = photo("china.jpg")
    assert image
    bright, dark = (signals_of(step(image)) for step in (darkened(1.0), darkened(0.4)))
    assert dark.softness == pytest.approx(bright.softness, abs=0.02)
    assert dark.contrast == pytest.approx(bright.contrast, rel=0.03)
    assert dark.white == pytest.approx(0.4 * bright.white, abs=0.01)


@pytest.mark.parametrize("quality", [10, 15, 25, 50, 60, 75, 85, 90, 95, 98, 100])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_quality_is_read_from_the_tables(quality: int, mode: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new(mode, (16, 16), 90).save(path, quality=quality)
    assert quality_of_file(path) == pytest.approx(quality, abs=1 if quality > 15 else 5)


def test_only_jpegs_have_a_quality(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_text("text")
    assert quality_of_file(tmp_path / "a.png") is None
    assert quality_of_file(tmp_path / "b.jpg") is None


@pytest.mark.parametrize("name", ANCHORS)
def test_anchors_ascend_and_never_turn_back(name: str) -> None:
    places, heights = zip(*ANCHORS[name], strict=True)
    assert list(places) == sorted(set(places))
    assert list(heights) in (sorted(heights), sorted(heights, reverse=True))
    assert name == "jpeg" or name in WEIGHTS


def test_lines_between_anchors() -> None:
    anchors = ((0.0, 0.0), (10.0, 50.0), (20.0, 100.0))
    cases = [(-1, 0), (0, 0), (5, 25), (10, 50), (15, 75), (20, 100), (99, 100)]
    assert [between(anchors, value) for value, _ in cases] == [expected for _, expected in cases]


@pytest.mark.parametrize(
    ("worse", "worst"),
    [
        ({"noise": 15.0}, "noisy"),
        ({"softness": (0.8, 0.7, 0.5)}, "blurry"),
        ({"softness": (0.5, 0.3, 0.3), "fall": (-2.5, -1.3), "resampled": 9.0}, "upscaled"),
        ({"blockiness": 3.0}, "blocky"),
        ({"white": 0.3}, "dark"),
        ({"clipped_high": 0.9}, "overexposed"),
        ({"clipped_low": 0.9}, "crushed_blacks"),
        ({"contrast": 0.05}, "low_contrast"),
        ({"entropy": 1.0}, "near_blank"),
        ({"width": 90, "height": 80}, "tiny"),
        ({"width": 4000, "height": 500}, "odd_shape"),
    ],
)
def test_one_bad_signal_lowers_the_score_and_is_the_worst(worse: dict[str, Any], worst: str) -> None:
    image = photo("china.jpg")
    assert image
    good = signals_of(image)
    found = judge(replace(good, **worse))
    assert found.worst == worst
    assert found.score < judge(good).score


def test_jpeg_tables_lower_the_score_of_the_same_pixels() -> None:
    image = photo("china.jpg")
    assert image
    good = signals_of(image)
    scores = [judge(good, quality).score for quality in (None, 95, 85, 60, 30, 10)]
    assert scores == sorted(set(scores), reverse=True)


@pytest.mark.parametrize(
    ("size", "colour", "worst"),
    [
        ((400, 300), (255, 255, 255), "near_blank"),
        ((400, 300), (0, 0, 0), "near_blank"),
        ((1, 1), (10, 200, 30), "near_blank"),
        ((3000, 2), (10, 200, 30), "near_blank"),
    ],
)
def test_pictures_of_nothing_are_called_so(size: tuple[int, int], colour: tuple[int, ...], worst: str) -> None:
    found = verdict(Image.new("RGB", size, colour))
    assert found.worst == worst
    assert found.score < 5


@pytest.mark.parametrize(
    "size", [(3, 900), (900, 3), (200, 7000), (7000, 200), (1, 40_000), (40_000, 1), (800, 20_000)]
)
def test_the_longest_strips_have_tiles_of_their_own(size: tuple[int, int]) -> None:
    width, height = size
    tiles = formulas.grey_tiles(np.zeros((height, width), dtype=np.uint8))
    side = min(width, height, formulas.TILE)
    assert tiles.shape == (min(formulas.MAX_TILES, max(size) // side), side, side)
    assert judge(measure_signals(np.zeros((height, width), dtype=np.uint8))).reason


@pytest.mark.parametrize(
    ("box", "reason"), [((300, 200, 360, 250), "tiny"), ((0, 100, 640, 160), "odd shape")], ids=["tiny", "strip"]
)
def test_size_and_shape_are_named(box: tuple[int, int, int, int], reason: str) -> None:
    image = photo("china.jpg")
    assert image
    assert verdict(image.crop(box)).reason == reason


def test_a_measure_tells_what_it_saw(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    image = photo("china.jpg")
    assert image
    image.save(path, quality=40)
    measure = measure_technical(path)
    assert measure.reason == "blocky"
    assert (measure.width, measure.height, measure.format) == (640, 427, "jpeg")
    assert measure.detail["jpeg_quality"] == pytest.approx(40, abs=1)
    assert measure.detail["worst"] == "blocky"


@pytest.mark.parametrize("form", ["rgb.jpg", "grey.jpg", "turned.jpg", "cmyk.jpg", "a.png", "clear.png", "deep.png"])
def test_the_score_is_the_same_whether_colours_are_decoded_or_not(form: str, tmp_path: Path) -> None:
    path, image = tmp_path / form, photo("china.jpg")
    assert image
    made = {"rgb": image, "grey": image.convert("L"), "cmyk": image.convert("CMYK"), "clear": image.convert("RGBA")}
    exif = Image.Exif()
    exif[0x0112] = 6 if form == "turned.jpg" else 1
    if form == "deep.png":
        Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257).save(path)
    else:
        made.get(path.stem, image).save(path, exif=exif)
    measure = measure_technical(path)
    picture, alike = technical_of(path)
    assert measure == alike
    assert picture.rgb.shape[:2] == (measure.height, measure.width)
    assert (measure.height > measure.width) == (form == "turned.jpg")


def test_what_shows_at_no_usual_size_is_not_named() -> None:
    """A blur of 1 pixel in a picture of 5 megapixels is nothing that anybody sees."""
    image = photo("china.jpg")
    assert image
    soft = signals_of(blurred(1)(image))
    assert judge(soft).reason == "blurry"
    assert judge(replace(soft, width=2560, height=1708, softness=(0.4, 0.3, 0.3))).reason == "no defect found"
