"""The access pattern that Gleaner's ingest is measured against: one process, the standard library, two tables.

Every file is read with `json.load`, every picture and every address is one statement of its own, everything is one
transaction, and there is neither a record of which query showed what nor a constraint beyond the picture's id. Only the
pattern is that of the older pipelines; the code is our own.

    python bench/reference_ingest.py FOLDER OUT.db
"""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

SCHEMA = """
CREATE TABLE images (id TEXT PRIMARY KEY, docid TEXT, rimId TEXT, pos INTEGER, url TEXT, origUrl TEXT, image_url TEXT,
    alt TEXT, width INTEGER, height INTEGER, origWidth INTEGER, origHeight INTEGER, freshness TEXT, is_gif INTEGER,
    title TEXT, snippet TEXT, snippet_url TEXT, domain TEXT, shop_score INTEGER, ecom_shield INTEGER);
CREATE TABLE image_variants (id INTEGER PRIMARY KEY AUTOINCREMENT, image_id TEXT, variant_type TEXT, url TEXT,
    width INTEGER, height INTEGER, file_size_bytes INTEGER);
"""
IMAGE = f"INSERT OR IGNORE INTO images VALUES ({', '.join('?' * 20)})"
VARIANT = (
    "INSERT INTO image_variants (image_id, variant_type, url, width, height, file_size_bytes) VALUES (?, ?, ?, ?, ?, ?)"
)


def ingest(folder: Path, database: Path) -> int:
    """Takes in every JSON file below the folder; gives the number of results."""
    connection = sqlite3.connect(database)
    connection.executescript(SCHEMA)
    results = 0
    for file in sorted(folder.rglob("*.json")):
        with file.open(encoding="utf-8") as handle:
            value = json.load(handle)
        entities = value["blocks"][1]["params"]["adapterData"]["serpList"]["items"]["entities"]
        for name, found in entities.items():
            snippet, viewer = found.get("snippet", {}), found.get("viewerData", {})
            connection.execute(
                IMAGE,
                (
                    name, found.get("docid"), found.get("rimId"), found.get("pos"), found.get("url"),
                    found.get("origUrl"), found.get("image"), found.get("alt"), found.get("width"),
                    found.get("height"), found.get("origWidth"), found.get("origHeight"),
                    found.get("freshnessCounter"), found.get("gifLabel"), snippet.get("title"), snippet.get("text"),
                    snippet.get("url"), snippet.get("domain"), snippet.get("shopScore"), found.get("ecomShield"),
                ),
            )  # fmt: skip
            for kind in ("preview", "dups"):
                for entry in viewer.get(kind, []):
                    size = entry.get("fileSizeInBytes")
                    connection.execute(VARIANT, (name, kind, entry["url"], entry.get("w"), entry.get("h"), size))
            if thumb := viewer.get("thumb"):
                connection.execute(VARIANT, (name, "thumb", thumb["url"], thumb.get("w"), thumb.get("h"), None))
            results += 1
    connection.commit()
    connection.close()
    return results


if __name__ == "__main__":
    print(ingest(Path(sys.argv[1]), Path(sys.argv[2])))
