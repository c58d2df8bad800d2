"""A server that writes whatever bytes a test gives it, head and framing included, on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from loop_server import running

Answer = bytes | Callable[[bytes], bytes]  # a function is given the head of the request


@dataclass
class RawSite:
    """What is served under which path, what was asked for, and the address of the server."""

    url: str = ""
    answers: dict[str, Answer] = field(default_factory=dict)
    robots: bytes = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    requests: list[bytes] = field(default_factory=list)  # the heads, without those for robots.txt
    held: set[str] = field(default_factory=set)  # paths after which the connection stays open

    @property
    def targets(self) -> list[str]:
        """The request targets, byte for byte."""
        return [head.split(b" ")[1].decode("latin-1") for head in self.requests]


@contextmanager
def raw_server() -> Iterator[RawSite]:
    """The server in a thread of its own; every answer ends with the connection, unless the path is held."""
    site = RawSite()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode("latin-1")
            if path == "/robots.txt":
                writer.write(site.robots)
            else:
                site.requests.append(head)
                found = site.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                writer.write(found(head) if callable(found) else found)
            await writer.drain()
            if path in site.held:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def serve(ready: Callable[[], None], end: asyncio.Event) -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        site.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ready()
        await end.wait()
        server.close()

    with running(serve):
        yield site
