"""Takes pictures to search with: reads them off a request and keeps them under an id."""

from __future__ import annotations

import hashlib
from typing import Any

from aiohttp import web

from demo.search import read_upload
from demo.site import Site

MIB = 1024 * 1024


class Rejected(ValueError):
    """An upload that is not taken: HTTP status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


def keep(site: Site, body: bytes) -> str:
    """Store an upload and return its cbir id (SHARD/ID), the same for the same bytes; raises Rejected."""
    try:
        read_upload(body)
    except ValueError as error:
        raise Rejected(400, str(error)) from error
    mark = hashlib.sha256(body).hexdigest()
    cbir_id = f"{1_000_000 + int(mark[:6], 16) % 9_000_000}/{mark[6:28]}"
    site.uploads[cbir_id] = body
    return cbir_id


async def read_form(request: web.Request, field: str, limit: int) -> bytes:
    """The file in a multipart form; raises Rejected."""
    if not request.content_type.startswith("multipart/"):
        raise Rejected(400, "an upload is multipart")
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            if getattr(part, "name", None) == field:
                return await _limited(part, limit)
    except (ValueError, AssertionError) as error:
        if isinstance(error, Rejected):
            raise
        raise Rejected(400, "broken multipart body") from error
    raise Rejected(400, f"no {field} in the upload")


async def read_body(request: web.Request, limit: int) -> bytes:
    """The body itself; raises Rejected."""
    body = bytearray()
    async for chunk in request.content.iter_chunked(65536):
        body += chunk
        _check(body, limit)
    return bytes(body)


async def _limited(part: Any, limit: int) -> bytes:
    body = bytearray()
    while chunk := await part.read_chunk(65536):
        body += chunk
        _check(body, limit)
    return bytes(body)


def _check(body: bytearray, limit: int) -> None:
    if len(body) > limit:
        raise Rejected(413, f"the file is larger than {limit // MIB} MiB")
