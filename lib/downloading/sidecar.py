"""`--sidecar json`: what is known of a picture, in a file beside it, for tools that cannot ask the database."""

from __future__ import annotations

import json

from lib.db import Database
from lib.db.downloads import describe_picture
from lib.decode import Header
from lib.downloading.target import Target


def write_sidecar(
    reader: Database, target: Target, name: str, key: str, kind: str, url: str, sha256: str, header: Header, aside: str
) -> None:
    """Writes `<picture>.json` before the picture itself, so that no picture lacks it; `url` won. Raises OSError."""
    known = {
        "file_name": name.rpartition("/")[2],
        "id": key,
        "sha256": sha256,
        "kind": kind,
        "format": header.format,
        "width": header.width,
        "height": header.height,
        **describe_picture(reader, key),
        "image_url": url,
    }
    text = json.dumps({column: value for column, value in known.items() if value not in ("", None)}, ensure_ascii=False)
    target.write(None, text.encode("utf-8", "replace"), f"{name}.json", aside)
