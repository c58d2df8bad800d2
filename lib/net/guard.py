"""Refuses private addresses at the last moment before a connection is made.

The check sits in the connector's socket factory, which sees every address that is about to be connected: literals,
answers of the name service (so rebinding gains nothing), and each hop of a redirect. `names_inside` and `leads_inside`
judge a host for ways to the network that this guard cannot stand in: a browser, a proxy that looks names up itself.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import ContextVar
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from lib.domains import one_form

Address = IPv4Address | IPv6Address

PRIVATE_ADDRESS = "private_address"
PORT_REFUSED = "port_refused"
PORTS = frozenset({80, 443, 8000, 8080, 8443})  # where pictures are served; mail and database ports are not among them

# `ipaddress.is_global` says True for several of these, and which ones differs between versions of Python.
_NETWORKS = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24"
        " 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"
        " ::/128 ::1/128 100::/64 2001:2::/48 2001:10::/28 2001:20::/28 2001:db8::/32 3fff::/20 5f00::/16"
        " 64:ff9b:1::/48 fc00::/7 fe80::/10 fec0::/10 ff00::/8"
    ).split()
)
_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")

# What the guard refused during the current request: the connector may fold several errors into one of its own.
refusals: ContextVar[list[str]] = ContextVar("refusals")

_NAMES = ("localhost", "local", "internal", "intranet", "lan", "home.arpa")


class RefusedAddress(OSError):
    """A connection was refused by our own rules, before a packet left. `reason` is private_address or port_refused."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


def is_private(text: str) -> bool:
    """Tells if an IP address (no name) leads anywhere but to the public internet, also when wrapped into IPv6."""
    address: Address = ip_address(text.partition("%")[0])
    return any(_listed(one) for one in (address, *embedded(address)))


def embedded(address: Address) -> Iterable[IPv4Address]:
    """The IPv4 addresses that an IPv6 address stands for: mapped, compatible, 6to4, NAT64, Teredo, ISATAP."""
    if isinstance(address, IPv4Address):
        return
    packed = address.packed
    last = IPv4Address(packed[12:])
    translated = packed[:12] == bytes(8) + b"\xff\xff\0\0" or address in _NAT64
    compatible = address in _COMPATIBLE and int(address) > 1
    if address.ipv4_mapped or translated or compatible:
        yield last
    if packed[:2] == b"\x20\x02":
        yield IPv4Address(packed[2:6])
    if address.teredo:
        yield from address.teredo
    if packed[8:12] in (b"\0\0\x5e\xfe", b"\x02\0\x5e\xfe"):
        yield last


def _listed(address: Address) -> bool:
    # Outside 2000::/3 nothing is given out; the translated forms were unwrapped before.
    unicast = address.version == 4 or 0x2 <= address.packed[0] >> 4 <= 0x3
    return any(address in network for network in _NETWORKS) or not (unicast or any(embedded(address)))


def socket_factory(
    *, allow_private: bool, ports: frozenset[int] = PORTS, exempt: frozenset[str] = frozenset()
) -> Callable[[tuple[Any, ...]], socket.socket]:
    """The connector's maker of a socket for an address; it raises RefusedAddress instead where it must not.

    `exempt` are single addresses that are let through with any port.
    """

    def make(info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not allow_private and address[0] not in exempt:
            _check(str(address[0]), int(address[1]), ports)
        return socket.socket(family, kind, protocol)

    return make


def _check(host: str, port: int, ports: frozenset[int]) -> None:
    reason = PRIVATE_ADDRESS if is_private(host) else PORT_REFUSED if port not in ports else ""
    if reason:
        refusals.get([]).append(reason)
        raise RefusedAddress(reason, f"{host} port {port}")


def names_inside(host: str) -> bool:
    """Tells if the name itself leads inside: an address in any spelling that systems read, or this machine's name."""
    name = one_form(host.strip("[]"))  # a browser and the name service read `127。0。0。1` too
    if name in _NAMES or name.endswith(tuple(f".{known}" for known in _NAMES)):
        return True
    with suppress(ValueError):
        return is_private(name)
    with suppress(OSError):  # 2130706433, 0x7f.1, 017700000001
        return is_private(socket.inet_ntoa(socket.inet_aton(name)))
    return False


async def leads_inside(host: str) -> bool:
    """The same, also asking the name service; a name that it does not know leads nowhere."""
    import asyncio  # step 4 judges addresses by this module and has no use for a loop

    if names_inside(host):
        return True
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return any(is_private(str(address[0])) for *_, address in found)
