"""Addresses of pictures, and all that they tell by themselves: an original in a proxy, a web page, a resized copy.

`WRAPPERS` is the one table of image proxies. A row says on which hosts and paths a proxy lives, and where in its
address the inner one stands: in parameters, behind the path, or spelled in hexadecimal digits. To add a proxy, add a
row.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes, urlsplit

from lib.domains import host_of
from lib.records import VariantRecord

MOST_NESTED = 4  # proxies around proxies; a bound for addresses that wrap themselves
MOST_DECODED = 2  # times that an inner address may have been encoded beyond what its place asks for

_WEB = re.compile(r"https?://[^/?#]", re.IGNORECASE)
_ENCODED = re.compile(r"https?%(?:25)*3a", re.IGNORECASE)
_INNER = re.compile(r"https?(?::|%(?:25)*3a).*", re.IGNORECASE | re.DOTALL)
_BARE = re.compile(r"(?:ssl:)?[a-z0-9-]+(?:\.[a-z0-9-]+)+(?::\d+)?/.", re.IGNORECASE)
_HEX = re.compile(r"/(?:[0-9a-f]{2}){8,}/?\Z", re.IGNORECASE)
_SAFE = "".join(chr(code) for code in range(33, 127) if chr(code) not in '"<>\\^`{|}')
_LOCAL = re.compile(r"(?:.*\.)?(?:localhost|local|internal|lan|home|intranet)|[^.]*", re.IGNORECASE)


@dataclass(frozen=True)
class Wrapper:
    """A row of the table: `host` and `path` are patterns, the first for the whole host, the second for a beginning.

    The inner address stands in one of `parameters`, in `form` "query" as others do, in "path" like Baidu's between
    the slashes. Form "behind" is an address behind the path, with its scheme; "host" is one without, its host first;
    "hex" is one in hexadecimal digits. An inner address in a private network is refused, but for an engine's `own`
    proxy, whose results lead where its originals are said to lie: step 5 refuses private addresses itself.
    """

    host: str
    path: str
    parameters: tuple[str, ...] = ()
    form: str = "query"
    own: bool = False

    def matches(self, host: str, path: str) -> re.Match[str] | None:
        return re.match(self.path, path, re.IGNORECASE) if re.fullmatch(self.host, host) else None


ANY = r".*"
WRAPPERS = (
    # Search engines: the proxies and viewers that their results name.
    Wrapper(r"search\.pstatic\.net", r"/(?:common|sunny)/?\Z", ("src",), own=True),
    Wrapper(r"gimg\d*\.baidu\.com", r"/image_search/", ("src",), "path", own=True),
    Wrapper(r"image\.baidu\.com", r"/search/(?:down|detail)\b", ("url", "objurl")),
    Wrapper(r"(?:www\.|cn\.)?bing\.com|th\.bing\.com|.*\.mm\.bing\.net", r"/", ("riu", "mediaurl")),
    Wrapper(r"(?:.*\.)?yandex\.(?:\w+|com\.tr)|ya\.ru", r"/images/", ("img_url",)),
    Wrapper(r"(?:www\.)?google\.[a-z.]+", r"/imgres\b", ("imgurl",)),
    Wrapper(r"(?:external-content|proxy)\.duckduckgo\.com", r"/iu/?\Z", ("u", "image_host")),
    Wrapper(r".*-opensocial\.googleusercontent\.com", r"/gadgets/proxy\b", ("url",)),
    # Public image proxies.
    Wrapper(r"images\.weserv\.nl|wsrv\.nl", r"/", ("url",)),
    Wrapper(r"i\d\.wp\.com", r"/", form="host"),
    Wrapper(r"cdn\.statically\.io", r"/img/", form="host"),
    Wrapper(r"slack-imgs\.com|imageproxy\.\w+\.\w+", r"/", ("url",)),
    Wrapper(r"external[\w.-]*\.fbcdn\.net|(?:www\.)?facebook\.com", r"/safe_image\.php", ("url",)),
    Wrapper(r"camo\.[\w.-]+", r"/[\w-]+(?=/)", form="hex"),
    Wrapper(r"images\.hive\.blog|steemitimages\.com", r"/", form="behind"),
    Wrapper(r"res\.cloudinary\.com", r"/[^/]+/image/fetch/", form="behind"),
    Wrapper(r"substackcdn\.com", r"/image/fetch/", form="behind"),
    # Software that many sites run themselves.
    Wrapper(ANY, r"/(?:[^?]*/)?_(?:next|vercel)/image/?\Z", ("url",)),
    Wrapper(ANY, r"/(?:[^?]*/)?_ipx/", form="behind"),
    Wrapper(ANY, r"/cdn-cgi/image/", form="behind"),
    Wrapper(ANY, r"/(?:[^?]*/)?(?:unsafe|thumbor)/", form="behind"),
    Wrapper(ANY, r"/(?:[^?]*/)?proxy\.php\Z", ("image",)),
    Wrapper(ANY, r"/(?:[^?]*/)?timthumb\.php\Z", ("src",)),
)


def unwrap(url: str) -> str:
    """Returns the innermost address that a proxy's address wraps; empty for any other.

    An inner address that is no http(s) one is refused; so is one in a private network, with the exception of `own`.
    """
    found = ""
    if not _may_wrap(url):
        return found
    for _ in range(MOST_NESTED):
        inner = _unwrap_once(found or url)
        if not inner:
            return found
        found = inner
    return ""  # an address that wraps itself again and again


def _may_wrap(url: str) -> bool:
    """Tells if an address holds what all addresses with an inner one have; the others are not taken apart.

    Plain searches, since a pattern of them takes longer than all else that is done with the address of a picture.
    """
    if "=" in url:
        return True
    low = url.lower()
    return "/http" in low or "camo" in low or ".wp.com/" in low or "statically.io/" in low


def _unwrap_once(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    host = host_of(url)
    for wrapper in WRAPPERS if host else ():
        if match := wrapper.matches(host, parts.path):
            for raw in _candidates(wrapper, parts.path[match.end() :], parts.query):
                if inner := _accepted(_complete(raw, wrapper, parts.query), wrapper.own):
                    return inner
    return ""


def _candidates(wrapper: Wrapper, rest: str, query: str) -> Iterator[str]:
    """Yields the texts in the places for an inner address, as they stand there."""
    following = f"?{query}" if query else ""
    if wrapper.form in ("query", "path"):
        # Baidu's parameters follow the path, and a question mark stands before the last ones.
        pairs = [pair.partition("=") for pair in re.split(r"[&?]" if wrapper.form == "path" else "&", rest + following)]
        pairs = pairs if wrapper.form == "path" else [pair.partition("=") for pair in query.split("&")]
        values = {name.lower(): value for name, _, value in reversed(pairs)}
        yield from (values[name] for name in wrapper.parameters if values.get(name))
    elif wrapper.form == "behind":
        # One slash of two is often lost on the way through a path.
        if match := _INNER.search(rest):
            raw = re.sub(r"\A(https?:)/+", r"\1//", match[0], flags=re.IGNORECASE)
            yield raw if _ENCODED.match(raw) else raw + following
    elif wrapper.form == "host":
        yield rest.lstrip("/")
    elif match := _HEX.search(rest):
        yield bytes.fromhex(match[0].strip("/")).decode("latin-1")


def _complete(raw: str, wrapper: Wrapper, query: str) -> str:
    """An inner address decoded as often as it has to be, with a scheme."""
    if wrapper.form == "host":
        host, _, path = raw.partition("/")
        if "statically" in wrapper.host:  # a segment such as `f=auto,w=400` is an option of the proxy
            path = re.sub(r"\A(?:\w+=[^/]*(?:,\w+=[^/]*)*)/", "", path)
        scheme = "https" if "statically" in wrapper.host or "ssl=1" in query.split("&") else "http"
        return f"{scheme}://{host}/{path}" if path and _BARE.match(f"{host}/{path}") else ""
    if wrapper.form not in ("behind", "hex") or _ENCODED.match(raw):
        raw = _decoded(raw)
    for _ in range(MOST_DECODED):
        if _ENCODED.match(raw) is None:
            break
        raw = _decoded(raw)
    if raw.startswith("//"):
        return "https:" + raw
    if _BARE.match(raw):
        return f"https://{raw[4:]}" if raw.lower().startswith("ssl:") else f"http://{raw}"
    return raw


def _decoded(raw: str) -> str:
    """Decodes once. Bytes that are no plain ASCII stay percent-encoded, in whatever encoding they are."""
    return quote(unquote_to_bytes(raw), safe=_SAFE)


def _accepted(inner: str, private: bool) -> str:
    """The address if it is one of the web, and a public one unless `private` ones may be; else empty."""
    if _WEB.match(inner) is None:
        return ""
    host = host_of(inner)
    if private:
        return inner if host else ""
    try:
        return inner if ipaddress.ip_address(host).is_global else ""
    except ValueError:
        return "" if not host or _LOCAL.fullmatch(host) or re.search(r"\.(?:0x)?\d+\Z", host) else inner


def with_originals(variants: Iterable[VariantRecord]) -> tuple[VariantRecord, ...]:
    """Puts the original that a proxy wraps before the others; the proxy's own address stays as a preview.

    Only addresses that are called original are taken apart. Sizes claimed for a proxy's address are the original's;
    those of a preview that the proxy may resize are unknown.
    """
    found: list[VariantRecord] = []
    for variant in variants:
        inner = unwrap(variant.url) if variant.kind == "original" else ""
        if inner:
            found.append(variant._replace(url=inner))
            found.append(VariantRecord("preview", variant.url, referer=variant.referer, expires_at=variant.expires_at))
        else:
            found.append(variant)
    return tuple(found)


_PAGE_ENDING = re.compile(r"\.(?:x?html?|shtml)\Z", re.IGNORECASE)
# Pages whose addresses end like a picture's, or have no ending: a wiki's description of a file, a photo's own page.
_PAGE_PATH = re.compile(r"/wiki/[^/:]{2,20}:[^/]+\Z|/index\.php\Z", re.IGNORECASE)
_PAGE_HOST = re.compile(r"https?://(?:www\.)?flickr\.com/photos/", re.IGNORECASE)


def is_page(url: str, page_url: str = "") -> bool:
    """Tells if an address leads to a web page and not to a picture: the page's own, or one that looks like a page's."""
    if url.endswith(_USUAL_ENDINGS) and "?" not in url and "#" not in url:
        lowered = url.lower()
        if "/wiki/" not in lowered and "flickr.com/photos/" not in lowered:
            return False  # most addresses, at a fifth of the time
    bare, page = (one.partition("#")[0].partition("://")[2].rstrip("/") for one in (url, page_url))
    path = bare.partition("?")[0].partition("/")[2]
    if bare and bare == page and _PICTURE_ENDING.search(path) is None:
        return True
    return bool(_PAGE_ENDING.search(path) or _PAGE_PATH.search("/" + path) or _PAGE_HOST.match(url))


_USUAL_ENDINGS = (".jpg", ".jpeg", ".png", ".gif", ".webp")
_PICTURE_ENDING = re.compile(r"\.(?:jpe?g|png|gif|webp|avif|bmp|tiff?|jxl|heic|svg|jfif)\Z", re.IGNORECASE)
# The side that an address names: `…/960w/…`, `…/640px-…`, `?w=300`, `…-1024x768.jpg`.
_NAMED_SIDE = re.compile(
    r"/(\d{2,5})w(?=/)|[/,]w_(\d{2,5})\b|/(?:[a-z]+\d*-)*(\d{2,5})px-|[?&](?:w|width)=(\d{2,5})\b"
    r"|[-_](\d{2,5})x\d{2,5}\.\w+\Z",
    re.IGNORECASE,
)


def sides_at(url: str, width: int | None, height: int | None) -> tuple[int | None, int | None]:
    """The claimed sides of what lies at an address; none where the address itself names another width."""
    named = {int(side) for match in _NAMED_SIDE.finditer(url) for side in match.groups() if side}
    if width and named and width not in named and height not in named:
        return None, None
    return width, height
