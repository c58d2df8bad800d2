"""Raw answers in the shapes of Yandex Images, made for tests; the fields follow what public parsers agree on."""

from __future__ import annotations

import hashlib
import html
import json
from pathlib import Path
from typing import Any

from lib.db import Database, open_database
from lib.db.responses import NewResponse, add_answers, ensure_query
from lib.records import address_digest

FETCHED = "2026-11-20T09:30:00.000Z"


def key_of(number: int) -> str:
    """The id by which the picture `number` is known."""
    return address_digest(f"https://site{number % 7}.example.org/photos/{number}.jpg")


def entity(number: int, **changes: Any) -> dict[str, Any]:
    """A complete entity of the picture `number`; `changes` replace its fields."""
    site = f"https://site{number % 7}.example.org"
    photo, thumb = f"{site}/photos/{number}.jpg", f"//thumbs.example.net/i?id={number:032x}&n=13"
    made: dict[str, Any] = {
        "id": f"{number:032x}",
        "docid": f"Z{number:016X}",
        "rimId": f"{number:032x}",
        "pos": number,
        "url": f"/images/search?pos={number}&img_url={photo}",
        "origUrl": photo,
        "image": thumb,
        "alt": f"Photo {number}",
        "width": 480,
        "height": 320,
        "origWidth": 1920,
        "origHeight": 1280,
        "freshnessCounter": "normal",
        "gifLabel": False,
        "ecomShield": False,
        "censored": False,
        "loading": "lazy",
        "snippet": {
            "title": f"Page of {number}",
            "hasTitle": True,
            "text": f"A <b>page</b> about {number}",
            "url": f"{site}/pages/{number}",
            "domain": f"site{number % 7}.example.org",
            "shopScore": 0,
        },
        "viewerData": {
            "img_href": photo,
            "detail_url": "/images/search",
            "preview": [{"url": photo, "fileSizeInBytes": 345_678, "w": 1920, "h": 1280}],
            "dups": [
                {"url": f"//mirror.example.com/{number}-4k.jpg", "fileSizeInBytes": 2_345_678, "w": 3840, "h": 2560}
            ],
            "thumb": {"url": thumb, "w": 480, "h": 320},
        },
    }
    return {**made, **changes}


def serp_list(entities: list[dict[str, Any]], next_url: str | None = "/images/search?p=1") -> dict[str, Any]:
    keys = [found["id"] for found in entities]
    return {
        "items": {"keys": keys, "entities": dict(zip(keys, entities, strict=True))},
        "navi": {"next": next_url} if next_url else {},
    }


def xhr(entities: list[dict[str, Any]], **kwargs: Any) -> bytes:
    """An answer of `serpList/fetch` with the adapter block behind another one."""
    blocks = [
        {"name": {"block": "extra-content"}, "params": {}},
        {
            "name": {"block": "i-react-ajax-adapter:ajax"},
            "params": {"adapterData": {"serpList": serp_list(entities, **kwargs)}},
        },
    ]
    return json.dumps({"cnt": "/images/search", "blocks": blocks}, ensure_ascii=False).encode()


def page(*states: object) -> bytes:
    """A page with one `data-state` for each of the states."""
    roots = "".join(f'<div class="Root" data-state="{html.escape(json.dumps(state))}"></div>' for state in states)
    return f"<html><body>{roots}</body></html>".encode()


def results_page(entities: list[dict[str, Any]], **kwargs: Any) -> bytes:
    return page({"other": 1}, {"initialState": {"serpList": serp_list(entities, **kwargs)}})


def put_answer(db: Database, root: Path, query: str, number: int, body: bytes, part: str = "xhr") -> Path:
    """A raw answer as step 1 leaves it: the file first, then its row."""
    suffix = "html" if part == "page" else "json"
    path = f"xhr/yandex/{query}/{number:04d}.{suffix}"
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(body)
    with db.transaction():
        query_id = ensure_query(db, "yandex", "keyword", query, run_id=_run(db))
        digest = hashlib.sha256(body).hexdigest()
        add_answers(db, query_id, [NewResponse(number, part, path, digest, len(body), FETCHED)], _run(db))
    return file


def _run(db: Database) -> int:
    from lib.db.journal import start_run

    return int(db.value("SELECT max(id) FROM runs") or start_run(db, "collect", {}))


def make_workspace(root: Path, answers: dict[tuple[str, int, str], bytes]) -> Path:
    """A workspace with the given raw answers, by (query, page, part); gives its database."""
    with open_database(root / "gleaner.db") as db:
        for (query, number, part), body in answers.items():
            put_answer(db, root, query, number, body, part)
    return root / "gleaner.db"
