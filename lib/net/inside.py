"""Whether a name or an address that a stranger wrote down leads into private networks, before anything is asked there.

`lib.net.guard` sees the addresses that are about to be connected; this is for ways that it cannot stand in: a browser,
and a proxy that looks names up itself.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from lib.net.guard import is_private

_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home.arpa")


def names_inside(host: str) -> bool:
    """Whether the name itself says so: an address in any of the ways that systems read, or a name of this machine."""
    name = host.strip("[]").rstrip(".").lower()
    if name in _NAMES or name.endswith(tuple(f".{known}" for known in _NAMES)):
        return True
    with suppress(ValueError):
        return is_private(name)
    with suppress(OSError):  # 2130706433, 0x7f.1, 017700000001
        return is_private(socket.inet_ntoa(socket.inet_aton(name)))
    return False


async def leads_inside(host: str) -> bool:
    """The same, also asking the name service; a name that it does not know leads nowhere."""
    if names_inside(host):
        return True
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(is_private(str(address[0])) for *_, address in found)
