"""Measures step 6 against other finders of repeated pictures, on copies that it makes itself.

    python bench/dedup.py PHOTOS … [--leave-out NAME …] [--bases 80] [--peers PYTHON]

PHOTOS are folders of distinct photographs. `--bases` of them get one copy of every alteration, drawn with a seed and
off any grid. Each of the others becomes one pair of `bench/_originals.py`: an original beside a copy that could take
its place. Then come `--contents` contents on each of the templates of `bench/_templates.py`, and captions with another
digit over photographs: every content is a distinct picture, with three copies of other sizes and qualities of its own.
Each tool then works alone on the very same files, in a process of its own. `--peers` names a Python that has imagededup
(and czkawka); a tool that is missing is said to be missing.

What each does in the time that is measured, its start included:
    gleaner        a dry run: reads every byte (SHA-256), decodes, hashes, searches under 38 views, confirms every pair
                   by its pixels, chooses keepers, prints groups with reasons. It writes neither database nor page
    gleaner-page   the same, kept in the database, and the page with its small pictures
    imagededup     decodes, hashes (64 bits), compares all with all, lists what would go. Importing it loads torch
    czkawka        decodes, hashes, groups; nothing is confirmed, and which file stays is decided here
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import _originals
import _templates

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ["gleaner", "gleaner-page", "imagededup", "czkawka"]
HARMLESS = "jpeg webp resize quarter brightness contrast gamma grey saturation blur sharpen noise palette".split()
# Copies that need not go, as long as the original stays: where nobody can tell, both do.
LARGER = [*_originals.ENLARGED]
EDITED = (
    "crop6 crop12 one-side caption caption-over border rotation mirror upside-down quarter-turn logo watermark montage "
    "tiled covered pixelated blurred-area"
).split() + _originals.GRADED
TEMPLATE_COPY = "template-copy"  # of one content on a template: as harmless as any
COPIES = 3  # of each content
CAPTIONED = 24  # photographs, of those that get no copies


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("photos", nargs="*", type=Path, help="folders of distinct photographs")
    made.add_argument("--leave-out", nargs="*", default=[], metavar="NAME", help="photographs not to use, by file name")
    made.add_argument("--bases", type=int, default=80, help="photographs that get altered copies (default: 80)")
    made.add_argument("--contents", type=int, default=4, help="of every template; 0: no templates (default: 4)")
    made.add_argument("--seed", type=int, default=6, help="of the alterations (default: 6)")
    made.add_argument("--peers", default=sys.executable, help="the Python that has the other tools")
    made.add_argument("--tools", nargs="*", default=TOOLS, help="what to run")
    made.add_argument("--keep", type=Path, metavar="DIR", help="build the files here and leave them there")
    made.add_argument("--repeat", type=int, default=1, help="runs of each tool; the fastest counts (default: 1)")
    made.add_argument("--one", nargs=2, metavar=("TOOL", "DIR"), help=argparse.SUPPRESS)
    args = made.parse_args()
    if args.one:
        print(json.dumps(PEERS[args.one[0]](Path(args.one[1]))))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary) / "truth"
        truth = build(args.photos, folder, set(args.leave_out), args.bases, args.contents, args.seed)
        print(f"{len(truth)} files, {len({t['family'] for t in truth.values()})} distinct pictures")
        for tool in args.tools:
            runs = [measured(tool, folder, args.peers) for _ in range(args.repeat)]
            best = min(runs, key=lambda run: run.get("seconds", 0))
            print(report(tool, best, truth), flush=True)
    return 0


def build(
    photos: list[Path], folder: Path, left_out: set[str], bases: int, contents: int, seed: int
) -> dict[str, dict[str, str]]:
    """Copies the photographs and writes altered copies, then templates; gives file name -> family and alteration."""
    manifest = folder.parent / f"{folder.name}.json"
    if manifest.exists():
        return json.loads(manifest.read_text(encoding="utf-8"))
    folder.mkdir(parents=True)
    files = [p for place in photos for p in sorted(place.iterdir()) if p.suffix.lower() in (".jpg", ".png")]
    files = [p for p in files if p.name not in left_out]
    order = random.Random(seed).sample(files, len(files))
    truth: dict[str, dict[str, str]] = {}
    for number, path in enumerate(order[:bases]):
        family = f"{number:04d}"
        name = f"{family}__original{path.suffix}"
        (folder / name).write_bytes(path.read_bytes())
        truth[name] = {"family": family, "what": "original"}
        for what in HARMLESS + LARGER + EDITED:
            name = altered(path, order[number - 1], folder, family, what, random.Random(f"{seed} {number} {what}"))
            truth[name] = {"family": family, "what": what}
    others = order[bases:]
    under = (
        others[-CAPTIONED:] if contents else []
    )  # photographs of their own: a caption is an edit of what is under it
    truth |= _originals.write(others[: len(others) - len(under)], folder, contents, seed)
    if contents:
        truth |= templated(under, folder, contents, seed)
    manifest.write_text(json.dumps(truth), encoding="utf-8")
    return truth


def templated(photos: list[Path], folder: Path, count: int, seed: int) -> dict[str, dict[str, str]]:
    """Writes contents on templates, each with copies of other sizes and qualities; gives file name -> family, what."""
    from PIL import Image

    truth = {}
    for family, picture in _templates.contents(photos, count, seed):
        luck = random.Random(f"{seed} {family}")
        name = f"{family}__original.jpg"
        picture.save(folder / name, quality=luck.randint(85, 95))
        truth[name] = {"family": family, "what": "original"}
        for copy in range(COPIES):
            factor = luck.uniform(0.4, 1)
            size = [round(side * factor) for side in picture.size] if copy else picture.size
            name = f"{family}__copy{copy}.{luck.choice(('jpg', 'jpg', 'webp'))}"
            picture.resize(size, Image.Resampling.LANCZOS).save(folder / name, quality=luck.randint(25, 90))
            truth[name] = {"family": family, "what": TEMPLATE_COPY}
    return truth


def altered(path: Path, other: Path, folder: Path, family: str, what: str, luck: random.Random) -> str:
    """Writes one altered copy and gives its name."""
    from PIL import Image

    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    if what in LARGER:
        picture, ending, options = _originals.enlarged(picture, luck, what)
        picture.save(folder / f"{family}__{what}.{ending}", **options)
        return f"{family}__{what}.{ending}"
    if what == "montage":
        with Image.open(other) as opened:
            picture = montage(picture, opened.convert("RGB"), luck)
    elif what in EDITED:
        picture = edited(picture, what, luck)
    else:
        picture = harmless(picture, what, luck)
    ending, options = {
        "jpeg": ("jpg", {"quality": luck.randint(10, 85)}),
        "webp": ("webp", {"quality": luck.randint(20, 85)}),
        "palette": ("png", {}),
    }.get(what, ("jpg", {"quality": luck.randint(75, 95)}))
    name = f"{family}__{what}.{ending}"
    picture.save(folder / name, **options)
    return name


def harmless(picture: Any, what: str, luck: random.Random) -> Any:
    """The same picture, re-encoded, resized or retoned."""
    import numpy as np
    from PIL import Image, ImageEnhance, ImageFilter

    def scaled(factor: float) -> Any:
        return picture.resize([max(1, round(side * factor)) for side in picture.size], Image.Resampling.LANCZOS)

    def noisy() -> Any:
        values = np.asarray(picture, np.float32)
        grains = np.random.default_rng(luck.getrandbits(32)).normal(0, luck.uniform(3, 12), values.shape)
        return Image.fromarray((values + grains).clip(0, 255).astype(np.uint8))

    def gamma() -> Any:
        power = luck.uniform(0.7, 1.4)
        return picture.point([int(255 * (v / 255) ** power) for v in range(256)] * 3)

    return {
        "resize": lambda: scaled(luck.uniform(0.27, 0.95)),
        "quarter": lambda: scaled(0.25),
        "brightness": lambda: ImageEnhance.Brightness(picture).enhance(luck.uniform(0.7, 1.3)),
        "contrast": lambda: ImageEnhance.Contrast(picture).enhance(luck.uniform(0.6, 1.4)),
        "gamma": gamma,
        "grey": lambda: picture.convert("L"),
        "saturation": lambda: ImageEnhance.Color(picture).enhance(luck.uniform(0.4, 1.6)),
        "blur": lambda: picture.filter(ImageFilter.GaussianBlur(luck.uniform(0.5, 1.5))),
        "sharpen": lambda: picture.filter(ImageFilter.UnsharpMask(luck.uniform(1, 2), luck.randint(60, 150), 2)),
        "noise": noisy,
        "palette": lambda: picture.quantize(luck.randint(128, 256)),
    }.get(what, lambda: picture)()


def edited(picture: Any, what: str, luck: random.Random) -> Any:
    """Another picture made from this one."""
    from PIL import Image

    if what in _originals.GRADED:
        return _originals.graded(picture, what)
    width, height = picture.size

    def cropped(most: float) -> Any:
        left, top, right, bottom = (luck.uniform(0, most) for _ in range(4))
        return picture.crop(
            (int(width * left), int(height * top), int(width * (1 - right)), int(height * (1 - bottom)))
        )

    def one_side() -> Any:
        sides = [0.0] * 4
        sides[luck.randrange(4)] = luck.uniform(0.03, 0.17)
        left, top, right, bottom = sides
        return picture.crop(
            (int(width * left), int(height * top), int(width * (1 - right)), int(height * (1 - bottom)))
        )

    def bordered() -> Any:
        edge = round(min(picture.size) * luck.uniform(0.02, 0.09))
        colour = luck.choice([(0, 0, 0), (255, 255, 255), (200, 30, 60)])
        made = Image.new("RGB", (width + 2 * edge, height + 2 * edge), colour)
        made.paste(picture, (edge, edge))
        return made

    return {
        "crop6": lambda: cropped(0.06),
        "crop12": lambda: cropped(0.12),
        "one-side": one_side,
        "caption": lambda: captioned(picture, luck, over=False),
        "caption-over": lambda: captioned(picture, luck, over=True),
        "border": bordered,
        "rotation": lambda: picture.rotate(
            luck.choice((-1, 1)) * luck.uniform(0.5, 4), resample=Image.Resampling.BICUBIC
        ),
        "mirror": lambda: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        "upside-down": lambda: picture.transpose(Image.Transpose.ROTATE_180),
        "quarter-turn": lambda: picture.transpose(luck.choice((Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_270))),
        "logo": lambda: stamped(picture, luck),
        "watermark": lambda: watermarked(picture, luck),
        "tiled": lambda: _templates.tiled(picture, luck),
    }.get(what, lambda: _templates.hidden(picture, luck, what))()


def captioned(picture: Any, luck: random.Random, *, over: bool) -> Any:
    """With a bar of words above or below: over the picture, or added to it."""
    from PIL import Image, ImageDraw

    width, height = picture.size
    bar = round(height * luck.uniform(0.05, 0.22))
    below, ground = luck.random() < 0.7, luck.choice([(255, 255, 255), (0, 0, 0)])
    strip = Image.new("RGB", (width, bar), ground)
    ink = tuple(255 - v for v in ground)
    words = " ".join(luck.choice(["when", "the", "cat", "says", "monday", "again", "never"]) for _ in range(6))
    ImageDraw.Draw(strip).text((width * 0.04, bar * 0.2), words, fill=ink, font_size=max(8, bar * 0.5))
    made = Image.new("RGB", (width, height if over else height + bar))
    made.paste(picture, (0, 0 if over or below else bar))
    made.paste(strip, (0, made.height - bar if below else 0))
    return made


def stamped(picture: Any, luck: random.Random) -> Any:
    """With a logo in a corner."""
    from PIL import ImageDraw

    side = min(picture.size) * luck.uniform(0.08, 0.2)
    x = luck.choice([8, picture.width - side - 8])
    y = luck.choice([8, picture.height - side - 8])
    made = picture.copy()
    draw = ImageDraw.Draw(made)
    draw.ellipse([x, y, x + side, y + side], fill=(220, 30, 30))
    draw.rectangle([x + side * 0.3, y + side * 0.3, x + side * 0.7, y + side * 0.7], fill="white")
    return made


def watermarked(picture: Any, luck: random.Random) -> Any:
    """With half-transparent words across."""
    from PIL import Image, ImageDraw

    layer = Image.new("RGBA", picture.size, (0, 0, 0, 0))
    place = (picture.width * luck.uniform(0.05, 0.35), picture.height * luck.uniform(0.2, 0.7))
    size = picture.width * luck.uniform(0.08, 0.13)
    ImageDraw.Draw(layer).text(place, "WATERMARK", fill=(255, 255, 255, luck.randint(110, 170)), font_size=size)
    return Image.alpha_composite(picture.convert("RGBA"), layer).convert("RGB")


def montage(picture: Any, other: Any, luck: random.Random) -> Any:
    """With a part of another photograph pasted in."""
    side = round(min(picture.size) * luck.uniform(0.15, 0.35))
    made = picture.copy()
    place = (round((picture.width - side) * luck.random()), round((picture.height - side) * luck.random()))
    made.paste(other.resize((side, side)), place)
    return made


def measured(tool: str, folder: Path, peers: str) -> dict[str, Any]:
    """What a tool found, with seconds on the clock, seconds of processor time, and the largest process in MB."""
    with tempfile.TemporaryDirectory() as workspace:
        step = [str(ROOT / "6_dedup.py"), "similar", str(folder), "--json", "--workspace", workspace]
        # With the page nothing may be moved: the next tool works on the same files.
        step += ["--dry-run"] if tool == "gleaner" else ["--remove", "none"]
        command = [sys.executable, *step] if tool in TOOLS[:2] else [peers, __file__, "--one", tool, str(folder)]
        started = time.perf_counter()
        # Caches of other tools go to a home of their own, so that none begins with an earlier run's answers.
        environment = {**os.environ, "XDG_CACHE_HOME": workspace, "XDG_CONFIG_HOME": workspace}
        with (
            tempfile.TemporaryFile("w+", encoding="utf-8") as out,
            tempfile.TemporaryFile("w+", encoding="utf-8") as said,
        ):
            process = subprocess.Popen(command, stdout=out, stderr=said, env=environment)
            _, status, usage = os.wait4(process.pid, 0)  # of this process alone, its memory included
            elapsed = time.perf_counter() - started
            answer, words = (stream.seek(0) or stream.read() for stream in (out, said))
    if status:
        return {"missing": (words.strip().splitlines() or ["no answer"])[-1]}
    found = json.loads(answer[answer.index("{") :])
    cpu = usage.ru_utime + usage.ru_stime
    pairs = found["pairs"] if "pairs" in found else list(our_pairs(found))
    return {"pairs": pairs, "seconds": elapsed, "cpu": cpu, "megabytes": usage.ru_maxrss / 1024}


def our_pairs(found: dict[str, Any]) -> Any:
    """(keeper, member, decision) by file name."""
    for group in found["groups"]:
        for member in group["members"]:
            yield Path(group["keeper"]).name, Path(member["path"]).name, member["decision"]


def imagededup(folder: Path) -> dict[str, Any]:
    from imagededup.methods import PHash
    from imagededup.utils.general_utils import get_files_to_remove

    finder = PHash(verbose=False)
    encodings = finder.encode_images(image_dir=str(folder))
    pairs = finder.find_duplicates(encoding_map=encodings, max_distance_threshold=10)
    going = set(get_files_to_remove(pairs))  # what `find_duplicates_to_remove` does after a search of its own
    return {
        "pairs": [
            (one, other, "remove" if other in going and one not in going else "review")
            for one, others in pairs.items()
            for other in others
        ]
    }


def czkawka(folder: Path) -> dict[str, Any]:
    from czkawka import ImageSimilarity

    finder = ImageSimilarity()
    finder.set_directories([str(folder)])
    finder.set_similarity(10)
    pairs = []
    for group in finder.find_similar():
        # Its own default where it deletes: the largest file of a group stays.
        keeper = max(group, key=lambda path: path.stat().st_size)
        pairs += [(keeper.name, path.name, "remove") for path in group if path != keeper]
    return {"pairs": pairs}


PEERS = {"imagededup": imagededup, "czkawka": czkawka}


def report(tool: str, run: dict[str, Any], truth: dict[str, dict[str, str]]) -> str:
    if "missing" in run:
        return f"\n## {tool}: not run ({run['missing']})"
    cost = f"{run['seconds']:.1f} s, {run['cpu']:.1f} s of processor time, {run['megabytes']:.0f} MB"
    if tool == "gleaner-page":  # it finds what the dry run finds
        return f"\n## {tool}\n{cost}"
    score = scored(run["pairs"], truth)
    originals = score["originals"]
    lines = [
        f"\n## {tool}",
        cost,
        f"distinct pictures lost {score['lost']}, removed for another one {score['distinct']}; false pairs: removed"
        f" {score['false_removed']}, shown {score['false_shown']} of {score['strangers']:,}",
        f"unedited ones that go for an edited one {score['taken']}, and grey versions for a graded one"
        f" {score['grey_taken']}; of {score['families']} originals"
        f" {originals.total()} go for a copy, {sum(originals[what] for what in LARGER)} of them for an enlarged one:"
        f" {', '.join(f'{what} {count}' for what, count in originals.most_common()) or 'none'}",
        *(f"removed for another content: {kind} {count}" for kind, count in score["false_kinds"].most_common()),
        "| alteration | files | removable % | found % |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {what} | {files} | {going:.1f} | {found:.1f} |"
        for what, (files, going, found) in score["by_alteration"].items()
    ]
    return "\n".join(lines)


def scored(pairs: list[tuple[str, str, str]], truth: dict[str, dict[str, str]]) -> dict[str, Any]:
    """What share of the copies was found, what was lost, and which pairs are no pairs.

    A copy counts as removable when it goes, or when a file of its family goes in its favour; as found when it is shown
    together with any file of its family. An original is lost when it goes for a copy: counted by what
    that is, as a retoned copy that was better saved is no fault, and an enlarged or marked one is.
    """
    going: set[str] = set()
    taken: set[str] = set()  # a grey version does not tell of which coloured one it is, so these are counted apart
    grey_taken: set[str] = set()
    originals: Counter[str] = Counter()
    distinct: set[str] = set()
    removable: set[str] = set()
    found: set[str] = set()
    false: dict[str, set[frozenset[str]]] = defaultdict(set)
    for one, other, decision in pairs:
        if truth[one]["family"] != truth[other]["family"]:
            false["remove" if decision == "remove" else "shown"].add(frozenset((one, other)))
            distinct |= {other} if decision == "remove" else set()
            continue
        found |= {one, other}
        if decision == "remove":
            removable |= {one, other}
            if truth[other]["what"] == "original":
                originals[truth[one]["what"]] += 1
            if truth[one]["what"] in EDITED and truth[other]["what"] not in EDITED:
                graded = truth[one]["what"] in _originals.GRADED and truth[other]["what"] == "grey"
                (grey_taken if graded else taken).add(other)
    going = {other for _, other, decision in pairs if decision == "remove"}
    left = {t["family"] for name, t in truth.items() if name not in going}
    names = defaultdict(list)
    for name, entry in truth.items():
        names[entry["what"]].append(name)
    families = list(names["original"])
    per_family = defaultdict(int)
    for entry in truth.values():
        per_family[entry["family"]] += 1
    same = sum(n * (n - 1) // 2 for n in per_family.values())
    groups = {what: names[what] for what in [*HARMLESS, TEMPLATE_COPY, *_originals.PAIRS, *EDITED] if names[what]}
    for label, kinds in (("all harmless", HARMLESS), ("all enlarged", LARGER), ("all edited", EDITED)):
        groups[label] = [n for what in kinds for n in names[what]]
    shares = {
        what: (
            len(group),
            *(100 * sum(n in chosen for n in group) / max(1, len(group)) for chosen in (removable, found)),
        )
        for what, group in groups.items()
    }
    return {
        "lost": len({truth[name]["family"] for name in families} - left),
        "distinct": len(distinct),
        "originals": originals,
        "families": len(families),
        "false_removed": len(false["remove"]),
        "false_kinds": Counter(sorted(pair)[0].split("-")[0].split("__")[0] for pair in false["remove"]),
        "taken": len(taken),
        "grey_taken": len(grey_taken),
        "false_shown": len(false["shown"]),
        "strangers": len(truth) * (len(truth) - 1) // 2 - same,
        "by_alteration": shares,
    }


if __name__ == "__main__":
    sys.exit(main())
