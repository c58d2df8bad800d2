"""What a parser has read as rows of the database."""

from __future__ import annotations

import orjson

from lib.db.images import PictureRows, Row
from lib.db.ingest import Answer
from lib.domains import registrable_domain
from lib.records import ImageRecord, ParsedPage


def picture_rows(answer: Answer, page: ParsedPage, now: str) -> PictureRows:
    """The rows of an answer, in the order of the columns of `lib.db.images`."""
    first_rank = answer.page * page.page_size
    query_id, answer_id = answer.query_id, answer.id or None
    variants = [(place, *variant) for place, record in enumerate(page.images) for variant in record.variants]
    return PictureRows.of(
        [_image_row(answer.engine, record, now) for record in page.images],
        variants,
        [(query_id, answer_id, first_rank + record.rank) for record in page.images],
    )


def _image_row(engine: str, record: ImageRecord, now: str) -> Row:
    return (
        f"{engine}:{record.engine_id}", engine, record.page_url, record.title, record.snippet,
        record.domain, registrable_domain(record.domain),
        record.width, record.height, record.bytes, record.format, record.published_at,
        int(record.is_gif), int(record.is_censored), int(record.is_shop),
        record.creator, record.creator_url, record.license, record.license_url, record.attribution,
        orjson.dumps(record.extra).decode(), now,
    )  # fmt: skip
