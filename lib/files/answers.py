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
# Hexadecimal digits that tell queries with the same slug apart: as few as it takes. Among 100,000 keywords in a script
# that a slug does not hold, two share eight.
MARK_LENGTHS = (8, 16, 64)
PICTURE_LENGTH = 16  # hexadecimal digits of a picture's SHA-256: 64 bits, no collision in any collection
NOTE = "query.json"  # what a query asked for, beside its answers


def folder_of(place: Path, kind: str, text: str, image_sha256: str, params: Mapping[str, Any], as_text: str) -> Path:
    """The folder of a query below its engine's: the shortest name that no other query's answers lie under.

    `as_text` is how the parameters are written in a name.
    """
    asked = {"kind": kind, "text": text, "image_sha256": image_sha256, "params": dict(params)}
    folders = [place / folder_name(kind, text, image_sha256, as_text, length) for length in MARK_LENGTHS]
    return next((folder for folder in folders if _is_free(folder, asked)), folders[-1])


def _is_free(folder: Path, asked: Mapping[str, Any]) -> bool:
    try:
        note = json.loads((folder / NOTE).read_bytes())
        return not isinstance(note, dict) or all(note.get(name, value) == value for name, value in asked.items())
    except (OSError, ValueError):
        return True


def folder_name(kind: str, text: str, image_sha256: str, params: str, length: int = MARK_LENGTHS[0]) -> str:
    """The folder of a query, from its own content: `<sha256[:16]>` for a picture, `<slug>-<mark>` for a keyword.

    File names of query pictures play no part, so `a.jpg` and `a.jpeg` cannot meet. Parameters other than the default
    ones (`{}`) give a folder of its own. `length` is that of the mark.
    """
    special = "" if params == "{}" else params
    if kind == "image":
        whole = image_sha256[: max(length, PICTURE_LENGTH)]
        return whole + (f"-{_mark(special, length)}" if special else "")
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:SLUG_LENGTH].strip("-") or "keyword"
    # A longer mark also keeps apart what ends in the text from what begins the parameters.
    marked = text + special if length == MARK_LENGTHS[0] else f"{len(text)} {text}{special}"
    return f"{slug}-{_mark(marked, length)}"


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


def _mark(text: str, length: int) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:length]
