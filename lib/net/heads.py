"""Heads of answers that break the rules of HTTP, mended before aiohttp's parser sees them, and bodies that break off.

A strict parser refuses an answer whose length stands there twice, whose header has a blank before its colon, whose
length is no number. Browsers show the picture. Here such a head is rewritten to what it can only mean; where two
lengths contradict each other, the body ends with the connection. A connection with such an answer is never used again,
so that nothing of it can be taken for the next answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import aiohttp
from aiohttp.client_proto import ResponseHandler

MOST_HEAD = 64 * 1024  # bytes; a longer one is left to the parser, which refuses it
_LARGEST = 10**18  # a length that no answer has and that 64 bits hold

# What the parser takes as it stands: one length in digits or chunks, and no other framing. Its group: the chunks.
_OTHERS = rb"(?:(?!(?i:content-length|transfer-encoding):)[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t -~\x80-\xff]*\r\n)*"
_ONE = rb"(?:(?i:content-length):[ \t]*\d{1,18}[ \t]*|((?i:transfer-encoding):[ \t]*(?i:chunked)[ \t]*))\r\n"
_SOUND = re.compile(
    rb"HTTP/1\.[01] [1-9]\d\d(?: [\t -~\x80-\xff]*)?\r\n" + _OTHERS + rb"(?:" + _ONE + _OTHERS + rb")?\r\n"
)
_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"(?:HTTP/([0-3])(?:\.(\d))?|ICY)[ \t]+([1-9]\d\d)(?!\d)[ \t]*(.*)", re.IGNORECASE | re.DOTALL)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]+[ \t]*(?:[;\r\n]|$)")
_WITHOUT_BODY = (b"1", b"204", b"304")
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"keep-alive"})


class LenientHandler(ResponseHandler):
    """aiohttp's reader of answers, which is given mended heads and says so when the framing of a body breaks."""

    _head: bytes | None = None  # what is here of a head, and of the body where that has to be seen too

    def set_response_params(self, **options: Any) -> None:
        self._head = b""
        super().set_response_params(**options)

    def data_received(self, data: bytes) -> None:
        resumes = not data  # aiohttp has its parser go on with what lay there while the reading was paused
        if self._head is not None and data:
            data = self._take_head(data)
        if data or resumes:
            super().data_received(data)
        payload, error = self._payload, self._exception
        if error is not None and payload is not None and payload.exception() is None and not payload.is_eof():
            # The parser tells the connection alone, and whoever reads the body would wait for ever.
            payload.set_exception(aiohttp.ClientPayloadError(f"the framing of the body breaks: {error}"), error)

    def connection_lost(self, exc: BaseException | None) -> None:
        held, self._head = self._head, None
        if held:
            super().data_received(mend_head(*_parted(held), ended=True) or held)
        super().connection_lost(exc)

    def _take_head(self, data: bytes) -> bytes:
        """Hands the head to the parser when it is whole; gives what comes after it.

        Apart from the body: an error of the parser in what follows would take the whole answer with it.
        """
        before = self._head or b""
        data = before + data if before else data.lstrip(b"\r\n")
        head, body = _parted(data, max(0, len(before) - 3))
        if not head:
            self._head = data if len(data) <= MOST_HEAD else None
            return data if self._head is None else b""
        mended = mend_head(head, body)
        if mended is None:  # the beginning of the body will tell
            self._head = data
            return b""
        is_interim = mended[9:10] == b"1" and mended[9:12] != b"101"
        self._head = b"" if is_interim else None
        super().data_received(mended)
        return self._take_head(body) if is_interim and body else body


def _parted(data: bytes, start: int = 0) -> tuple[bytes, bytes]:
    """The head and what there is of the body; no head where its end is not there."""
    found = _END.search(data, start)
    return (data[: found.end()], data[found.end() :]) if found else (b"", data)


def mend_head(head: bytes, body: bytes, *, ended: bool = False) -> bytes | None:
    """A head as a strict parser takes it; the same one where it is sound, or no head at all.

    None where the beginning of the body has to be seen first and more may come (it has not `ended`).
    """
    sound = _SOUND.fullmatch(head)
    if sound and not sound[1]:
        return head
    status = _STATUS.fullmatch(head.partition(b"\n")[0].rstrip(b"\r"))
    if status is None:
        return head
    headers = list(_headers(head))
    lengths = [value for name, value in headers if name.lower() == b"content-length"]
    chunked = any(b"chunked" in value.lower() for name, value in headers if name.lower() == b"transfer-encoding")
    if chunked and not status[3].startswith(_WITHOUT_BODY):
        if not body and not ended:
            return None
        chunked = _CHUNK_SIZE.match(body) is not None  # some say so of a body that comes as it is
    if sound and chunked:
        return head
    kept = [b"%s: %s" % pair for pair in headers if pair[0].lower() not in _FRAMING]
    if chunked:
        kept.append(b"Transfer-Encoding: chunked")
    elif (length := _length(lengths)) is not None:
        kept.append(b"Content-Length: %d" % length)
    if not status[3].startswith(b"1"):
        kept.append(b"Connection: close")
    return b"\r\n".join([b"HTTP/1.1 %s %s" % (status[3], _CONTROL.sub(b" ", status[4])), *kept, b"", b""])


def _headers(head: bytes) -> Iterable[tuple[bytes, bytes]]:
    """The headers of a head that can be told, with folded lines in one."""
    lines: list[bytes] = []
    for line in head.split(b"\n")[1:]:
        line = _CONTROL.sub(b" ", line.rstrip(b"\r"))
        if line[:1] in (b" ", b"\t") and lines:
            lines[-1] += line
        else:
            lines.append(line)
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon and _NAME.fullmatch(name := name.strip(b" \t")):
            yield name, value.strip(b" \t")


def _length(values: list[bytes]) -> int | None:
    """The one length that all of them name; None where they name none or several."""
    named = {number.strip(b" \t") for value in values for number in value.split(b",")}
    if len(named) == 1 and (number := named.pop()).isdigit():
        return min(int(number[:4000]), _LARGEST)
    return None


def left_in(content: aiohttp.StreamReader) -> bytes:
    """The bytes that had arrived when a transfer broke off: the reader itself gives only the error then."""
    blocks, offset = content._buffer, content._buffer_offset
    return b"".join(blocks)[offset:] if blocks else b""
