"""The reasons that a picture may fail with, so that a command line can be told a known one from a typing error."""

from __future__ import annotations

import re

from lib.net.retry import TRANSIENT

FINAL = frozenset(
    "bad_redirect too_many_redirects tls_error bad_url not_an_image svg_refused undecodable empty encoded_body"
    " placeholder too_large too_many_pixels too_many_frames too_many_parts decode_timeout decode_memory decode_crashed"
    " private_address port_refused robots_txt blocked_domain not_allowed_domain removed_repeat no_address".split()
)
_STATUS = re.compile(r"http_[1-5]\d\d")


def is_reason(text: str) -> bool:
    """Whether a picture may fail for this reason."""
    return text in TRANSIENT or text in FINAL or _STATUS.fullmatch(text) is not None
