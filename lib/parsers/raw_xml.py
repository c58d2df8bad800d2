"""XML from outside: no document types, no entities, bounded in size."""

from __future__ import annotations

import re
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from lib.parsers.raw_json import LARGEST_BODY
from lib.records import ParseError

MOST_TAGS = 500_000
# Entity bombs and references to files need a document type, and no answer that we read has one.
_FORBIDDEN = re.compile(rb"<!\s*(?:DOCTYPE|ENTITY)", re.IGNORECASE)


def load_xml(body: bytes) -> Element:
    """The root element. Raises ParseError: `too_large`, `too_complex`, `not_xml`."""
    if len(body) > LARGEST_BODY:
        raise ParseError("too_large")
    if body.count(b"<") > MOST_TAGS:
        raise ParseError("too_complex")
    # In UTF-16 the words above are spelled with NULs between their letters.
    if _FORBIDDEN.search(body) or b"\x00" in body[:200]:
        raise ParseError("not_xml")
    try:
        return ElementTree.fromstring(body)
    except (ElementTree.ParseError, ValueError, LookupError, RecursionError):
        raise ParseError("not_xml") from None
