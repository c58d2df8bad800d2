"""Addresses that somebody else wrote down: which may be asked at all, and in which form."""

from __future__ import annotations

import re

from yarl import URL

LONGEST = 8000  # characters; servers refuse longer request lines
BAD_URL = "bad_url"

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
_PLAIN = re.compile(r"[!-~]+")


class BadAddress(ValueError):
    """The address cannot be asked; the message says what is wrong with it."""


def parse_address(text: str) -> URL:
    """The address as it will be asked: http or https, no name and password, no fragment. Raises BadAddress.

    An address that is plain ASCII is sent byte for byte: signed addresses break when their escapes are rewritten.
    """
    text = text.strip(" ")
    if len(text) > LONGEST:
        raise BadAddress(f"longer than {LONGEST} characters")
    if _FORBIDDEN.search(text):
        raise BadAddress("a backslash or control character")
    try:
        url = URL(text, encoded=_PLAIN.fullmatch(text) is not None)
        if url.scheme not in ("http", "https"):
            raise BadAddress(f"{url.scheme or 'no'} scheme; only http and https are fetched")
        if not url.host or not url.port:
            raise BadAddress("no host")
        return url.with_user(None) if url.raw_user or url.raw_password else url
    except BadAddress:
        raise
    except ValueError as error:  # yarl: bad port, bad IPv6 literal, a host that no IDNA can spell
        raise BadAddress(str(error)[:200]) from error


def redirected(url: URL, location: str) -> URL:
    """The address that a redirect from `url` leads to, under the rules of `parse_address`. Raises BadAddress."""
    location = location.strip(" ")
    if len(location) > LONGEST or _FORBIDDEN.search(location):
        raise BadAddress("a redirect that is no address")
    try:
        target = URL(location, encoded=_PLAIN.fullmatch(location) is not None)
        target = target if target.scheme else url.join(target)
    except ValueError as error:
        raise BadAddress(str(error)[:200]) from error
    return parse_address(str(target))


def host_of(url: URL) -> str:
    """`host:port` in lower case: the key under which requests are counted and paced."""
    return f"{(url.raw_host or '').lower().rstrip('.')}:{url.port}"
