"""What all parts of the running gallery share."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from demo.catalog import Address, Picture
from demo.darkroom import Darkroom
from demo.faults import Switchboard
from demo.search import Index, filtered, read_upload


@dataclass(frozen=True)
class Options:
    """How a gallery is made; `results` is the most a search lists, `broken` puts troubles on the picture hosts."""

    host: str = "127.0.0.1"
    port: int = 0
    pictures: int = 240
    seed: int = 7
    hosts: int = 4
    page_size: int = 30
    results: int = 120
    broken: bool = True


@dataclass
class Site:
    """The pictures, the index, the switchboard, and what was uploaded; addresses are known once the ports are open."""

    options: Options
    pictures: list[Picture]
    index: Index
    darkroom: Darkroom
    board: Switchboard
    url: str = ""
    hosts: list[str] = field(default_factory=list)
    uploads: dict[str, bytes] = field(default_factory=dict)  # cbir id -> the file as received
    rankings: dict[str, list[Picture]] = field(default_factory=dict)  # a query's results, computed once
    tries: Counter[str] = field(default_factory=Counter)  # requests per picture address

    def __post_init__(self) -> None:
        self.by_id = {picture.id: picture for picture in self.pictures}

    def link(self, address: Address) -> str:
        """The full URL of a copy of a picture."""
        return self.hosts[address.host] + address.path

    def ranking(self, key: str, find: Callable[[], list[Picture]]) -> list[Picture]:
        """The whole answer to a query; `find` is called the first time only."""
        if key not in self.rankings:
            self.rankings[key] = find()
        return self.rankings[key]

    def by_words(self, words: str, wanted: Mapping[str, str]) -> list[Picture]:
        """All pictures for words and filters (`demo.search.FILTERS`), best first."""
        key = f"text:{words} {json.dumps(dict(wanted), sort_keys=True)}"
        return self.ranking(key, lambda: filtered(self.index.by_text(words), wanted))

    def by_upload(self, mark: str, wanted: Mapping[str, str]) -> list[Picture] | None:
        """All pictures like an upload, best first; None for an upload that nobody knows (any more)."""
        body = self.uploads.get(mark)
        if body is None:
            return None
        key = f"cbir:{mark} {json.dumps(dict(wanted), sort_keys=True)}"
        return self.ranking(key, lambda: filtered(self.index.by_image(read_upload(body)), wanted))

    async def thumb(self, picture: Picture | None) -> web.Response:
        """A thumbnail, or 404 for a picture that nobody knows or that is wholly dead."""
        if picture is None or picture.trouble == "dead":
            return web.Response(status=404, text="no such thumbnail")
        body = await self.darkroom.thumb(picture)
        return web.Response(body=body, content_type="image/jpeg", headers={"Cache-Control": "max-age=3600"})

    def page(self, found: list[Picture], number: int) -> list[Picture]:
        size = self.options.page_size
        return found[number * size : (number + 1) * size] if number >= 0 else []

    def has_page(self, found: list[Picture], number: int) -> bool:
        return 0 <= number * self.options.page_size < len(found)


Routes = Callable[[Site], list[web.RouteDef]]
