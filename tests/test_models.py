"""Learned quality and embeddings with the real architectures under random weights, loaded from files as users do."""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import drawing, load_step

from lib.errors import GleanerError, UsageError
from lib.models.device import batched
from lib.models.place import MissingWeights, Place, fingerprint

torch = pytest.importorskip("torch", reason="requirements-core.txt leaves the models out")
step = load_step("sort")
SIZES = ((320, 240), (240, 320), (256, 256), (400, 225), (80, 64), (320, 240))
MUSIQ = "musiq_koniq_ckpt-e95806b9.pth"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights as people would fill it, under the published names: small or random, never trained."""
    from lib.models.offline import require

    folder = tmp_path_factory.mktemp("models")
    pyiqa = require("pyiqa")
    from pyiqa.archs import clip_model
    from pyiqa.default_model_configs import DEFAULT_CONFIGS

    torch.manual_seed(7)
    torch.set_num_threads(1)  # small nets: more threads only wait for each other
    # The architecture as it is, three layers of it and narrower: what is tested is how it is loaded and fed.
    DEFAULT_CONFIGS["musiq"]["metric_opts"] |= {"hidden_size": 96, "num_layers": 3, "mlp_dim": 128}
    musiq = pyiqa.create_metric("musiq", device="cpu", pretrained=False).net
    torch.save(musiq.state_dict(), folder / MUSIQ)
    clip = clip_model.CLIP(64, 224, (1, 1, 1, 1), 32, None, 77, 49408, 64, 1, 2).eval().float()
    _spread_norms(clip)
    inside = torch.jit.trace(clip, (torch.rand(1, 3, 64, 64), torch.zeros(2, 77, dtype=torch.long)), strict=False)
    (folder / "hub/clip").mkdir(parents=True)
    torch.jit.save(inside, str(folder / "hub/clip/RN50.pt"))
    return folder


def _spread_norms(net: Any) -> None:
    """Untrained batch normalisation does nothing; folding it must be tested on one that does."""
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, size in enumerate(SIZES):
        drawing(number, *size).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return folder


def sort(workspace: Path, *arguments: object) -> int:
    return step.main([*map(str, arguments), "--workspace", str(workspace), "--workers", "1"])


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


# --- scores ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["musiq", "clipiqa"])
def test_our_way_gives_pyiqas_own_scores(name: str, models: Path) -> None:
    """The same pixels through pyiqa's call, one by one, and through ours, all sizes at once."""
    from lib.models.iqa import load
    from lib.models.offline import local_only

    rgbs = [np.array(drawing(number, *size)) for number, size in enumerate(SIZES)]
    import pyiqa

    with local_only(Place(models)):
        theirs = pyiqa.create_metric(name, device="cpu")
    expected = [float(theirs(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255)) for rgb in rgbs]
    ours = load(name, Place(models), "cpu", 1024)
    if ours.same_size:
        found = [ours.run([rgb])[0] for rgb in rgbs]
        assert ours.run([rgbs[0], rgbs[5]]) == pytest.approx([expected[0], expected[5]], abs=1e-5)
    else:
        found = list(ours.run(rgbs))
    assert found == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 1e-5  # the agreement means something


def test_quality_by_several_metrics_from_one_decode(
    models: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "ws"
    arguments = ("quality", pictures, "--models-dir", models, "--json")
    assert sort(workspace, *arguments, "--metric", "technical,musiq,clipiqa", "--combine", "min", "--min-score", 0) == 0
    told = result(capsys)
    assert told["summary"]["measured"] == 7
    unreadable = [(Path(entry["path"]).name, entry["reason"]) for entry in told["unreadable"]]
    assert unreadable == [("broken.jpg", "not_an_image")]
    lines = [json.loads(line) for path in workspace.rglob("metadata.jsonl") for line in path.read_text().splitlines()]
    assert len(lines) == 6
    for line in lines:
        words = dict(part.split(" ")[:2] for part in line["reason"].split(", "))
        assert set(words) == {"technical", "musiq", "clipiqa"}
        assert line["score"] == pytest.approx(min(float(word) for word in words.values()), abs=0.06)
    # Each metric is kept by itself: other combinations and thresholds score nothing anew.
    for extra in (("--metric", "combined"), ("--metric", "musiq", "--high", 1), ("--metric", "clipiqa,technical")):
        assert sort(workspace, *arguments, *extra) == 0
        assert result(capsys)["summary"]["measured"] == 0


def test_other_weights_are_other_scores(models: Path, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "models"
    other.mkdir()
    state = torch.load(models / MUSIQ)
    state["head.bias"] += 3
    torch.save(state, other / MUSIQ)
    for folder, measured in ((models, 7), (other, 7), (models, 0)):
        assert sort(tmp_path / "ws", "quality", pictures, "--metric", "musiq", "--models-dir", folder, "--json") == 0
        assert result(capsys)["summary"]["measured"] == measured


def test_a_metric_that_needs_no_weights_runs_by_name(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    assert sort(tmp_path / "ws", "quality", pictures, "--metric", "piqe", "--json") == 0
    assert sum(result(capsys)["buckets"].values()) >= 5


@pytest.mark.parametrize(
    ("metric", "file"),
    [("musiq", MUSIQ), ("clipiqa", "RN50.pt"), ("topiq", "cfanet_nr_koniq_res50-9a73138b.pth"), ("arniqa", "resnet50")],
)
def test_missing_weights_are_named_before_anything_is_done(
    metric: str, file: str, pictures: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with _no_network():
        assert sort(tmp_path / "ws", "quality", pictures, "--metric", metric, "--models-dir", tmp_path / "m") == 2
    said = capsys.readouterr().err
    assert file in said and str(tmp_path / "m") in said and "--metric technical" in said
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "ws/sorted").exists()


@contextlib.contextmanager
def _no_network() -> Any:
    """Fails at once when anything asks for another host."""
    import socket

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    before, socket.getaddrinfo = socket.getaddrinfo, refuse  # type: ignore[assignment]
    try:
        yield
    finally:
        socket.getaddrinfo = before


def test_unknown_metrics_and_broken_weights_are_one_sentence(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    assert sort(tmp_path / "ws", "quality", pictures, "--metric", "musik") == 2
    assert "near are: musiq" in capsys.readouterr().err
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / MUSIQ).write_bytes(b"cut off")
    assert sort(tmp_path / "ws", "quality", pictures, "--metric", "musiq", "--models-dir", tmp_path / "m") == 1
    assert "the weights of musiq cannot be loaded" in capsys.readouterr().err
    assert sort(tmp_path / "ws", "quality", pictures, "--device", "cuda", "--metric", "piqe") in (0, 2)


@pytest.mark.parametrize(
    ("low", "high", "lower_better", "value", "expected"),
    [(0, 1, False, 0.25, 25), (1, 10, False, 5.5, 50), (0, 100, True, 30, 70), (0, 100, False, 130, 100)],
)
def test_every_range_is_put_on_100(low: float, high: float, lower_better: bool, value: float, expected: float) -> None:
    from lib.models.iqa import Scale

    assert Scale(low, high, lower_better).on_100(value) == expected


# --- what models share -----------------------------------------------------------------------------------------------


def test_half_a_batch_is_tried_when_memory_runs_out() -> None:
    sizes = []

    def run(items: Any) -> list[int]:
        sizes.append(len(items))
        if len(items) > 2 or 13 in items:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        if 5 in items:
            raise ValueError("strange")
        return [item * 10 for item in items]

    found = batched(run, [1, 2, 3, 4, 5, 6, 13, 8])
    assert [str(answer) for answer in found] == ["10", "20", "30", "40", "strange", "60", "too_large_for_device", "80"]
    assert sizes[:3] == [8, 4, 2]


def test_a_file_without_the_digest_in_its_name_is_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / MUSIQ).write_bytes(b"short")
    with caplog.at_level(logging.WARNING):
        assert fingerprint([tmp_path / MUSIQ]) != fingerprint([])
    assert "has not the digest in its name" in caplog.text


def test_a_place_knows_our_folder_and_torchs(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch/hub/pyiqa").mkdir(parents=True)
    (tmp_path / "torch/hub/pyiqa/a.pth").write_bytes(b"torch")
    place = Place(tmp_path / "ours")
    assert place.need("a.pth").read_bytes() == b"torch"
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/a.pth").write_bytes(b"ours")
    assert place.need("a.pth").read_bytes() == b"ours"
    with pytest.raises(MissingWeights, match=r"that file from https://x\.example/y/b\.pth into .*ours"):
        place.need_address("https://x.example/y/b.pth")
    assert issubclass(MissingWeights, UsageError) and issubclass(UsageError, GleanerError)


def test_pictures_reach_a_model_upright_reduced_and_bounded(tmp_path: Path) -> None:
    from lib.models.feed import Feed, looking

    exif = Image.Exif()
    exif[0x0112] = 6
    paths = []
    for number in range(12):
        paths.append(tmp_path / f"{number}.jpg")
        drawing(number, 800 + 40 * (number % 5), 400).save(paths[-1], exif=exif)

    class Shapes:
        pixels, most = 60_000, 0

        def key(self, rgb: Any) -> Any:
            return rgb.shape

        def run(self, pictures: Any) -> Any:
            self.most = max(self.most, sum(rgb.shape[0] * rgb.shape[1] for rgb in pictures))
            return [rgb.shape for rgb in pictures]

    model = Shapes()
    feed = Feed(model, looking(200))
    outcomes = list(feed.outcomes(paths))
    assert sorted(str(outcome.item) for outcome in outcomes) == sorted(map(str, paths))
    assert all(outcome.value and outcome.value[1][0] == 200 > outcome.value[1][1] for outcome in outcomes)
    assert model.most <= model.pixels
    assert feed.running > 0 and feed.waiting > 0
