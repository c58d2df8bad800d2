"""What a parser has read as rows of the database."""

from __future__ import annotations

from itertools import chain
from operator import attrgetter
from typing import Any

import orjson

from lib.db.images import IMAGE_COLUMNS, PictureRows
from lib.db.ingest import Answer
from lib.domains import registrable_domain
from lib.records import ImageRecord, ParsedPage

_MADE = ("key", "engine", "registrable_domain", "is_gif", "is_censored", "is_shop", "extra", "first_seen_at")
_TAKEN = {name: attrgetter(name) for name in IMAGE_COLUMNS if name not in _MADE}


def picture_rows(answer: Answer, page: ParsedPage, now: str) -> PictureRows:
    """The rows of an answer, column by column as `lib.db.images` takes them."""
    images, first_rank = page.images, answer.page * page.page_size
    count = len(images)
    columns = _image_columns(answer.engine, images, now)
    rows = PictureRows(count, {name: columns[name] for name in IMAGE_COLUMNS if any(columns[name])})
    variants = list(chain.from_iterable(record.variants for record in images))
    if variants:
        places = [place for place, record in enumerate(images) for _ in record.variants]
        rows.variants = [places, *map(list, zip(*variants, strict=True))]
    ranks = [first_rank + record.rank for record in images]
    rows.results = [[answer.query_id] * count, [answer.id or None] * count, ranks]
    return rows


def _image_columns(engine: str, images: tuple[ImageRecord, ...], now: str) -> dict[str, list[Any]]:
    taken = {name: list(map(value, images)) for name, value in _TAKEN.items()}
    return taken | {
        "key": [f"{engine}:{record.engine_id}" for record in images],
        "engine": [engine] * len(images),
        "registrable_domain": list(map(registrable_domain, taken["domain"])),
        "is_gif": [int(record.is_gif) for record in images],
        "is_censored": [int(record.is_censored) for record in images],
        "is_shop": [int(record.is_shop) for record in images],
        "extra": [orjson.dumps(record.extra).decode() for record in images],
        "first_seen_at": [now] * len(images),
    }
