"""The least that any client has to do: take bodies from sockets, hash them, write them, rename them; no checks.

    python bench/_bare.py PORT KIB FIRST COUNT FOLDER

One process with one connection; prints `<seconds> <processor seconds>`. `bench/download.py` runs a few at once.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import time


def main() -> None:
    port, size, first, count = map(int, sys.argv[1:5])
    room = bytearray(4 << 20)
    view = memoryview(room)
    started, before = time.perf_counter(), time.process_time()
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for number in range(first, first + count):
            connection.sendall(f"GET /{size}/{number}.jpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            keep(receive(connection, view), f"{sys.argv[5]}/{number}.jpg")
    print(time.perf_counter() - started, time.process_time() - before)


def receive(connection: socket.socket, view: memoryview) -> memoryview:
    """The body of one answer, in the room that is there."""
    have = connection.recv_into(view)
    head, _, _ = bytes(view[:have]).partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    start = len(head) + 4
    while have < start + length:
        have += connection.recv_into(view[have:])
    return view[start : start + length]


def keep(body: memoryview, path: str) -> None:
    hashlib.sha256(body).hexdigest()
    with open(f"{path}.part", "xb", buffering=0) as handle:
        handle.write(body)
    os.replace(f"{path}.part", path)


if __name__ == "__main__":
    main()
