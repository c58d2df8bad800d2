"""The list of the gallery's pictures: which scene each shows, how altered, where it lies, how that place behaves.

Only plans are made here, from the seed alone; `demo.darkroom` makes the bytes when somebody asks for them.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field

from demo import alterations
from demo.alterations import ALTERATIONS, ORIGINAL, Alteration
from demo.scenes import PHOTOGRAPHS, Scene, plan_scenes
from demo.words import ENDINGS, FAMILIES, INVENTED

# How many pictures the scenes give, in turn: singles, pairs, and a few families of near-duplicates.
FAMILY_SIZES = (6, 1, 3, 2, 5, 1, 2, 9, 1, 4, 1, 3)
THUMB_SIDE = 320
PREVIEW_SIDE = 900

# What goes wrong with an original's address, and in how many pictures of a hundred (at least one of each).
TROUBLES: dict[str, float] = {
    "slow": 3.0,  # answers after a second
    "missing": 4.0,  # 404
    "referer": 4.0,  # 403 to a request without Referer
    "flaky": 3.0,  # 500 the first time
    "html": 2.0,  # a page instead of the picture, HTTP 200, image/jpeg
    "truncated": 2.0,  # half of the bytes that Content-Length promises
    "gone": 2.0,  # redirected to the "picture removed" placeholder
    "octet": 2.0,  # sound, as application/octet-stream
    "misnamed": 2.0,  # sound, but the name says .png and the bytes are something else
    "closed": 0.4,  # sound, but the host's robots.txt disallows it
    "noai": 0.4,  # X-Robots-Tag: noai on every copy
    "huge": 0.4,  # Content-Length of ten gigabytes
    "dead": 0.4,  # no copy answers, not even the thumbnail
}


@dataclass(frozen=True)
class Address:
    """One place where a rendition of a picture is (said to be) served."""

    host: int  # index into the gallery's picture hosts
    path: str
    kind: str  # original, preview, dup
    size: tuple[int, int]
    trouble: str = ""


@dataclass(frozen=True)
class Picture:
    """One picture as a search engine would list it."""

    number: int
    id: str  # 32 hex digits
    scene: Scene
    alteration: Alteration
    size: tuple[int, int]
    title: str
    tags: tuple[str, ...]
    page_url: str
    trouble: str
    original: Address
    preview: Address | None
    dups: tuple[Address, ...]
    claimed: tuple[int, int]  # what the engine says; now and then a lie
    quirks: frozenset[str] = field(default_factory=frozenset)

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (self.original, *((self.preview,) if self.preview else ()), *self.dups)

    @property
    def animated(self) -> bool:
        return self.alteration.encoding == "gif-animated"


def digest(text: str, length: int = 32) -> str:
    """`length` hex digits that follow from `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def shrunk(size: tuple[int, int], side: int) -> tuple[int, int]:
    """`size` fitted into a square of `side` pixels, never enlarged."""
    share = min(1.0, side / max(size))
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def build_catalog(seed: int, count: int, hosts: int, *, troubled: bool = True) -> list[Picture]:
    """`count` pictures in a fixed order; `troubled=False` gives a web where everything works."""
    pairs = _families(seed, count)
    troubles = _spread_troubles(seed, pairs) if troubled else {}
    return [
        _picture(seed, number, scene, change, troubles.get(number, ""), hosts)
        for number, (scene, change) in enumerate(pairs)
    ]


def _families(seed: int, count: int) -> list[tuple[Scene, Alteration]]:
    """Each scene with its alterations, the untouched one first."""
    sizes: list[int] = []
    while sum(sizes) < count:
        sizes.append(FAMILY_SIZES[len(sizes) % len(FAMILY_SIZES)])
    pairs: list[tuple[Scene, Alteration]] = []
    given = 0
    for scene, size in zip(plan_scenes(seed, len(sizes)), sizes, strict=True):
        pairs.append((scene, ORIGINAL))
        for _ in range(size - 1):
            pairs.append((scene, _fitting(ALTERATIONS[given % len(ALTERATIONS)], scene)))
            given += 1
    del pairs[count:]
    altered = [i for i, (scene, change) in enumerate(pairs) if change.name not in ("original", "copy")]
    for place, special in ((2, alterations.CMYK), (6, alterations.ANIMATED)):
        if len(altered) > place:
            pairs[altered[place]] = (pairs[altered[place]][0], special)
    return pairs


def _fitting(change: Alteration, scene: Scene) -> Alteration:
    """Nobody doubles a three-megapixel picture or quarters an avatar: they get a plain recompression instead."""
    w, h = change.size(scene.size)
    return ALTERATIONS[0] if w * h > 3_200_000 or min(w, h) < 120 else change


def _spread_troubles(seed: int, pairs: list[tuple[Scene, Alteration]]) -> dict[int, str]:
    rng = random.Random(f"troubles {seed}")
    free = [
        number
        for number, (_, change) in enumerate(pairs)
        if change.name != "copy" and not change.encoding.startswith("gif")
    ]
    rng.shuffle(free)
    found: dict[int, str] = {}
    for trouble, share in TROUBLES.items():
        for _ in range(max(1, round(len(pairs) * share / 100))):
            if free:
                found[free.pop()] = trouble
    return found


def _picture(seed: int, number: int, scene: Scene, change: Alteration, trouble: str, hosts: int) -> Picture:
    rng = random.Random(f"picture {seed} {number}")
    size = change.size(scene.size)
    title = scene.title + rng.choice(ENDINGS).format(n=number)
    home = rng.randrange(hosts)
    original = Address(home, _path(rng, scene, number, size, change, trouble), "original", size, trouble)
    quirks = _quirks(rng, trouble)
    claimed = (size[0] * 2, size[1] * 2) if "lie" in quirks else size
    preview, dups = _copies(rng, number, size, hosts, home, trouble, quirks)
    photo = ("photo",) if scene.kind in PHOTOGRAPHS else ("drawing",)
    return Picture(
        number=number,
        id=digest(f"{seed} {number} picture"),
        scene=scene,
        alteration=change,
        size=size,
        title=title,
        tags=scene.tags + photo,
        page_url=_page(rng, number),
        trouble=trouble,
        original=original,
        preview=preview,
        dups=dups,
        claimed=claimed,
        quirks=quirks,
    )


def _path(
    rng: random.Random, scene: Scene, number: int, size: tuple[int, int], change: Alteration, trouble: str
) -> str:
    ending = alterations.extension(change.encoding)
    if trouble == "misnamed":
        ending = "png" if ending != "png" else "jpg"
    folder = (
        "closed" if trouble == "closed" else rng.choice(("uploads/2019/04", "img", "photo", "files/big", "media/cache"))
    )
    style = rng.randrange(4)
    name = (
        f"{scene.kind}-{number:04d}.{ending}",
        f"{digest(str(number), 12)}.{ending}",
        f"{scene.kind}_{size[0]}x{size[1]}_{number}.{ending.upper()}",
        f"IMG%20{number:04d}.{ending}?v={rng.randrange(1, 9)}",
    )[style]
    return f"/{folder}/{name}"


def _quirks(rng: random.Random, trouble: str) -> frozenset[str]:
    """Oddities of the engine's record; where the original fails, the record still leads to other copies."""
    odd = {
        "lie": 0.05,
        "origin": 0.2,
        "old-thumb": 0.25,
        "no-dups": 0.25,
        "shop": 0.06,
        "censored": 0.02,
        "dead-giant": 0.08,
    }
    chosen = {name for name, share in odd.items() if rng.random() < share}
    roll = rng.random()
    if not trouble:
        chosen |= (
            {"no-snippet"} if roll < 0.03 else {"no-viewer"} if roll < 0.06 else {"bare"} if roll < 0.08 else set()
        )
    return frozenset(chosen)


def _copies(
    rng: random.Random,
    number: int,
    size: tuple[int, int],
    hosts: int,
    home: int,
    trouble: str,
    quirks: frozenset[str],
) -> tuple[Address | None, tuple[Address, ...]]:
    """The preview (None: the engine shows the original itself) and the other copies."""
    ill = trouble if trouble in ("dead", "noai") else ""
    away = [host for host in range(hosts) if host != home] or [home]
    preview = None
    if rng.random() < 0.5 or "origin" in quirks:
        preview = Address(rng.choice(away), f"/preview/{number:04d}.jpg", "preview", shrunk(size, PREVIEW_SIDE), ill)
    dups = []
    for place, share in enumerate((0.75, 0.5)):
        if "no-dups" not in quirks and rng.random() < (0.8, 0.4)[place] and min(size) * share >= 160:
            small = round(size[0] * share), round(size[1] * share)
            dups.append(Address(rng.choice(away), f"/copies/{number:04d}-{small[0]}.jpg", "dup", small, ill))
    if "dead-giant" in quirks:  # The biggest copy an engine knows of is often the one that is gone.
        giant = size[0] * 2, size[1] * 2
        dups.insert(0, Address(rng.choice(away), f"/copies/{number:04d}-{giant[0]}.jpg", "dup", giant, "dead"))
    return preview, tuple(dups)


def _page(rng: random.Random, number: int) -> str:
    if rng.random() < 0.18:
        return rng.choice(FAMILIES).format(n=10_000 + 37 * number)
    # A few sites carry much and many carry little, as on the web.
    site = INVENTED[min(int(rng.paretovariate(0.75)) - 1, len(INVENTED) - 1)]
    return f"https://{site}/{rng.choice(('posts', 'gallery', 'wiki', 'p'))}/{number * 7 + 11}"
