"""The page of what one search found: the query picture beside its hits, one group of rows a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lib.pages.model import CopiesView, Heading, SearchView
from lib.pages.render import picture_url, render
from lib.pages.thumbnails import EMBED_LIMIT, thumbnail_data_uri, thumbnails

HIT_LIMIT = 5_000  # hits on a page; its CSV holds all
QUERY_SIDE = 480  # pixels: the query picture is shown at up to 300
PAGE_GROUPS = 100  # pictures seen at once


def render_results(
    page: Path,
    heading: Heading,
    search: SearchView,
    groups: Sequence[CopiesView],
    *,
    embed_limit: int = EMBED_LIMIT,
    hit_limit: int = HIT_LIMIT,
    workers: int = 1,
) -> str:
    """The page of a search; `groups` in the order to show them first. `page` is where it will lie."""
    shown, room = [], hit_limit
    for group in groups:
        if room <= 0:
            break
        shown.append(CopiesView(group.hits[:room], group.basis))
        room -= len(group.hits)
    hits = [hit for group in shown for hit in group.hits]
    # A file that many hits share would stand in the page once for each of them.
    limit = embed_limit if sum(hit.file is not None for hit in hits) <= embed_limit else 0
    thumbs = thumbnails((hit.file for hit in hits), page, limit=limit, workers=workers)
    return render(
        "results",
        "results.js",
        page,
        heading=heading,
        search=search,
        query_thumb=thumbnail_data_uri(search.file, QUERY_SIDE) if search.file else "",
        query_url=picture_url(search.file, page),
        groups=[
            (
                group,
                [
                    (hit, thumbs.get(hit.file, "") if hit.file else "", picture_url(hit.file, page))
                    for hit in group.hits
                ],
            )
            for group in shown
        ],
        shown=len(hits),
        total=sum(len(group.hits) for group in groups),
        page_groups=PAGE_GROUPS,
        compared=any(hit.likeness is not None for hit in hits),
        sized=any(hit.width and hit.height for hit in hits),
        licensed=any(hit.licence for hit in hits),
    )
