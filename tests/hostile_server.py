"""A web server for the downloader's tests: honest pictures, and every way of being a nuisance, on real sockets."""

from __future__ import annotations

import asyncio
import gzip
import io
import math
import struct
import time
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate

from aiohttp import web
from loop_server import running
from PIL import Image

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def picture(number: int = 0, size: tuple[int, int] = (48, 32), form: str = "JPEG", **options: object) -> bytes:
    """A small picture; every number gives other bytes."""
    image = Image.new("RGB", size, (number * 37 % 256, number * 91 % 256, number // 256 % 256))
    image.putpixel((number % size[0], 0), (255, 255, 255))
    made = io.BytesIO()
    image.save(made, form, **options)
    return made.getvalue()


def jpeg(number: int = 0, size: tuple[int, int] = (48, 32)) -> bytes:
    """A JPEG whose bytes are its number's own, also where two pictures come out alike."""
    made = picture(number, size)
    return made[:2] + b"\xff\xfe" + struct.pack(">HI", 6, number) + made[2:]


def pixel_bomb(side: int = 60_000) -> bytes:
    """A PNG of a few dozen bytes that claims billions of pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )


def many_frames(frames: int = 3000, side: int = 2000) -> bytes:
    """An animation of a few kilobytes that claims billions of pixels: tiny blocks on a large screen."""
    made = io.BytesIO()
    Image.new("L", (1, 1)).save(made, "GIF")
    one = made.getvalue()
    start = 13 + (3 << ((one[10] & 7) + 1))
    screen = struct.pack("<HH", side, side)
    return one[:6] + screen + one[10:start] + one[start:-1] * frames + b";"


def broken_png() -> bytes:
    """A PNG with a sound header, a sound end, and pixels that do not unpack."""
    made = bytearray(picture(6, (400, 300), "PNG"))
    at = made.index(b"IDAT") + 10
    made[at : at + 30] = bytes(30)
    return bytes(made)


def animation(frames: int = 40) -> bytes:
    """An animation of 400 by 300 pixels a frame."""
    images = [Image.new("L", (400, 300), n) for n in range(frames)]
    made = io.BytesIO()
    images[0].save(made, "GIF", save_all=True, append_images=images[1:])
    return made.getvalue()


HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>" + b"please " * 200 + b"</body></html>"
SVG = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'


class Site:
    """What was asked, with which headers; and the address of the server."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}
        self.peers: set[tuple[str, int]] = set()
        self.at_once = self.most_at_once = 0
        self.url = self.raw_url = ""
        self.slow = 0.0
        self.held = False  # good pictures are asked for and not served
        self.most = math.inf  # requests, after which they are not served either
        self.version = 0  # of what `tagged` and `broken` serve
        self.changes = 0  # how much newer `broken` is after each cut
        self.unchanged: dict[str, str] = {}  # what `tagged` says besides "not modified"
        self.part = 3 << 20
        self.lie = False
        self.hold = 0.0  # seconds that `broken` waits before it ends
        self.undated = True  # `broken` has an entity tag and no date
        self.ranges: list[int] = []
        self.robots: str | int | None = None  # the text of robots.txt, or a status
        self.robots_headers: dict[str, str] = {}
        self.robots_asked: Counter[str] = Counter()
        self.bodies: dict[int, bytes] = {}  # what `body` serves, by number

    def address(self, path: str) -> str:
        return (self.raw_url if path.startswith("/raw") else self.url) + path


async def _send(request: web.Request, headers: dict[str, str], parts: AsyncIterator[bytes]) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    try:
        async for part in parts:
            await response.write(part)
    except (ConnectionError, asyncio.CancelledError):
        pass
    return response


async def _forever(part: bytes, pause: float, first: bytes = b"") -> AsyncIterator[bytes]:
    yield first
    while True:
        await asyncio.sleep(pause)
        yield part


async def _packed_for_ever() -> AsyncIterator[bytes]:
    """A gzip body that never unpacks to anything: empty blocks, five bytes each."""
    yield bytes.fromhex("1f8b0800000000000003")
    while True:
        yield b"\0\0\0\xff\xff" * 13_000


async def _once(part: bytes) -> AsyncIterator[bytes]:
    yield part


def _number(request: web.Request) -> int:
    return int(request.path.rsplit("/", 1)[1].partition(".")[0])


def handlers(site: Site) -> dict[str, Handler]:
    """What each first part of a path does."""

    def body(data: bytes, mime: str = "image/jpeg", **headers: str) -> Handler:
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=data, content_type=mime, headers=named)

        return answer

    def status(code: int, **headers: str) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=code, headers={k.replace("_", "-"): v for k, v in headers.items()})

        return answer

    def redirect(target: str) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": target.replace("SITE", site.url)})

        return answer

    async def hop(request: web.Request) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": request.query["to"]})

    def at_first(failure: Handler, times: int = 1) -> Handler:
        async def answer(request: web.Request) -> web.StreamResponse:
            if site.asked[request.path] <= times:
                return await failure(request)
            return web.Response(body=jpeg(_number(request)), content_type="image/jpeg")

        return answer

    async def good(request: web.Request) -> web.StreamResponse:
        site.at_once += 1
        site.most_at_once = max(site.most_at_once, site.at_once)
        await asyncio.sleep(site.slow)
        while site.held or sum(site.asked.values()) > site.most:
            await asyncio.sleep(0.01)
        site.at_once -= 1
        number = _number(request)
        return web.Response(body=jpeg(number), content_type="image/jpeg", headers={"ETag": f'"{number}"'})

    async def cut(request: web.Request) -> web.StreamResponse:
        response = await _send(request, {"Content-Type": "image/jpeg", "Content-Length": "90000"}, _once(jpeg(1)))
        request.transport.close()  # not abort(): what was written must still arrive
        return response

    async def endless(request: web.Request) -> web.StreamResponse:
        return await _send(request, {"Content-Type": "image/jpeg"}, _forever(b"x" * 65536, 0.0, jpeg(1)))

    async def gzip_tail(request: web.Request) -> web.StreamResponse:
        packed = gzip.compress(jpeg(1))
        return await _send(request, {"Content-Encoding": "gzip"}, _forever(b"x" * 65536, 0.0, packed))

    async def gzip_void(request: web.Request) -> web.StreamResponse:
        return await _send(request, {"Content-Encoding": "gzip"}, _packed_for_ever())

    async def huge(request: web.Request) -> web.StreamResponse:
        return await _send(request, {"Content-Length": str(10 << 30)}, _forever(b"x" * 65536, 0.01, jpeg(1)))

    async def loris(request: web.Request) -> web.StreamResponse:
        return await _send(request, {"Content-Length": "50000"}, _forever(b"x", 0.05, jpeg(1)))

    async def silent(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(30)
        return web.Response()

    async def after(request: web.Request) -> web.StreamResponse:
        while sum(path.startswith("/good/") for path in site.asked) < 6:
            await asyncio.sleep(0.01)
        return await good(request)

    async def referer(request: web.Request) -> web.StreamResponse:
        if request.headers.get("Referer", "") != request.query.get("want", ""):
            return web.Response(status=403)
        return web.Response(body=jpeg(_number(request)), content_type="image/jpeg")

    async def numbered(request: web.Request) -> web.StreamResponse:
        return web.Response(body=site.bodies[_number(request)], content_type="image/jpeg")

    async def dated(request: web.Request) -> web.StreamResponse:
        return web.Response(status=429, headers={"Retry-After": formatdate(time.time() + 2, usegmt=True)})

    async def large(request: web.Request) -> web.StreamResponse:
        return web.Response(body=jpeg(_number(request), (200, 100)), content_type="image/jpeg")

    async def big(request: web.Request) -> web.StreamResponse:
        whole = jpeg(_number(request))
        return web.Response(body=whole + b"\0" * (6 << 20), content_type="image/jpeg")

    async def tagged(request: web.Request) -> web.StreamResponse:
        """A picture with an entity tag that changes with `site.version`, for conditional requests."""
        tag = f'"{_number(request)}-{site.version}"'
        if request.headers.get("If-None-Match") == tag:
            return web.Response(status=304, headers={"ETag": tag, **site.unchanged})
        return web.Response(
            body=jpeg(_number(request) + site.version), content_type="image/jpeg", headers={"ETag": tag}
        )

    async def broken(request: web.Request) -> web.StreamResponse:
        """Six megabytes whose transfer ends after `site.part` bytes; a range is served as far again."""
        whole = jpeg(_number(request)) + bytes(6 << 20)
        tag = f'"{len(whole)}-{site.version}"' if site.undated else formatdate(1e9 + site.version, usegmt=True)
        start = 0
        wanted = request.headers.get("Range", "")
        if wanted and request.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        site.ranges.append(start)
        status = 206 if start else 200
        shown = start + 1 if site.lie and start else start
        version = {"ETag": tag} if site.undated else {"Last-Modified": tag}
        headers = {"Content-Type": "image/jpeg", "Accept-Ranges": "bytes", **version}
        headers["Content-Length"] = str(len(whole) - start)
        if start:
            headers["Content-Range"] = f"bytes {shown}-{len(whole) - 1}/{len(whole)}"
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        await response.write(whole[start : start + site.part])
        if start + site.part < len(whole):
            await asyncio.sleep(site.hold)
            site.version += site.changes
            request.transport.close()
        return response

    bomb = gzip.compress(jpeg(1) + bytes(64 << 20), 9)
    return {
        "good": good,
        "body": numbered,
        "png": body(picture(5, form="PNG"), "image/jpeg"),
        "octet": body(jpeg(9), "application/octet-stream"),
        "html": body(HTML),
        "json": body(b'{"error": "not found"}'),
        "svg": body(SVG, "image/svg+xml"),
        "empty": body(b""),
        "noise": body(bytes(range(256)) * 4),
        "bomb": body(pixel_bomb(), "image/png"),
        "gzip": body(bomb, Content_Encoding="gzip"),
        "gziptail": gzip_tail,
        "gzipvoid": gzip_void,
        "brotli": body(b"\x0b\x02\x80", Content_Encoding="br"),
        "packed": body(gzip.compress(jpeg(8)), Content_Encoding="gzip"),
        "cut": cut,
        "tagged": tagged,
        "broken": broken,
        "removed.png": body(picture(3, form="PNG"), "image/png"),
        "taken": redirect("SITE/removed.png"),
        "polyglot": body(jpeg(4) + b"PK\x03\x04<script>alert(1)</script>"),
        "half": body(broken_png(), "image/png"),
        "frames": body(animation(), "image/gif"),
        "vast": body(picture(7, (3000, 3000), "PNG"), "image/png"),
        "large": large,
        "endless": endless,
        "huge": huge,
        "loris": loris,
        "silent": silent,
        "after": after,  # six good pictures have been asked for
        "referer": referer,
        "big": big,
        "missing": status(404),
        "forbidden": status(403),
        "gone": status(410),
        "legal": status(451),
        "error": status(500),
        "late": status(429, Retry_After="1000000000"),
        "flaky": at_first(status(500)),
        "wait": at_first(status(429, Retry_After="1")),
        "date": at_first(dated),
        "garbage": at_first(status(503, Retry_After="-1")),
        "noai": body(jpeg(1), X_Robots_Tag="noai, noimageai"),
        "ours": body(jpeg(1), X_Robots_Tag="gleaner: noindex"),
        "theirs": body(jpeg(2), X_Robots_Tag="otherbot: noai"),
        "tdm": body(jpeg(1), tdm_reservation="1"),
        "loop": redirect("SITE/loop/1"),
        "file": redirect("file:///etc/hostname"),
        "data": redirect("data:image/png;base64,iVBORw0KGgo="),
        "ftp": redirect("ftp://127.0.0.1/a.jpg"),
        "script": redirect("javascript:alert(1)"),
        "inside": redirect("http://169.254.169.254/latest/meta-data/"),
        "mapped": redirect("http://[::ffff:127.0.0.1]:1/"),
        "mail": redirect("http://93.184.216.34:25/"),
        "zstd": body(b"\x28\xb5\x2f\xfd", Content_Encoding="zstd"),
        "twice": body(bomb, Content_Encoding="gzip, gzip"),
        "manyframes": body(many_frames(), "image/gif"),
        "disposition": body(jpeg(2), Content_Disposition='attachment; filename="../../evil.php"'),
        "escape": body(b"<html><title>\x1b]0;owned\x07\x1b[31mred</title>" + b" " * 600),
        "hop": hop,
        "moved": redirect("SITE/good/77"),
        "metadata": redirect("http://127.0.0.2:9/latest"),
        "nowhere": status(302),
        "cookie": body(jpeg(3), Set_Cookie="id=1"),
    }


RAW = {
    "/raw/closed": b"HTTP/1.0 200 OK\r\n\r\n" + jpeg(1, (400, 300))[:-9],  # nobody said how long it is
    "/raw/whole": b"HTTP/1.0 200 OK\r\n\r\n" + jpeg(1, (400, 300)),
    "/raw/longer": b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n" + jpeg(1, (400, 300)),
    "/raw/status": b"HTTP/9 what\r\n\r\n",
    "/raw/flood": b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 900) for n in range(2000)),
    "/raw/line": b"HTTP/1.1 200 OK\r\nX-Long: " + b"y" * 1_000_000 + b"\r\n\r\n",
    "/raw/hangup": b"",
}


@contextmanager
def hostile_server() -> Iterator[Site]:
    """The server in a thread of its own."""
    site = Site()

    async def serve(ready: Callable[[], None], end: asyncio.Event) -> None:
        runner = web.AppRunner(_app(site), shutdown_timeout=0.1, access_log=None)
        await runner.setup()
        here = web.TCPSite(runner, "127.0.0.1", 0)
        await here.start()
        raw = await asyncio.start_server(lambda r, w: _raw(site, r, w), "127.0.0.1", 0)
        site.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        site.raw_url = f"http://127.0.0.1:{raw.sockets[0].getsockname()[1]}"
        ready()
        await end.wait()
        raw.close()
        await runner.cleanup()

    with running(serve):
        yield site


def _app(site: Site) -> web.Application:
    table = handlers(site)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/robots.txt":
            site.robots_asked[request.host] += 1
            if isinstance(site.robots, str):
                return web.Response(text=site.robots, headers=site.robots_headers)
            return web.Response(status=site.robots or 404)
        site.asked[request.path] += 1
        site.headers[request.path] = dict(request.headers)
        site.peers.add(request.transport.get_extra_info("peername"))
        handler = table.get(request.path.split("/")[1])
        return await handler(request) if handler else web.Response(status=404)

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    return app


async def _raw(site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        site.asked[path] += 1
        if path == "/raw/headers":  # a header a while, for ever
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while True:
                writer.write(b"X-More: 1\r\n")
                await writer.drain()
                await asyncio.sleep(0.05)
        writer.write(RAW[path])
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()
