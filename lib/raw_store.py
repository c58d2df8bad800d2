"""Raw answers on disk: under their final name a file is whole, and it holds the bytes as they were received."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib import temporary

SLUG_LENGTH = 40
MARK_LENGTH = 8  # hexadecimal digits that tell queries with the same slug apart
PICTURE_LENGTH = 16  # hexadecimal digits of a picture's SHA-256: 64 bits, no collision in any collection
NOTE = "query.json"  # what a query asked for, beside its answers


def folder_name(kind: str, text: str, image_sha256: str, params: str) -> str:
    """The folder of a query, from its own content: `<sha256[:16]>` for a picture, `<slug>-<mark>` for a keyword.

    File names of query pictures play no part, so `a.jpg` and `a.jpeg` cannot meet. Parameters other than the default
    ones (`{}`) give a folder of its own.
    """
    special = "" if params == "{}" else params
    if kind == "image":
        return image_sha256[:PICTURE_LENGTH] + (f"-{_mark(special)}" if special else "")
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG_LENGTH].strip("-") or "keyword"
    return f"{slug}-{_mark(text + special)}"


def file_name(page: int, part: str, outcome: str, body: bytes) -> str:
    """`0.html` and `1.json` for results; what is no result carries its outcome, as in `2.captcha.html`."""
    suffixes = {b"<": "html", b"{": "json"}
    suffix = suffixes.get(body.lstrip()[:1], "html" if part == "page" else "json")
    return f"{page}.{suffix}" if outcome == "ok" else f"{page}.{outcome}.{suffix}"


def write_whole(path: Path, body: bytes) -> str:
    """Writes a file that is either whole or not there, on the disk before it gets its name; gives the SHA-256."""
    temporary.write_whole(path, body, synced=True)
    return hashlib.sha256(body).hexdigest()


def write_note(folder: Path, engine: str, kind: str, text: str, image_sha256: str, params: Mapping[str, Any]) -> None:
    """Writes `query.json` beside a query's answers, from which `2_ingest_db.py --rescan` restores a lost query."""
    note = {"engine": engine, "kind": kind, "text": text, "image_sha256": image_sha256, "params": dict(params)}
    body = json.dumps(note, ensure_ascii=True, sort_keys=True, indent=1).encode() + b"\n"
    path = folder / NOTE
    if not path.is_file() or path.read_bytes() != body:
        write_whole(path, body)


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:MARK_LENGTH]
