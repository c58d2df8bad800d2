"""The proxy of `--proxy`: its address from anywhere, its credentials from the environment only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from lib.errors import UsageError


@dataclass(frozen=True)
class Proxy:
    """A proxy's address without credentials, and the credentials, which are never written anywhere."""

    server: str
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Proxy({self.server!r})"


def read_proxy(text: str | None, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy of `--proxy`, with credentials from `GLEANER_PROXY` only. Raises UsageError."""
    stored = environment.get("GLEANER_PROXY", "")
    if not text:
        return None
    try:
        parts, known = urlsplit(text), urlsplit(stored)
        address = (parts.hostname or "", parts.port)
        matches = (known.hostname or "", known.port) == address
    except ValueError:
        raise UsageError("--proxy is no address; write it as http://HOST:PORT or socks5://HOST:PORT.") from None
    if parts.scheme not in ("http", "https", "socks5") or not address[0]:
        raise UsageError("--proxy is no address; write it as http://HOST:PORT or socks5://HOST:PORT.")
    if "@" in parts.netloc and text != stored:
        raise UsageError("--proxy must not carry a password, which others could see; put it into GLEANER_PROXY.")
    secret = known if matches else parts
    server = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    return Proxy(server, unquote(secret.username or ""), unquote(secret.password or ""))
