"""Makes raw answers of Yandex Images by the thousand, as step 1 leaves them: files below xhr/ and pending rows.

The fields and their sizes follow what public parsers agree on. Everything comes from a counter and a seed, so that two
runs measure the same bytes.
"""

from __future__ import annotations

import hashlib
import random
import sys
from pathlib import Path
from typing import Any

import orjson

sys.path.insert(0, str(Path(__file__).parents[1]))

from lib.db import Database, open_database
from lib.db.responses import NewResponse, add_answers, ensure_query

PAGE = 100  # results an answer
PAGES_A_QUERY = 20
SITES = 20_000
AGAIN = 0.10  # share of results that show a picture of an earlier query
WORDS = (
    "a the of red old big sky city house river night forest street bridge winter summer garden mountain stone light"
    " photo picture image view best free stock wallpaper history museum travel guide family market harbour tower"
).split()
FETCHED = "2026-01-01T00:00:00.000Z"


def entity(number: int, rank: int) -> dict[str, Any]:
    """The engine's entity of the picture `number`; the same picture always looks the same."""
    chance = random.Random(number)
    digest = hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).hexdigest()
    site = min(int(chance.paretovariate(0.6)), SITES)
    host = f"www.site-{site}.example"  # a name that nobody can register
    width, height = 640 + 16 * chance.randrange(240), 480 + 16 * chance.randrange(180)
    words = " ".join(chance.choices(WORDS, k=9))
    photo = f"https://{host}/media/uploads/{2005 + number % 20}/{number % 12 + 1:02d}/{digest[:20]}_{number}.jpg"
    thumb = f"//thumbs.example.net/i?id={digest}-{number % 9_000_000}-images-thumbs&n=13"
    dups = [
        {
            "url": f"https://cdn{copy}.mirror-{chance.randrange(900)}.example.net/{digest[copy:20]}/{number}.jpg",
            "fileSizeInBytes": chance.randrange(40_000, 4_000_000),
            "w": width * (copy + 2) // 2,
            "h": height * (copy + 2) // 2,
        }
        for copy in range(chance.randrange(3))
    ]
    snippet = {
        "title": f"{words.capitalize()} № {number}",
        "hasTitle": True,
        "text": f"{' '.join(chance.choices(WORDS, k=14))} <b>{words}</b> {number}",
        "url": f"https://{host}/articles/{digest[:12]}/{number}.html",
        "domain": host,
        "shopScore": 0,
    }
    return {
        "id": digest,
        "docid": f"Z{number:016X}",
        "documentid": f"Z{number:016X}",
        "reqid": f"1793000000{number:06d}-{digest[:18]}-IMG",
        "rimId": digest,
        "pos": rank,
        "url": f"/images/search?pos={rank}&img_url={photo}&text={words.replace(' ', '%20')}&rpt=simage",
        "origUrl": photo,
        "image": thumb,
        "alt": f"{words} {number}",
        "width": 480,
        "height": 320,
        "origWidth": width,
        "origHeight": height,
        "freshnessCounter": "normal",
        "gifLabel": False,
        "ecomShield": number % 17 == 0,
        "censored": False,
        "loading": "lazy",
        "snippet": snippet,
        "viewerData": {
            "img_href": photo,
            "detail_url": f"/images/search?pos={rank}&img_url={photo}",
            "preview": [
                {
                    "url": photo,
                    "fileSizeInBytes": chance.randrange(40_000, 2_000_000),
                    "w": width,
                    "h": height,
                    "isMixedImage": False,
                    "origin": {"w": width, "h": height, "url": photo},
                }
            ],
            "dups": dups,
            "thumb": {"url": thumb, "w": 480, "h": 320, "size": {"width": 480, "height": 320}},
            "snippet": snippet,
        },
    }


def answer(numbers: list[int], first_rank: int) -> bytes:
    """One answer of `serpList/fetch` with these pictures."""
    entities = {}
    for place, number in enumerate(numbers):
        made = entity(number, first_rank + place)
        entities[made["id"]] = made
    serp_list = {"items": {"keys": list(entities), "entities": entities}, "navi": {"next": "/images/search?p=1"}}
    blocks = [
        {"name": {"block": "extra-content"}, "params": {}},
        {"name": {"block": "i-react-ajax-adapter:ajax"}, "params": {"adapterData": {"serpList": serp_list}}},
    ]
    return orjson.dumps({"cnt": "/images/search", "blocks": blocks})


def make_workspace(root: Path, results: int) -> int:
    """Writes the answers and their pending rows; gives the bytes written."""
    chance, written, number = random.Random(7), 0, 0
    with open_database(root / "gleaner.db") as db:
        for query, first in enumerate(range(0, results // PAGE, PAGES_A_QUERY)):
            folder = root / "xhr" / "yandex" / f"query-{query}"
            folder.mkdir(parents=True, exist_ok=True)
            rows = []
            for page in range(min(PAGES_A_QUERY, results // PAGE - first)):
                numbers = []
                for _ in range(PAGE):
                    again = number and chance.random() < AGAIN
                    numbers.append(chance.randrange(number) if again else number)
                    number += not again
                body = answer(numbers, page * PAGE)
                (folder / f"{page}.json").write_bytes(body)
                written += len(body)
                path = f"xhr/yandex/query-{query}/{page}.json"
                rows.append(NewResponse(page, "xhr", path, hashlib.sha256(body).hexdigest(), len(body), FETCHED))
            _add_rows(db, query, rows)
    return written


def _add_rows(db: Database, query: int, rows: list[NewResponse]) -> None:
    with db.transaction():
        db.execute(
            "INSERT OR IGNORE INTO runs (id, step, started_at, version) VALUES (1, 'collect', ?, 'bench')", (FETCHED,)
        )
        number = ensure_query(db, "yandex", "keyword", f"query {query}", run_id=1)
        add_answers(db, number, rows, 1)
