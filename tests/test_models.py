"""Learned quality and embeddings with the real architectures under random weights, loaded from files as users do."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import PATIENCE, ROOT, all_rows, as_rows, drawing, dump, flat, load_step, snapshot, touched

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.errors import GleanerError, UsageError
from lib.files.pictures import sha256_of
from lib.models.device import batched
from lib.models.weights import MissingWeights, WeightsFolder, fingerprint

torch = pytest.importorskip("torch", reason="requirements-core.txt leaves the models out")
step = load_step("sort")
SIZES = ((320, 240), (240, 320), (256, 256), (400, 225), (80, 64), (320, 240))
MUSIQ = "musiq_koniq_ckpt-e95806b9.pth"


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights as people would fill it, under the published names: small or random, never trained."""
    from lib.models.weights import require

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
    return flat(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["musiq", "clipiqa"])
def test_our_way_gives_pyiqas_own_scores(name: str, models: Path) -> None:
    """The same pixels through pyiqa's call, one by one, and through ours, all sizes at once."""
    from lib.models.iqa import load
    from lib.models.weights import no_downloads

    rgbs = [np.array(drawing(number, *size)) for number, size in enumerate(SIZES)]
    import pyiqa

    with no_downloads(WeightsFolder(models)):
        theirs = pyiqa.create_metric(name, device="cpu")
    expected = [float(theirs(torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255)) for rgb in rgbs]
    ours = load(name, WeightsFolder(models), "cpu", 1024)
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
    assert told["counts"]["measured"] == 7
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
        assert result(capsys)["counts"]["measured"] == 0


def test_other_weights_are_other_scores(models: Path, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    other = tmp_path / "models"
    other.mkdir()
    state = torch.load(models / MUSIQ)
    state["head.bias"] += 3
    torch.save(state, other / MUSIQ)
    for folder, measured in ((models, 7), (other, 7), (models, 0)):
        assert sort(tmp_path / "ws", "quality", pictures, "--metric", "musiq", "--models-dir", folder, "--json") == 0
        assert result(capsys)["counts"]["measured"] == measured


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


# A process of its own, since what another test has imported already would hide it: pyiqa imports a metric's module, and
# that the packages it needs, when the metric is asked for.
LATE = """
import socket, sys
from support import load_step

def refuse(*_, **__):
    raise AssertionError("the network was asked")

socket.getaddrinfo = refuse
for metric in ("clipiqa", "laion_aes", "nima"):
    print(metric, load_step("sort").main([*sys.argv[1:], "--metric", metric]), file=sys.stderr)
"""


def test_what_a_metric_imports_late_is_local_too(models: Path, pictures: Path, tmp_path: Path) -> None:
    caches = {name: str(tmp_path / name) for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME", "HOME")}
    modules = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    options = [*map(str, ("quality", pictures, "--models-dir", models, "--workspace", tmp_path / "ws"))]
    done = subprocess.run(
        [sys.executable, "-c", LATE, *options, "--workers", "1", "-n"],
        env={**os.environ, **caches, "PYTHONPATH": modules}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "clipiqa 0" in done.stderr
    assert "the weights ViT-L-14.pt are not here" in done.stderr and "laion_aes 2" in done.stderr
    weights = "https://huggingface.co/timm/inception_resnet_v2.tf_in1k/resolve/main/model.safetensors"
    assert f"put that file from {weights} into {models}/timm--inception_resnet_v2.tf_in1k" in done.stderr
    assert "nima 2" in done.stderr
    assert not [path for name in caches for path in (tmp_path / name).rglob("*") if path.is_file()]


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


# Python reads this when it starts, in workers as well: pictures that carry the word kill the process that decodes them.
KILLING_CODEC = """
import os, resource, signal
from PIL import ImageFile

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
load = ImageFile.ImageFile.load

def crash(self):
    if self.info.get("comment") == b"crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return load(self)

ImageFile.ImageFile.load = crash
"""


@pytest.mark.parametrize("criterion", ["quality", "filter"])
def test_a_file_that_kills_its_decoder_is_named_and_all_others_are_judged(
    criterion: str, clip_folder: Path, pictures: Path, tmp_path: Path
) -> None:
    drawing(9).save(pictures / "poison.gif", comment=b"crash")
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook/sitecustomize.py").write_text(KILLING_CODEC)
    how = ["--metric", "piqe,technical"] if criterion == "quality" else ["--keep", "a", "--clip-model", clip_folder]
    step = [sys.executable, ROOT / "7_sort_quality.py", criterion, *how, pictures]
    done = subprocess.run(
        [*step, "--workspace", tmp_path / "ws", "--json"],
        env={**os.environ, "PYTHONPATH": str(tmp_path / "hook")}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = flat(done.stdout)
    found = {Path(entry["path"]).name: entry["reason"] for entry in told["unreadable"]}
    assert found == {"poison.gif": "worker_killed", "broken.jpg": "not_an_image"}
    assert sum(told["buckets"].values()) == len(SIZES)


def test_a_place_knows_our_folder_and_torchs(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    (tmp_path / "torch/hub/pyiqa").mkdir(parents=True)
    (tmp_path / "torch/hub/pyiqa/a.pth").write_bytes(b"torch")
    place = WeightsFolder(tmp_path / "ours")
    assert place.need("a.pth").read_bytes() == b"torch"
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours/a.pth").write_bytes(b"ours")
    assert place.need("a.pth").read_bytes() == b"ours"
    with pytest.raises(MissingWeights, match=r"that file from https://x\.example/y/b\.pth into .*ours"):
        place.need_address("https://x.example/y/b.pth")
    assert issubclass(MissingWeights, UsageError) and issubclass(UsageError, GleanerError)


def test_pictures_reach_a_model_upright_reduced_and_bounded(tmp_path: Path) -> None:
    from lib.models.batches import BatchPipeline, looking

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
    feed = BatchPipeline(model, looking(200))
    outcomes = list(feed.outcomes(paths))
    assert sorted(str(outcome.item) for outcome in outcomes) == sorted(map(str, paths))
    assert all(outcome.value and outcome.value[1][0] == 200 > outcome.value[1][1] for outcome in outcomes)
    assert model.most <= model.pixels
    assert feed.running > 0 and feed.waiting > 0


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of two layers a side, saved and loaded as `local-dir`, the way people bring their own."""
    from lib.models.weights import require

    open_clip = require("open_clip")
    folder = tmp_path_factory.mktemp("clip")
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "interpolation": "bicubic"}
    torch.manual_seed(3)
    net = open_clip.CLIP(**config)
    from safetensors.torch import save_file

    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, folder / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (folder / "open_clip_config.json").write_text(text)
    return folder


@pytest.mark.parametrize("native_bfloat16", [False, True])
def test_embeddings_are_open_clips_own(
    native_bfloat16: bool, clip_folder: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """The same file through open_clip's own transform, one by one, and through the reduced decode and batches."""
    monkeypatch.setattr("lib.models.clip.has_bfloat16", lambda: native_bfloat16)
    import open_clip

    from lib.models.batches import BatchPipeline
    from lib.models.clip import load_clip, vector_of
    from lib.work.stream import Parallelism

    net, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    paths = []
    for number, size in enumerate(((640, 480), (300, 700), (128, 128), (90, 60), (900, 300))):
        paths.append(tmp_path / f"{number}.jpg")
        drawing(number, *size).save(paths[-1], quality=92)
    ours = load_clip(f"local-dir:{clip_folder}", WeightsFolder(tmp_path), "cpu")
    found = {
        o.item: vector_of(o.value[1])
        for o in BatchPipeline(ours, ours.looking(), Parallelism()).outcomes(paths)
        if o.value
    }
    with torch.inference_mode():
        for path in paths:
            theirs = net.eval().encode_image(transform(Image.open(path))[None], normalize=True)[0].numpy()
            assert float(found[path] @ theirs) > 0.998, path.name
    assert ours.precision == (torch.bfloat16 if native_bfloat16 else torch.float32)
    text = ours.text(["a cat", "a dog", "a cat"])
    assert np.allclose(text[0], text[2]) and np.allclose(np.linalg.norm(text, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(640, 480), (300, 701), (64, 64), (90, 40), (1001, 337)])
def test_a_model_sees_what_open_clips_transform_shows_it(size: tuple[int, int], tmp_path: Path) -> None:
    import open_clip

    from lib.models.batches import Seen
    from lib.models.clip import look

    drawing(4, *size).save(tmp_path / "a.png")
    theirs = np.asarray(open_clip.image_transform(64, False, mean=(0, 0, 0), std=(1, 1, 1))(drawing(4, *size)))
    seen = look(tmp_path / "a.png", (64, 64), False)
    assert isinstance(seen, Seen)
    assert np.abs(seen.rgb - theirs.transpose(1, 2, 0) * 255).mean() < 0.1


def test_prompts_filter_and_new_prompts_embed_nothing(
    clip_folder: Path, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    arguments = ("filter", pictures, "--clip-model", clip_folder, "--json")
    (tmp_path / "drop.txt").write_text("# what is not wanted\na floor plan\n\na chart\n")
    assert sort(tmp_path / "ws", *arguments, "--keep", "a room", "--drop-file", tmp_path / "drop.txt") == 0
    told = result(capsys)
    assert told["counts"]["measured"] == 7 and sum(told["buckets"].values()) == 6
    for path in (tmp_path / "ws/sorted/filter").glob("*/metadata.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            assert (record["score"] >= 0) == (record["label"] == "keep")
            assert record["reason"].startswith("'a room' ") and "margin" in record["reason"]
    flags_first = ("filter", "--keep", "a tree", "--margin", "2", *arguments[2:], pictures)
    assert sort(tmp_path / "ws", *flags_first) == 0
    told = result(capsys)
    assert told["counts"]["measured"] == 0 and told["buckets"] == {"drop": 6}
    (tmp_path / "labels.txt").write_text("indoor: a room | a hall\noutdoor\ndrawing/plan: a plan\n")
    assert sort(tmp_path / "ws", *arguments, "--labels", tmp_path / "labels.txt") == 0
    told = result(capsys)
    assert told["counts"]["measured"] == 0
    assert set(told["buckets"]) <= {"indoor", "outdoor", "drawing_plan"}


def test_filters_with_names_stand_side_by_side(clip_folder: Path, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    workspace = tmp_path / "ws"

    def filtered(*arguments: object, measured: int = 0) -> dict[str, int]:
        assert sort(workspace, "filter", pictures, "--clip-model", clip_folder, "--json", *arguments) == 0
        told = result(capsys)
        assert told["counts"]["measured"] == measured
        buckets: dict[str, int] = told["buckets"]
        return buckets

    def files(name: str) -> dict[str, Any]:
        reports = {path.name: path.read_bytes() for path in (workspace / "reports").glob(f"sort_{name}.*")}
        return snapshot(workspace / "sorted" / name) | {key: bytes(value).hex() for key, value in reports.items()}

    def labels(name: str) -> list[Any]:
        sql = f"SELECT sha256, label, score, reason, run_id FROM labels WHERE criterion = '{name}' ORDER BY 1"
        return as_rows(workspace / "gleaner.db", sql)

    assert filtered("--keep", "a tree", "--margin", "-2", measured=7) == {"keep": 6}
    assert filtered("--name", "indoor", "--keep", "a room", "--margin", "-2") == {"keep": 6}  # embeds nothing anew
    assert filtered("--name", "clutter_2", "--keep", "a room", "--drop", "a heap") != {}
    names = ("filter", "filter_indoor", "filter_clutter_2")
    before = {name: (files(name), labels(name)) for name in names}
    assert all(len(labels(name)) == 6 and len(files(name)) > 6 for name in names)
    assert {path.name for path in (workspace / "sorted").iterdir()} == set(names)
    assert filtered("--name", "indoor", "--keep", "a room", "--margin", "2") == {"drop": 6}
    after = {name: (files(name), labels(name)) for name in names}
    assert after["filter_indoor"] != before["filter_indoor"] and set(files("filter_indoor")) & {"drop/"}
    assert all(after[name] == before[name] for name in ("filter", "filter_clutter_2"))

    def chosen(condition: str) -> int:
        assert sort(workspace, "orientation", pictures, "--where", condition, "--json", "-n") == 0
        return sum(result(capsys)["buckets"].values())

    assert chosen("filter:indoor = drop and filter = keep") == 6 and chosen("FILTER:Indoor = keep") == 0
    assert chosen("filter_indoor.score < 2 and filter:indoor.reason like '%margin%'") == 6
    assert chosen("not filter:clutter_2 is null") == 6
    assert sort(workspace, "orientation", pictures, "--where", "filter:indor = keep", "-n") == 2
    said = capsys.readouterr().err
    assert "knows no 'filter:indor'; filters with a name are filter:clutter_2, filter:indoor." in said
    assert "Did you mean 'filter:indoor'?" in said
    assert sort(workspace, "export", pictures, "--label", "filter:indoor", "--to", tmp_path / "set") == 0
    made = [json.loads(line) for path in (tmp_path / "set").rglob("metadata.jsonl") for line in path.open()]
    assert {line["label_filter_indoor"] for line in made} == {"drop"} and "label_filter_clutter_2" in made[0]


@pytest.mark.parametrize("name", ["In door", "a/b", "a:b", "../x", "", "Küche", "x" * 41, "-a", "a.b", "Indoor"])
def test_a_filter_is_named_by_what_is_a_folder_everywhere(
    name: str, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    arguments = ["filter", str(pictures), f"--name={name}", "--keep", "a", "--workspace", str(tmp_path / "ws")]
    with contextlib.suppress(SystemExit):
        assert step.main(arguments) == 2
    said = capsys.readouterr().err
    assert ("no name for a filter" in said or "is empty" in said) and not (tmp_path / "ws").exists()
    assert ("such as indoor" in said) == (name == "Indoor")
    with contextlib.suppress(SystemExit):
        assert step.main(["orientation", str(pictures), "--name", "a", "--workspace", str(tmp_path / "ws")]) == 2
    assert "--name belongs to filter, not to orientation" in capsys.readouterr().err


def with_queries(root: Path, clusters: int = 3) -> Path:
    """A workspace whose pictures two searches found: one by words, one by a picture that lies beside it."""
    (root / "images").mkdir(parents=True)
    drawing(0, 200, 200).save(root / "query.png")
    with open_database(root / "gleaner.db") as db:
        db.execute(
            "INSERT INTO queries (id, engine, kind, text, image_sha256, image_path, created_at, updated_at) VALUES"
            " (1, 'yandex', 'keyword', 'озеро', '', '', '', ''), (2, 'yandex', 'image', '', 'q', 'query.png', '', '')"
        )
        for number in range(8 * clusters):
            noisy = np.asarray(drawing(number % clusters, 200, 200), dtype=np.int16)
            noisy = noisy + np.random.default_rng(number).integers(-12, 13, noisy.shape)
            path = root / f"images/{number:02}.png"
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(path)
            sha256 = sha256_of(path)
            add_file(db, FileRow(sha256, f"images/{number:02}.png", path.stat().st_size, "png", 200, 200))
            db.execute("INSERT INTO images (key, engine, first_seen_at) VALUES (?, 'yandex', '')", (f"y:{number}",))
            db.execute(
                "INSERT INTO downloads (image_id, state, sha256, updated_at) VALUES (?, 'done', ?, '')",
                (number + 1, sha256),
            )
            query = 1 if number < 2 else 2
            db.execute("INSERT INTO results (query_id, image_id, rank) VALUES (?, ?, 0)", (query, number + 1))
    return root


def test_likeness_to_the_query_picture(clip_folder: Path, tmp_path: Path, capsys: Any, caplog: Any) -> None:
    workspace = with_queries(tmp_path / "ws")
    assert sort(workspace, "filter", "--near-query", "0.999", "--clip-model", clip_folder, "--json") == 0
    told = result(capsys)
    kept = {Path(a["source"]).name: a["reason"] for a in told["actions"] if "/keep/" in a["target"]}
    assert set(kept) <= {f"{number:02}.png" for number in range(0, 24, 3)} and len(kept) >= 6
    assert all("like the query picture" in reason for reason in kept.values())
    reasons = {Path(a["source"]).name: a["reason"] for a in told["actions"]}
    assert reasons["00.png"] == "found by no query picture"


def test_topics_are_ranked_by_the_query_and_not_by_size(clip_folder: Path, tmp_path: Path, capsys: Any) -> None:
    workspace = with_queries(tmp_path / "ws")
    arguments = ("topic", "--clip-model", clip_folder, "--eps", "0.002", "--topic-top", "1")
    assert sort(workspace, *arguments, "--json") == 0
    told = result(capsys)
    by_picture = [cluster for cluster in told["clusters"] if cluster["query"] == "query 2"]
    assert len(by_picture) == 3 and [cluster["kept"] for cluster in by_picture] == [True, False, False]
    assert by_picture[0]["picture"] > by_picture[1]["picture"] and by_picture[0]["words"] is None
    kept = {Path(a["source"]).name for a in told["actions"] if "/on_topic/" in a["target"]}
    assert kept == {f"{number:02}.png" for number in range(3, 24, 3)}
    assert (workspace / "reports/sort_topic_clusters.html").exists()
    before = dump(workspace / "gleaner.db")
    assert sort(workspace, *arguments) == 0
    assert dump(workspace / "gleaner.db") == before
    said = capsys.readouterr().out
    assert "eps 0.002 as given, ranked by picture" in said and "keep   query 2 1: 7 pictures" in said


def test_clusters_of_one_text_on_two_engines_are_told_apart_and_count_a_picture_once(
    clip_folder: Path, tmp_path: Path, capsys: Any
) -> None:
    workspace = with_queries(tmp_path / "ws")
    with open_database(workspace / "gleaner.db") as db:
        db.execute("UPDATE queries SET text = 'lake', kind = 'keyword', image_sha256 = '' WHERE id = 2")
        db.execute(
            "INSERT INTO queries (id, engine, kind, text, image_sha256, image_path, created_at, updated_at)"
            " VALUES (3, 'bing', 'keyword', 'lake', '', '', '', '')"
        )
        db.execute(
            "INSERT INTO results (query_id, image_id, rank) SELECT 3, image_id, 0 FROM results WHERE query_id = 2"
        )
    arguments = ("topic", "--clip-model", clip_folder, "--eps", "0.002")
    before = snapshot(workspace)
    assert sort(workspace, *arguments, "--dry-run", "--page", tmp_path / "look.html") == 0
    assert snapshot(workspace) == before
    assert sort(workspace, *arguments) == 0
    said = capsys.readouterr().out
    assert "lake (yandex) 1: 7 pictures" in said and "lake (bing) 1: 7 pictures" in said
    for page in (tmp_path / "look_clusters.html", workspace / "reports/sort_topic_clusters.html"):
        html = page.read_text("utf-8")
        titles = re.findall(r"<h2[^>]*><bdi>(.*?)</bdi>", html)
        assert sorted(titles) == sorted(f"lake ({engine}) {n}" for engine in ("bing", "yandex") for n in (1, 2, 3))
        names = re.findall(r'data-name="([^"]+)"', html)
        assert len(names) == len(set(names)) == 22, "each picture of both searches is shown once"
        assert "pictures are shown" not in html and html.count("shown above") == 3


def test_a_dry_run_with_models_writes_nothing(clip_folder: Path, tmp_path: Path, capsys: Any) -> None:
    workspace = with_queries(tmp_path / "ws")
    before = snapshot(workspace)
    assert sort(workspace, "topic", "--clip-model", clip_folder, "-n", "-v") == 0
    assert sort(workspace, "filter", "--near-query", "0", "--clip-model", clip_folder, "-n") == 0
    assert snapshot(workspace) == before
    assert "would copy  images/03.png -> sorted/" in capsys.readouterr().out


def test_a_prompt_of_another_script_suggests_a_multilingual_model(caplog: Any, tmp_path: Path) -> None:
    from lib.sort.criteria.prompts import PromptFilter

    criterion = PromptFilter("default", WeightsFolder(tmp_path), keep=["озеро"])
    criterion.loaded.append(SimpleNamespace(multilingual=False))  # type: ignore[arg-type]
    criterion.preflight()
    assert "--clip-model multilingual" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["filter"], "say what to filter by"),
        (["filter", "--keep", "a", "--labels", "x"], "x cannot be read"),
        (["filter", "--keep", "a"], "put that file from https://huggingface.co/laion/"),
        (["filter", "--keep", "a", "--clip-model", "ViT-B-32/nothing"], "after ViT-B-32/ come: openai"),
        (["filter", "--keep", "a", "--clip-model", "local-dir:/nowhere"], "/nowhere holds no open_clip model"),
        (["topic", "--clip-model", "multilingual"], "ViT-B-32-SigLIP2-256"),
    ],
)
def test_what_a_criterion_lacks_is_said(
    arguments: list[str], sentence: str, pictures: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with _no_network():
        assert sort(tmp_path / "ws", *arguments[:1], pictures, *arguments[1:], "--models-dir", tmp_path) == 2
    assert sentence in capsys.readouterr().err


AT_ONCE = """
import sys
from support import load_step
for words in ("filter --keep a", "topic --clip-model best", "objects", "quality --metric combined"):
    criterion, *options = words.split()
    assert load_step("sort").main([criterion, *sys.argv[1:], *options]) == 2, words
    assert "torch" not in sys.modules, words
"""


def test_the_usual_weights_are_missed_before_torch_is_imported(pictures: Path, tmp_path: Path) -> None:
    caches = {name: str(tmp_path / name) for name in ("TORCH_HOME", "XDG_CACHE_HOME", "HF_HOME")}
    modules = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    options = [pictures, "--models-dir", tmp_path / "m", "--workspace", tmp_path / "ws"]
    done = subprocess.run(
        [sys.executable, "-c", AT_ONCE, *options],
        env={**os.environ, **caches, "PYTHONPATH": modules}, capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stderr.strip().splitlines()
    assert len(said) == 4 and all(f"{tmp_path}/m" in line and "put that file from https://" in line for line in said)


def test_what_is_known_of_usual_models_is_what_their_packages_say() -> None:
    from torchvision.models import get_model_weights

    from lib.models import clip, detector
    from lib.models.weights import require

    for name, hub in clip.HUBS.items():
        assert require("open_clip").get_pretrained_cfg(*name.split("/"))["hf_hub"] == hub
    for name, url in detector.KNOWN_FILES.items():
        assert get_model_weights(name).DEFAULT.url == url


def test_the_words_of_a_multilingual_model_come_from_the_models_folder(tmp_path: Path, monkeypatch: Any) -> None:
    """Under the architecture's own settings; the words themselves are a few of ours."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    from lib.models.clip import HUBS, NAMED, look_for_weights, tokenizer_of

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    architecture = NAMED["multilingual"].partition("/")[0]
    folder = tmp_path / HUBS[NAMED["multilingual"]].rstrip("/").replace("/", "--")
    folder.mkdir()
    (folder / "open_clip_model.safetensors").touch()
    with _no_network(), pytest.raises(MissingWeights, match=r"the weights tokenizer\.json are not here"):
        tokenizer_of(architecture, WeightsFolder(tmp_path))
    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1, "красная": 2, "панда": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    words.save(str(folder / "tokenizer.json"))
    with pytest.raises(MissingWeights, match=r"tokenizer_config\.json"):
        look_for_weights("multilingual", WeightsFolder(tmp_path))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    look_for_weights("multilingual", WeightsFolder(tmp_path))
    with _no_network():
        seen = tokenizer_of(architecture, WeightsFolder(tmp_path))(["Красная панда!"])
    assert seen.shape == (1, 64) and seen[0, :3].tolist() == [2, 3, 0]  # SigLIP 2 reads small letters without marks


def blobs(*counts: int, noise: int = 0, spread: float = 0.25, seed: int = 0) -> np.ndarray:
    """Unit vectors around as many random directions, and some of no direction: float32 (n, 48)."""
    random = np.random.default_rng(seed)
    parts = [random.normal(size=48) + random.normal(size=(count, 48)) * spread for count in counts]
    vectors = np.concatenate([*parts, random.normal(size=(noise, 48))]).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("eps", [0.02, 0.06, 0.12, 0.5])
@pytest.mark.parametrize("sizes", [(40, 30, 5), (300,), (2, 2, 2)])
def test_the_blocked_way_is_scikit_learns(sizes: tuple[int, ...], eps: float, monkeypatch: Any) -> None:
    from sklearn.cluster import DBSCAN

    from lib.sort.criteria import topic as clusters

    monkeypatch.setattr(clusters, "BLOCK", 16)
    vectors = blobs(*sizes, noise=20)
    fitted = DBSCAN(eps=float(np.sqrt(2 * eps)), min_samples=3).fit(vectors)
    theirs, core = fitted.labels_, np.isin(np.arange(len(vectors)), fitted.core_sample_indices_)
    ours, own_core = clusters._blocked(vectors, eps, 3)
    assert (core == own_core).all()
    assert (theirs[core] == ours[core]).all() or len(
        set(zip(theirs[core], ours[core], strict=True))
    ) == theirs.max() + 1
    assert ((theirs == -1) == (ours == -1)).all()  # a border may belong to either of two clusters; noise may not


def test_large_sets_join_the_clusters_of_a_sample(monkeypatch: Any) -> None:
    from lib.sort.criteria import topic as clusters

    monkeypatch.setattr(clusters, "EXACT", 200)
    vectors = blobs(400, 300, noise=40, spread=0.15)
    labels = clusters.dbscan(vectors, 0.15, 3)
    assert set(labels[:400]) == {0} and set(labels[400:700]) == {1}
    assert (labels[700:] == -1).mean() > 0.9


def test_eps_is_found_between_clusters_and_noise() -> None:
    from lib.sort.criteria.topic import LEAST_EPS, MOST_OF_MEDIAN, dbscan, suggested_eps

    vectors = blobs(60, 50, 40, noise=60, spread=0.3)
    eps, _ = suggested_eps(vectors, 3)
    assert LEAST_EPS <= eps <= MOST_OF_MEDIAN * 1.1  # distances of what has nothing in common are about 1
    assert dbscan(vectors, eps, 3).max() == 2
    assert suggested_eps(vectors[:2], 3)[1] == "at 0.65 of the median distance"
    assert suggested_eps(vectors[:1], 3)[0] == LEAST_EPS


@pytest.mark.parametrize("spread", [0.15, 0.6, 0.8])
def test_eps_follows_the_distances_of_the_model(spread: float) -> None:
    """Models spread their pictures differently: at a spread of 0.8 those of one thing lie 0.4 apart."""
    from lib.sort.criteria.topic import MOST_OF_MEDIAN, dbscan, suggested_eps

    vectors = blobs(60, 40, noise=0, spread=spread)
    eps, _ = suggested_eps(vectors, 3)
    numbers = dbscan(vectors, eps, 3)
    assert len(set(numbers[:60]) - {-1}) == len(set(numbers[60:]) - {-1}) == 1 and numbers[0] != numbers[-1]
    assert (numbers == -1).mean() < 0.1
    median = float(np.median((1 - vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]))
    assert eps <= MOST_OF_MEDIAN * median + 1e-6


def test_a_clipped_eps_is_said() -> None:
    from lib.sort.criteria.topic import suggested_eps

    # Pictures of nothing in common, and a repeat of one: the bend lies where all are neighbours.
    rng = np.random.default_rng(4)
    vectors = rng.normal(size=(80, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    eps, how = suggested_eps(vectors, 3)
    median = float(np.median((1 - vectors @ vectors.T)[np.triu_indices(80, 1)]))
    assert eps == pytest.approx(0.65 * median, rel=1e-4)
    assert how.startswith("by the knee at 0.") and how.endswith(", clipped to 0.65 of the median distance")


@pytest.mark.parametrize("size", [(3000, 2000), (2000, 3000), (1601, 333), (90, 60), (1200, 1200)])
@pytest.mark.parametrize(
    "name",
    ["fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn_v2", "ssdlite320_mobilenet_v3_large"],
)
def test_a_detector_sees_the_size_that_its_own_transform_makes(name: str, size: Any, tmp_path: Path) -> None:
    from torchvision.models import get_model

    from lib.models.detector import bounds_of, look

    net = get_model(name, weights=None, weights_backbone=None, num_classes=3).eval()
    drawing(3, *size).save(tmp_path / "one.jpg", quality=95)
    seen = look(tmp_path / "one.jpg", bounds_of(net))
    whole = torch.from_numpy(np.array(Image.open(tmp_path / "one.jpg"))).permute(2, 0, 1).float() / 255
    given = torch.from_numpy(np.array(seen.rgb)).permute(2, 0, 1).float() / 255  # type: ignore[union-attr]
    wanted, found = (net.transform([image])[0].image_sizes[0] for image in (whole, given))
    assert np.abs(np.subtract(wanted, found)).max() <= 1
    # Never less than the network takes in, and no more than twice.
    if bounds_of(net)[1]:
        assert max(given.shape[1:]) >= min(max(size), max(wanted)) - 1
        assert max(given.shape[1:]) <= max(wanted) + 1
    else:
        assert min(given.shape[1:]) >= min(min(size), *wanted) - 1
    shown = net.transform([given])[0].tensors[0, :, : wanted[0], : wanted[1]]
    asked = net.transform([whole])[0].tensors[0, :, : wanted[0], : wanted[1]]
    assert float((shown - asked).abs().mean()) < 0.2  # of a standard deviation: what antialiasing takes off


@pytest.mark.parametrize("size", [(2999, 2003), (1777, 5001), (4096, 4095)])
def test_the_crop_of_a_reduced_picture_is_that_of_the_file(size: tuple[int, int], tmp_path: Path) -> None:
    """A ramp across and one down, whose levels tell the places of the crop."""
    from lib.models.clip import look

    ramp = np.zeros((size[1], size[0], 3), np.uint8)
    ramp[..., 0] = np.linspace(0, 255, size[0])[None, :]
    ramp[..., 1] = np.linspace(0, 255, size[1])[:, None]
    image = Image.fromarray(ramp)
    image.save(tmp_path / "ramp.jpg", quality=98, subsampling=0)
    image.save(tmp_path / "ramp.png")
    reduced, exact = (look(tmp_path / name, (32, 32), False).rgb for name in ("ramp.jpg", "ramp.png"))  # type: ignore[union-attr]
    assert np.abs(reduced.astype(int) - exact.astype(int))[..., :2].max() <= 2


@pytest.fixture(scope="session")
def detector_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's smallest detector with random weights that lean towards persons, under its published name."""
    from torchvision.models import detection

    folder = tmp_path_factory.mktemp("detector")
    torch.manual_seed(5)
    net = detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91)
    with torch.no_grad():
        for name, parameter in net.head.classification_head.named_parameters():
            if name.endswith("bias") and parameter.numel() % 91 == 0:
                parameter.view(-1, 91)[:, 1] = 6.0
    torch.save(net.state_dict(), folder / "ssdlite320_mobilenet_v3_large_coco-a79551df.pth")
    return folder


def test_objects_are_counted_and_new_rules_detect_nothing(
    detector_folder: Path, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    name = "ssdlite320_mobilenet_v3_large"
    arguments = ("objects", pictures, "--detector", name, "--models-dir", detector_folder, "--json")
    assert sort(tmp_path / "ws", *arguments, "--classes", "person") == 0
    told = result(capsys)
    assert told["buckets"] == {"keep": 6} and told["counts"]["measured"] == 7
    assert all(action["reason"].endswith(" person") for action in told["actions"])
    for extra in (("--classes", "dog"), ("--max-objects", "2"), ("--min-confidence", "1")):
        assert sort(tmp_path / "ws", *arguments, *extra) == 0
        told = result(capsys)
        assert told["buckets"] == {"drop": 6} and told["counts"]["measured"] == 0
    assert sort(tmp_path / "ws", *arguments, "--classes", "persom") == 2
    assert "knows no class 'persom'; near are: person" in json.loads(capsys.readouterr().out)["result"]["error"]
    assert sort(tmp_path / "ws", "objects", pictures, "--models-dir", tmp_path) == 2
    assert "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth" in capsys.readouterr().err


POLICY = """
import sys, os, json
from pathlib import Path
import lib
from lib.work.stream import stream
import policy_probe
if __name__ == "__main__":
    own = policy_probe.policy("")
    worker, = [one.value for one in stream(policy_probe.policy, [""], executor="processes")]
    print(json.dumps([own, worker, "numpy" in sys.modules]))
"""
PROBE = """
import os
def policy(_):
    return os.environ.get("OMP_WAIT_POLICY")
"""


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE"), ("", "")])
def test_waiting_threads_sleep_in_this_process_and_its_workers(given: Any, policy: str, tmp_path: Path) -> None:
    """It is set before anything that could load OpenMP; what a user has set stays."""
    (tmp_path / "policy_probe.py").write_text(PROBE)
    (tmp_path / "ask.py").write_text(POLICY)
    env = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    env |= {"PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))}
    env |= {"OMP_WAIT_POLICY": given} if given is not None else {}
    done = subprocess.run(
        [sys.executable, str(tmp_path / "ask.py")], env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    assert json.loads(done.stdout or "[]") == [policy, policy, False], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux")
def test_workers_of_the_technical_score_keep_their_memory(tmp_path: Path) -> None:
    """The pages that a worker asks the system for: with its memory kept only the first picture costs many."""
    drawing(1, 1600, 1200).save(tmp_path / "one.jpg")
    faults = []
    for prepared in ("None", "Quality(None).prepare()"):
        script = f"""
import resource
from pathlib import Path
from lib.quality.measure import measure_technical
from lib.sort.criteria.quality import Quality
{prepared}
path = Path({str(tmp_path / "one.jpg")!r})
measure_technical(path)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
values = [measure_technical(path) for _ in range(4)]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        faults.append(int(done.stdout))
    assert faults[1] < faults[0] / 4


@pytest.mark.parametrize("criterion", ["quality", "filter", "topic", "objects"])
def test_a_second_run_of_a_model_writes_nothing(
    criterion: str, request: pytest.FixtureRequest, pictures: Path, tmp_path: Path
) -> None:
    """Neither files, also for a moment, nor rows but the run's own; the clusters' page is not made again either."""
    workspace, options = tmp_path / "ws", list[Any]()
    if criterion == "quality":
        options = ["--metric", "musiq", "--models-dir", request.getfixturevalue("models")]
    elif criterion == "objects":
        folder = request.getfixturevalue("detector_folder")
        options = ["--detector", "ssdlite320_mobilenet_v3_large", "--models-dir", folder, "--classes", "person"]
    else:
        options = ["--clip-model", request.getfixturevalue("clip_folder")]
        options += ["--keep", "a room"] if criterion == "filter" else ["--eps", "0.002", "--topic-top", "1"]
    where = [] if criterion == "topic" else [pictures]
    if criterion == "topic":
        with_queries(workspace)
    assert sort(workspace, criterion, *where, *options) == 0
    before, rows = touched(workspace), all_rows(workspace / "gleaner.db")
    assert sort(workspace, criterion, *where, *options) == 0
    assert touched(workspace) == before and all_rows(workspace / "gleaner.db") == rows
