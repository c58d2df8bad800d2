"""What scenarios start from: a workspace with pictures, files with steady times."""

from __future__ import annotations

import hashlib
import os

from PIL import Image
from support import drawing
from torture import Folder

from lib.db import open_database
from lib.db.files import FileRow, add_file


def steady(folder: Folder) -> None:
    """Gives every file of the user a time of its own, the same in every run."""
    for top in (folder.photos, folder.more):
        for number, path in enumerate(sorted(top.rglob("*")) if top.exists() else ()):
            if not path.is_symlink():
                os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))


def own_pictures(folder: Folder, *, repeated: bool = False) -> None:
    """A workspace with six downloaded pictures, as steps 2 and 5 leave it; with `repeated`, three of them repeats."""
    folder.ws.mkdir(parents=True)
    with open_database(folder.ws / "gleaner.db") as db, db.transaction():
        for number in range(6):
            seed = number % 3 if repeated else number
            wide = 96 + 10 * number
            # One shape, whatever the size, where they are to be alike.
            size = (wide, wide * 2 // 3) if repeated or number % 2 else (64, wide)
            _put(folder, db, number, drawing(seed, 192, 128).resize(size))


def _put(folder: Folder, db: object, number: int, picture: Image.Image) -> None:
    key = f"test:{number:04d}"
    shelf = folder.ws / "images" / hashlib.sha256(key.encode()).hexdigest()[:2]
    shelf.mkdir(parents=True, exist_ok=True)
    draft = shelf / "draft.jpg"
    picture.save(draft, quality=92)
    digest = hashlib.sha256(draft.read_bytes()).hexdigest()
    path = shelf / f"test-{number:04d}_original_{picture.width}x{picture.height}_{digest[:8]}.jpg"
    draft.rename(path)
    os.utime(path, (1_600_000_000 + number, 1_600_000_000 + number))
    row = FileRow(
        digest, path.relative_to(folder.ws).as_posix(), path.stat().st_size, "jpeg", picture.width, picture.height
    )
    add_file(db, row)
    image = db.execute(
        "INSERT INTO images (key, engine, page_url, title, license, first_seen_at) VALUES (?, 'test', ?, ?, ?, '')",
        (key, f"https://site{number % 3}.example/{number}", f"Picture {number}", "CC BY 4.0"),
    ).lastrowid
    address = f"{folder.site}/good/{number}"
    variant = db.execute(
        "INSERT INTO image_variants (image_id, kind, url) VALUES (?, 'original', ?)", (image, address)
    ).lastrowid
    db.execute(
        "INSERT INTO downloads (image_id, state, kind, variant_id, sha256, final_url, bytes, updated_at)"
        " VALUES (?, 'done', 'original', ?, ?, ?, ?, '')",
        (image, variant, digest, address, row.bytes),
    )
