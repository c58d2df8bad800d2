"""The short, stable name of everything that can go wrong with one address, and when to try again."""

from __future__ import annotations

import random
import re

from lib import times

LONGEST_RETRY_AFTER = 3600.0  # seconds; what a server may ask for at most in one answer
LONGEST_BACKOFF = 60.0  # seconds

# Trying again later may help. Everything else is the answer to that address.
TRANSIENT = frozenset(
    "timeout connect_error dns_error disconnected truncated too_slow bad_response http_408 http_425 http_429 http_500"
    " http_502 http_503 http_504 http_520 http_521 http_522 http_523 http_524 http_529 http_530 bad_range".split()
)
# The host says that it is too much, so the whole host is left alone for a while.
SLOW_DOWN = frozenset({"http_429", "http_503"})
# The host struggles: fewer requests at once.
STRAIN = SLOW_DOWN | {"timeout", "too_slow", "connect_error"}
# Many of these in a row, and the host is down. (After a 429 or 503 it is paused instead.)
FAULTS = TRANSIENT - SLOW_DOWN - {"too_slow", "truncated", "bad_range"}

FINAL = frozenset(
    "bad_redirect too_many_redirects tls_error bad_url not_an_image svg_refused undecodable empty encoded_body"
    " placeholder too_large too_many_pixels too_many_frames too_many_parts decode_timeout decode_memory decode_crashed"
    " private_address port_refused robots_txt blocked_domain not_allowed_domain removed_repeat no_address".split()
)
_STATUS = re.compile(r"http_[1-5]\d\d")


def backoff(tries: int, base: float) -> float:
    """Seconds to wait after `tries` failures: a random share of base * 2^(tries-1) ("full jitter"), at most a minute.

    The random share keeps rows that failed together from coming back together.
    """
    return random.uniform(0, min(LONGEST_BACKOFF, base * 2 ** max(0, tries - 1)))


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds to wait, from a Retry-After header in seconds or as an HTTP date; None when it says nothing usable.

    Negative, past and broken values are ignored; longer ones are cut to an hour. `now` is a Unix time.
    """
    seconds = times.retry_after(value, most=LONGEST_RETRY_AFTER, now=now)
    return seconds if seconds is not None and seconds >= 0 else None


def is_reason(text: str) -> bool:
    """Tells if a picture may fail for this reason, so that a command line can tell one from a typing error."""
    return text in TRANSIENT or text in FINAL or _STATUS.fullmatch(text) is not None
