"""A picture server that costs as little as possible: one process, raw protocol, bodies made before it starts.

    python bench/_server.py --cert FILE --key FILE

prints `<http port> <https port>` and serves `/<KiB>/<number>.jpg` on every loopback address until it is ended. Every
number gives other bytes: a photograph of the wanted size with the number in a comment.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import ssl
import struct
from functools import lru_cache


@lru_cache(maxsize=8)
def photograph(kilobytes: int) -> bytes:
    """A JPEG of about so many KiB: a sample photograph, repeated and cut, at the quality that comes nearest."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("china.jpg"))
    side = 320 if kilobytes <= 40 else 1000
    picture = photo.resize((side, side * 2 // 3), Image.Resampling.LANCZOS)
    tries = [_encoded(picture, quality) for quality in range(30, 99, 2)]
    return min(tries, key=lambda data: abs(len(data) - kilobytes * 1024))


def _encoded(picture: object, quality: int) -> bytes:
    made = io.BytesIO()
    picture.save(made, "JPEG", quality=quality)  # type: ignore[attr-defined]
    return made.getvalue()


def numbered(kilobytes: int, number: int) -> bytes:
    """The photograph with a number of its own."""
    whole = photograph(kilobytes)
    return whole[:2] + b"\xff\xfe" + struct.pack(">HI", 6, number) + whole[2:]


class Serve(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, GET only; `Connection: close` is honoured."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.pending = b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        while (end := self.pending.find(b"\r\n\r\n")) >= 0:
            head, self.pending = self.pending[:end], self.pending[end + 4 :]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1]
        close = b"connection: close" in head.lower()
        try:
            _, size, name = path.split(b"/")
            body = numbered(int(size), int(name.partition(b".")[0]))
            status = b"200 OK"
        except ValueError:
            body, status = b"", b"404 Not Found"
        length = str(len(body)).encode()
        kind = b"\r\nContent-Type: image/jpeg\r\nContent-Length: "
        end = b"\r\nConnection: close\r\n\r\n" if close else b"\r\n\r\n"
        self.transport.write(b"HTTP/1.1 " + status + kind + length + end + body)  # type: ignore[attr-defined]
        if close:
            self.transport.close()


async def main() -> None:
    made = argparse.ArgumentParser()
    made.add_argument("--cert")
    made.add_argument("--key")
    made.add_argument("--sizes", type=int, nargs="*", default=[20, 300])
    args = made.parse_args()
    for size in args.sizes:
        photograph(size)
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(Serve, "0.0.0.0", 0, backlog=1024)
    ports = [plain.sockets[0].getsockname()[1]]
    if args.cert:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(args.cert, args.key)
        secure = await loop.create_server(Serve, "0.0.0.0", 0, ssl=context, backlog=1024)
        ports.append(secure.sockets[0].getsockname()[1])
    print(*ports, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
