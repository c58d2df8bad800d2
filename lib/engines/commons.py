"""Wikimedia Commons, through the MediaWiki API: free files with licence, author, and the SHA-1 of every file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lib.engines.base import API, Answer, Ask, Engine, Verdict, Web
from lib.engines.judging import JSON_ONLY, asked, count_in, json_object, judge_status, not_an_object, nothing, query_url
from lib.parsers.values import mapping, text

PATH = "/w/api.php"
FILE_NAMESPACE = "6"
PREVIEW_WIDTH = "640"  # pixels
PARAMS = {
    "action": "query",
    "format": "json",
    "formatversion": "2",
    "generator": "search",
    "gsrnamespace": FILE_NAMESPACE,
    "prop": "info|imageinfo",
    "inprop": "url",
    "iiprop": "url|size|mime|sha1|extmetadata|timestamp|user|mediatype",
    "iiurlwidth": PREVIEW_WIDTH,
}
BUSY = frozenset({"maxlag", "ratelimited", "readonly"})  # errors that mean "later", with status 200


class Source(Engine):
    """The engine `commons`."""

    name: ClassVar[str] = "commons"
    kinds: ClassVar[frozenset[str]] = frozenset({"keyword"})
    hosts: ClassVar[tuple[str, ...]] = ("https://commons.wikimedia.org",)
    interval: ClassVar[float] = 1.0  # one request after the other is what its etiquette asks for
    page_size: ClassVar[int] = 50  # the most without a bot's rights
    most_pages: ClassVar[int] = 200  # its search ends at 10,000 results
    wants_contact: ClassVar[bool] = True
    # Sizes are the square root of the area in pixels, as its search counts them.
    FILTERS: ClassVar[Mapping[str, Mapping[str, str]]] = {
        "size": {
            "small": "gsrsearch=fileres:<500",
            "medium": "gsrsearch=fileres:500,1000",
            "large": "gsrsearch=fileres:>1000",
            "huge": "gsrsearch=fileres:>2000",
        },
        "type": {
            "photo": "gsrsearch=filemime:image/jpeg",
            "drawing": "gsrsearch=filetype:drawing",
            "clipart": "gsrsearch=filetype:drawing",
            "gif": "gsrsearch=filemime:image/gif",
        },
        # Everything on Commons may be changed and sold; the rest is a statement about the file.
        "licence": {"commercial": "", "modify": "", "public-domain": "gsrsearch=haswbstatement:P6216=Q19652"},
    }
    kept_headers: ClassVar[tuple[str, ...]] = ("content-type", "date", "retry-after", "mediawiki-api-error")
    terms: ClassVar[str] = (
        "Wikimedia's user-agent policy asks every client for a name and a contact (set GLEANER_CONTACT) and for one "
        "request at a time; every file keeps the licence and the author that are stored with it."
    )

    async def fetch(self, web: Web, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> Answer:
        return await web.get(self.address(host, ask, cursor, page), part=API, headers=JSON_ONLY)

    def address(self, host: str, ask: Ask, cursor: Mapping[str, Any], page: int) -> str:
        narrowed = self.filter_params(ask.filters).get("gsrsearch", "")
        kind = "" if "filetype:" in narrowed else "filetype:bitmap"
        words = " ".join(filter(None, (kind, narrowed, ask.text)))
        place = {"gsrlimit": str(self.page_size), "gsroffset": str(page * self.page_size)}
        return query_url(host, PATH, PARAMS | {"gsrsearch": words} | place)

    def classify(self, answer: Answer) -> Verdict:
        if (verdict := judge_status(answer)) is not None:
            return verdict
        found = json_object(answer)
        if found is None:
            return not_an_object(answer)
        if error := mapping(found.get("error")):
            code = text(error.get("code")) or "error"
            return Verdict("blocked" if code in BUSY else "parse_error", code[:60])
        if answer.status != 200:
            return Verdict("parse_error", f"http_{answer.status}")
        # Where nothing was found there is no `query` at all, only the word that this was everything.
        pages = mapping(found["query"]).get("pages") if "query" in found else [] if "batchcomplete" in found else None
        if not isinstance(pages, (list, dict)):
            return Verdict("parse_error", "no_pages")
        if pages:
            return Verdict("ok")
        offset = asked(answer, "gsroffset", 0)
        promised = count_in(mapping(mapping(found.get("query")).get("searchinfo")), "totalhits")
        following = count_in(mapping(found.get("continue")), "gsroffset")  # where it would have gone on
        return nothing(offset == 0, max(promised, following), offset)
