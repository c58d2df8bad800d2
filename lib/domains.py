"""Host names and the domains that people register, by the public suffix list that ships with tldextract."""

from __future__ import annotations

import ipaddress
import re
from functools import lru_cache
from typing import Any

_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^/?#:]*)")
KEPT = 65_536  # answers remembered; a crawl meets the same hosts again and again


def host_of(url: str) -> str:
    """The host name of a URL in lower case, without port and final dot; empty where there is none."""
    if url[:8] == "https://" or url[:7] == "http://":
        end = url.find("/", 8)
        return _known_host(url if end < 0 else url[:end])
    return _read_host(url)


def _read_host(url: str) -> str:
    match = _HOST.match(url)
    return match[1].strip("[]").rstrip(".").lower() if match else ""


_known_host = lru_cache(maxsize=KEPT)(_read_host)


@lru_cache(maxsize=KEPT)
def registrable_domain(host: str) -> str:
    """The domain that somebody registered: `example.co.uk` for `img.example.co.uk`.

    An IP address, `localhost` and a bare public suffix stand for themselves; below an unknown top-level domain the
    last two labels count, as the public suffix list has it. Private suffixes (`github.io`) are not split off.
    """
    host = host.strip("[]").rstrip(".").lower()
    if not host or is_address(host) or "." not in host:
        return host
    parts = _extractor().extract_str(host)
    if parts.suffix:
        return f"{parts.domain}.{parts.suffix}" if parts.domain else host
    return ".".join([label for label in host.split(".") if label][-2:])


def is_address(host: str) -> bool:
    """Whether a host name is an IP address."""
    try:
        ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _extractor() -> Any:
    import tldextract

    # No addresses and no folder: the bundled list only, neither network nor cache files.
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, fallback_to_snapshot=True)
