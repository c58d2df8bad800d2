"""Measures step 7: the technical score, learned metrics, embeddings, clusters, and the memory of large sets.

Each part runs in a process of its own, so that its peak memory is its own. Networks have random weights: the same
arithmetic, no accuracy. Times are processor seconds where that is said; shared machines blur anything else.

    python bench/quality.py --photos PHOTOS               all parts
    python bench/quality.py technical steps --photos PHOTOS
    python bench/quality.py dbscan labels --files 100000
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

TWO_MEGAPIXELS = (1632, 1224)
LARGER = ((1280, 960), (1600, 1200), (1920, 1280), (2560, 1707))
MIXED = ((320, 240), (512, 384), (384, 512), (640, 427), (768, 512), (1024, 683), (500, 500), (250, 330))


def photos(args: argparse.Namespace) -> list[Path]:
    """The photographs of the folder; without one, the two that come with scikit-learn."""
    if args.photos:
        found = sorted(path for path in args.photos.rglob("*") if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
        return found[: args.limit]
    from sklearn.datasets import load_sample_images

    folder = Path(tempfile.mkdtemp())
    from PIL import Image

    for number, rgb in enumerate(load_sample_images().images):
        Image.fromarray(rgb).save(folder / f"{number}.png")
    return sorted(folder.iterdir())


def technical(args: argparse.Namespace) -> dict[str, Any]:
    """Pictures a processor second on JPEGs of 2 megapixels, decode included; cleanvision's where that is installed."""
    from PIL import Image

    from lib.quality.measure import measure_technical

    folder = Path(tempfile.mkdtemp())
    for number, path in enumerate(photos(args)[:24]):
        with Image.open(path) as image:
            image.convert("RGB").resize(TWO_MEGAPIXELS, Image.Resampling.LANCZOS).save(
                folder / f"{number}.jpg", quality=90
            )
    paths = sorted(folder.iterdir())
    measure_technical(paths[0])
    ours = _rate(lambda: [measure_technical(path) for path in paths], len(paths))
    result: dict[str, Any] = {"pictures": len(paths), "ours, a processor second": round(ours, 1)}
    if theirs := _cleanvision(paths):
        result |= {"cleanvision, a processor second": round(theirs, 1), "ratio": round(ours / theirs, 2)}
    return result


def _rate(work: Callable[[], Any], count: int, times: int = 3) -> float:
    best = 1e9
    for _ in range(times):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return count / best


def _cleanvision(paths: list[Path]) -> float | None:
    """Its five comparable checks, in this process and without its progress bars."""
    try:
        from cleanvision import Imagelab
    except ImportError:
        return None
    checks = ("dark", "light", "odd_aspect_ratio", "low_information", "blurry")

    def run() -> None:
        lab = Imagelab(filepaths=[str(path) for path in paths])
        lab.find_issues({check: {} for check in checks}, n_jobs=1, verbose=False)

    return _rate(run, len(paths), times=1)


def steps(args: argparse.Namespace) -> dict[str, Any]:
    """Whether each stronger step of a distortion scores strictly less on each photograph, and is the named reason.

    The score's constants were chosen on every other photograph by name (of Kodak's 24 and 41 of CID22); `held out` are
    those between them.
    """
    import numpy as np
    from PIL import Image

    from lib.quality.score import judge, quality_of_file
    from lib.quality.signals import measure_signals

    result: dict[str, Any] = {}
    chosen = sorted(photos(args), key=lambda path: path.name)
    held_out = set(chosen[1::2])
    for name, (strengths, distort, reason) in _distortions().items():
        worse, named, named_held_out = 0, Counter(), Counter()
        for path in chosen:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            last, falls = judge(measure_signals(np.asarray(image.convert("L")))).score, True
            for strength in strengths:
                buffer = io.BytesIO()
                changed = distort(image, strength, buffer)
                jpeg = quality_of_file(buffer.getvalue()) if buffer.tell() else None
                verdict = judge(measure_signals(np.asarray(changed.convert("L"))), jpeg)
                falls, last = falls and verdict.score < last, verdict.score
                named[strength] += verdict.reason == reason
                named_held_out[strength] += verdict.reason == reason and path in held_out
            worse += falls
        shares = {
            str(strength): f"{named[strength]}/{len(chosen)}, held out {named_held_out[strength]}/{len(held_out)}"
            for strength in strengths
        }
        result[name] = {"strictly worse": f"{worse}/{len(chosen)}", "named": shares}
    return result


def _distortions() -> dict[str, tuple[tuple[Any, ...], Callable[..., Any], str]]:
    import numpy as np
    from PIL import Image, ImageFilter

    random = np.random.default_rng(1)

    def noise(image: Any, sigma: float, _: Any) -> Any:
        values = np.asarray(image, dtype=np.float32)
        return Image.fromarray((values + random.normal(0, sigma, values.shape)).clip(0, 255).astype(np.uint8))

    def jpeg(image: Any, quality: int, buffer: Any) -> Any:
        image.save(buffer, "JPEG", quality=quality)
        return Image.open(buffer).convert("RGB")

    def upscale(image: Any, factor: float, _: Any) -> Any:
        small = image.resize((round(image.width / factor), round(image.height / factor)), Image.Resampling.LANCZOS)
        return small.resize(image.size, Image.Resampling.BICUBIC)

    return {
        "blur": ((1, 2, 3, 5), lambda i, s, b: i.filter(ImageFilter.GaussianBlur(s)), "blurry"),
        "noise": ((8, 16, 32), noise, "noisy"),
        "jpeg": ((75, 50, 25, 10), jpeg, "blocky"),
        "darkening": ((0.6, 0.4, 0.25), lambda i, s, b: i.point(lambda v: v * s), "dark"),
        "enlarging": ((2, 3, 4), upscale, "upscaled"),
    }


def learned(args: argparse.Namespace) -> dict[str, Any]:
    """MUSIQ and CLIPIQA on the same pixels of mixed sizes, and CLIPIQA over small ones, against pyiqa one by one."""
    import numpy as np
    import torch
    from PIL import Image

    from lib.models.device import keep_memory
    from lib.models.fast_iqa import CachedClipiqa, PackedMusiq

    torch.set_num_threads(args.threads)
    chosen = photos(args)
    rgbs = []
    for number, size in enumerate(MIXED[: args.pictures]):
        with Image.open(chosen[number % len(chosen)]) as image:
            rgbs.append(np.array(image.convert("RGB").resize(size)))
    small = [np.array(Image.fromarray(rgb).resize((224, 224))) for rgb in rgbs]
    parts = {"musiq": (PackedMusiq, rgbs), "clipiqa": (CachedClipiqa, rgbs), "clipiqa at 224": (CachedClipiqa, small)}
    metrics = {name: _untrained(name.split()[0]) for name in parts}
    expected, slow = {}, {}
    for name, (_, pictures) in parts.items():
        batches = [torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255 for rgb in pictures]
        metrics[name](batches[0])
        expected[name], slow[name] = _clocked(lambda: [float(metrics[name](batch)) for batch in batches])  # noqa: B023
    keep_memory("cpu")  # after theirs, since pyiqa's own call does without
    result = {}
    for name, (ours, pictures) in parts.items():
        model = ours(metrics[name].net)
        model(pictures[:1])
        together = len({rgb.shape for rgb in pictures}) == 1 or ours is PackedMusiq
        found, fast = _clocked(
            lambda: list(model(pictures)) if together else [score for rgb in pictures for score in model([rgb])]  # noqa: B023
        )
        difference = max(abs(a - b) for a, b in zip(found, expected[name], strict=True))
        result[name] = {"largest difference": difference} | _compared(slow[name], fast)
    return result


def folder(args: argparse.Namespace) -> dict[str, Any]:
    """The same metrics over files of mixed sizes as a download leaves them: pyiqa's call on each path, and our feed."""
    import torch

    from lib.models.batches import BatchPipeline, looking
    from lib.models.device import keep_memory, pixels_in_batch
    from lib.models.fast_iqa import CachedClipiqa, PackedMusiq
    from lib.models.iqa import Learned, Scale
    from lib.work.stream import Parallelism

    torch.set_num_threads(args.threads)
    paths = _files(args, (*MIXED[::2], *LARGER)[: args.pictures])
    metrics = {name: _untrained(name) for name in ("musiq", "clipiqa")}
    slow = {}
    for name, metric in metrics.items():
        metric(str(paths[0]))
        _, slow[name] = _clocked(lambda: [float(metric(str(path))) for path in paths])  # noqa: B023
    keep_memory("cpu")
    result: dict[str, Any] = {"files": len(paths)}
    for name, metric in metrics.items():
        run = (PackedMusiq if name == "musiq" else CachedClipiqa)(metric.net)
        model = Learned(name, "bench", Scale(0, 1, False), pixels_in_batch("cpu"), run, same_size=name != "musiq")
        run([looking(1024)(paths[0]).rgb])
        feed = BatchPipeline(model, looking(1024), Parallelism())
        outcomes, fast = _fed(feed, paths)
        assert all(outcome.ok for outcome in outcomes)
        result[name] = _compared(slow[name], fast)
    return result


def _clocked(work: Callable[[], Any]) -> tuple[Any, tuple[float, float]]:
    """What the work gives, and the processor and wall seconds that it took in this process."""
    wall, started = time.perf_counter(), time.process_time()
    found = work()
    return found, (time.process_time() - started, time.perf_counter() - wall)


def _fed(feed: Any, paths: Sequence[Path]) -> tuple[list[Any], tuple[float, float]]:
    """The same of a feed: the workers' decoding counts as what it takes in this process; their start is left out."""
    _, (decoding, _) = _clocked(lambda: [feed.look(path) for path in paths])
    outcomes, (running, wall) = _clocked(lambda: list(feed.outcomes(paths)))
    return outcomes, (running + decoding, wall)


def _compared(slow: tuple[float, float], fast: tuple[float, float]) -> dict[str, Any]:
    return {
        "processor s": [round(slow[0], 2), round(fast[0], 2)],
        "ratio, processor": round(slow[0] / fast[0], 2),
        "ratio, wall": round(slow[1] / fast[1], 2),
    }


def _files(args: argparse.Namespace, sizes: Sequence[tuple[int, int]]) -> list[Path]:
    """The photographs as JPEGs of these sizes, in a temporary folder."""
    from PIL import Image

    into, chosen = Path(tempfile.mkdtemp()), photos(args)
    for number, size in enumerate(sizes):
        with Image.open(chosen[number % len(chosen)]) as image:
            image.convert("RGB").resize(size).save(into / f"{number:03}.jpg", quality=90)
    return sorted(into.iterdir())


def _untrained(name: str) -> Any:
    """pyiqa's metric at its full size with random weights."""
    from lib.models.weights import require

    pyiqa = require("pyiqa")
    if name.startswith("musiq"):
        return pyiqa.create_metric(name, device="cpu", pretrained=False)
    from pyiqa.archs import clip_model, clipiqa_arch

    clipiqa_arch.load = lambda *_, **__: (
        clip_model.CLIP(1024, 224, (3, 4, 6, 3), 64, None, 77, 49408, 512, 8, 12).eval().float()
    )
    return pyiqa.create_metric(name, device="cpu", pretrained=False)


def large(args: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of scoring a picture of 12 megapixels by both metrics, through the step's own decode."""
    import torch
    from PIL import Image

    from lib.models.batches import look
    from lib.models.device import keep_memory
    from lib.models.fast_iqa import CachedClipiqa, PackedMusiq

    torch.set_num_threads(args.threads)
    keep_memory("cpu")
    path = Path(tempfile.mkdtemp()) / "large.jpg"
    with Image.open(photos(args)[0]) as image:
        image.convert("RGB").resize((4000, 3000)).save(path, quality=90)
    rgb = look(path, 1024, False).rgb
    PackedMusiq(_untrained("musiq").net)([rgb])
    musiq = _peak()
    CachedClipiqa(_untrained("clipiqa").net)([rgb])
    return {"seen": list(rgb.shape), "peak MB, musiq": musiq, "peak MB, both": _peak()}


def embedding(args: argparse.Namespace) -> dict[str, Any]:
    """CLIP with random weights: files to vectors by our feed, against the usual loop, which takes one at a time.

    The loop is the tutorials': Pillow's full decode, open_clip's own transform, one picture a call, without gradients.
    """
    import open_clip
    import torch
    from PIL import Image

    from lib.models.batches import BatchPipeline
    from lib.models.clip import Clip, shortened, vector_of
    from lib.models.device import keep_memory
    from lib.work.stream import Parallelism

    torch.set_num_threads(args.threads)
    net, _, transform = open_clip.create_model_and_transforms(args.model)
    net.eval()
    config = net.visual.preprocess_cfg
    mean, std = (torch.tensor(config[part]).view(1, 3, 1, 1) for part in ("mean", "std"))
    side = config["size"] if isinstance(config["size"], int) else config["size"][0]
    chosen = {size: _files(args, [size] * args.pictures) for size in ((1024, 768), (2048, 1536), (4000, 3000))}

    def alone(path: Path) -> Any:
        with torch.no_grad():
            return net.encode_image(transform(Image.open(path).convert("RGB"))[None], normalize=True)[0]

    slow: dict[Any, Any] = {}
    for size, paths in chosen.items():
        alone(paths[0])
        slow[size] = _clocked(lambda: {path: alone(path).numpy() for path in paths})  # noqa: B023
    keep_memory("cpu")
    ours = Clip(args.model, "bench", net, None, "cpu", (side, side), "shortest", mean, std, shortened(net, "cpu"))
    ours.run([ours.looking()(chosen[1024, 768][0]).rgb] * args.pictures)
    result: dict[str, Any] = {"arithmetic": str(ours.precision), "pictures of each size": args.pictures}
    for size, paths in chosen.items():
        feed = BatchPipeline(ours, ours.looking(), Parallelism())
        outcomes, fast = _fed(feed, paths)
        alike = min(float(vector_of(one.value[1]) @ slow[size][0][one.item]) for one in outcomes)
        waited = feed.waiting / (feed.waiting + feed.running)
        result[f"{size[0]} x {size[1]}"] = _compared(slow[size][1], fast) | {
            "pictures a second": [round(len(paths) / seconds, 2) for seconds in (slow[size][1][1], fast[1])],
            "least cosine to the loop's": round(alike, 5),
            "share of time waiting for decode": round(waited, 2),
        }
    return result


def dbscan(args: argparse.Namespace) -> dict[str, Any]:
    """DBSCAN of 20,000 unit vectors of 512 dimensions, many small topics and one that is four fifths of the set."""
    import numpy as np

    from lib.sort.criteria.topic import dbscan as run

    random = np.random.default_rng(0)
    result = {}
    for name, sizes in (("many topics", [400] * 40), ("one topic", [16_000])):
        parts = [random.normal(size=512) + random.normal(size=(size, 512)) * 0.35 for size in sizes]
        vectors = np.concatenate([*parts, random.normal(size=(20_000 - sum(sizes), 512))]).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        before, started = _peak(), time.process_time()
        labels = run(vectors, 0.18, 3)
        result[name] = {
            "clusters": int(labels.max()) + 1,
            "noise": int((labels < 0).sum()),
            "processor s": round(time.process_time() - started, 1),
            "peak MB before and after": [before, _peak()],
        }
    return result


def labels(args: argparse.Namespace) -> dict[str, Any]:
    """Peak memory and processor seconds of labels, plan, output, links and page over pictures whose scores are known.

    Hard links to a few files, with made-up digests and scores in the database: no pixel is decoded but for the page.
    """
    result = {}
    for count in (args.files // 10, args.files):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "ws"
            _fill(root, count)
            found = {
                name: _step(root, *words)
                for name, words in {
                    "plan, dry run": ("--dry-run",),
                    "the same, --json": ("--dry-run", "--json"),
                    "the same, --format json": ("--dry-run", "--format", "json"),
                    "labels, links, page": ("--mode", "hardlink"),
                    "other thresholds": ("--mode", "hardlink", "--high", "80"),
                    "nothing new, --json": ("--mode", "hardlink", "--high", "80", "--json"),
                }.items()
            }
            page = root / "reports/sort_quality.html"
            found["page"] = {
                "MB": round(page.stat().st_size / 1e6, 1),
                "tiles": page.read_text(encoding="utf-8").count('"tile"'),
            }
            result[f"{count:,}"] = found
    return result


def _fill(root: Path, count: int) -> None:
    """A workspace of so many contents with technical scores."""
    import hashlib

    from PIL import Image

    from lib.db import open_database
    from lib.quality import TECHNICAL_VERSION

    first = root / "images/first.jpg"
    for number in range(256):
        (root / f"images/{number:02x}").mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize((80, 60)).save(first)
    size = first.stat().st_size
    detail = json.dumps({"width": 80, "height": 60, "format": "jpeg", "worst": "tiny", "traits": {"tiny": 20.0}})
    with open_database(root / "gleaner.db") as db, db.transaction():
        for number in range(count):
            text = f"images/{number % 256:02x}/{number:07}.jpg"
            os.link(first, root / text) if number % 30_000 else _fresh(first, root / text)
            digest = hashlib.sha256(str(number).encode()).hexdigest()
            db.execute(
                "INSERT INTO files (sha256, path, bytes, format, width, height, added_at) VALUES (?, ?, ?, 'jpeg',"
                " 80, 60, '')",
                (digest, text, size),
            )
            db.execute(
                "INSERT INTO scores (sha256, metric, version, value, reason, detail, created_at)"
                " VALUES (?, 'technical', ?, ?, 'tiny', ?, '')",
                (digest, TECHNICAL_VERSION, number % 1000 / 10, detail),
            )


def _step(root: Path, *words: str) -> dict[str, Any]:
    """Runs step 7 by itself and asks the system what that one process took."""
    command = [sys.executable, str(ROOT / "7_sort_quality.py"), "quality", *words, "--workspace", str(root)]
    with open(os.devnull, "w", encoding="utf-8") as nowhere, tempfile.TemporaryFile() as said:
        process = subprocess.Popen([*command, "--workers", "1"], stdout=nowhere, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        said.seek(0)
        assert status == 0, said.read().decode()
    return {"peak MB": usage.ru_maxrss // 1024, "processor s": round(usage.ru_utime + usage.ru_stime, 1)}


def _fresh(source: Path, path: Path) -> None:
    """A file system has a bound on links to one file."""
    path.write_bytes(source.read_bytes())
    os.replace(path, source)
    os.link(source, path)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


PARTS = {
    "technical": technical, "steps": steps, "learned": learned, "folder": folder, "large": large,
    "embedding": embedding, "dbscan": dbscan, "labels": labels,
}  # fmt: skip


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("parts", nargs="*", choices=[*PARTS, []], metavar="PART", help=", ".join(PARTS))
    made.add_argument("--photos", type=Path, metavar="DIR", help="photographs without visible damage")
    made.add_argument("--limit", type=int, default=67, metavar="N", help="photographs used (default: 67)")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, metavar="N", help="threads of torch")
    made.add_argument("--pictures", type=int, default=8, metavar="N", help="pictures of learned, folder and embedding")
    made.add_argument("--model", default="ViT-B-32", metavar="NAME", help="architecture of the part `embedding`")
    made.add_argument("--files", type=int, default=100_000, metavar="N", help="pictures of the part `labels`")
    made.add_argument("--here", action="store_true", help="run the one part in this process")
    args = made.parse_args()
    if args.here:
        print(json.dumps(PARTS[args.parts[0]](args), indent=1))
        return 0
    for part in args.parts or PARTS:
        print(f"{part}: {(PARTS[part].__doc__ or '').strip()}", flush=True)
        rest = [word for word in sys.argv[1:] if word not in PARTS]
        subprocess.run([sys.executable, __file__, part, "--here", *rest], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
