"""Servers that say other things of a body than its bytes do: the bytes decide, within the limits on them."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from dataclasses import replace

import pytest
from download_support import CALM, consistent, files, fill, only, report, run
from hostile_server import jpeg, many_frames, picture
from raw_server import Answer, RawSite

from lib.workspace import Workspace

JPEG = jpeg(1, (400, 300))
PNG = picture(2, (60, 40), "PNG")
WEBP = picture(3, (60, 40), "WEBP")
GIF = picture(4, (60, 40), "GIF")
HTML = b"<!DOCTYPE html><html><title>no</title>" + b"no " * 300


def answer(body: bytes, *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: image/jpeg", *headers]
    lines += [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def framed(body: bytes, *headers: str) -> bytes:
    return answer(body, *headers, length=False)


def chunked(body: bytes, end: bytes = b"0\r\n\r\n", size: int = 700) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def packed(data: bytes) -> bytes:
    """gzip without the time of day, so that every worker of a test run collects the same names."""
    return gzip.compress(data, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def fetch(workspace: Workspace, raw: RawSite, made: Answer, **changes: object) -> tuple[str, str, bytes | None]:
    """(state, reason, what was kept) of one picture that a server answers for in this way."""
    raw.answers["/a"] = made
    fill(workspace, {"test:1": [("original", f"{raw.url}/a")]})
    run(workspace, **{"retries": 0, **changes})
    consistent(workspace)
    kept = list(files(workspace).values())
    row = only(workspace)
    assert len(kept) == (row["state"] == "done")
    return row["state"], row["reason"], kept[0] if kept else None


PACKED = packed(JPEG)
TWO = packed(JPEG[:900]) + packed(JPEG[900:])
ENCODINGS: list[tuple[str, bytes, bytes]] = [
    # what it claims, the body, what it is
    ("gzip", JPEG, JPEG),
    ("GZIP", PNG, PNG),
    ("x-gzip", WEBP, WEBP),
    ("deflate", GIF, GIF),
    ("br", JPEG, JPEG),
    ("zstd", PNG, PNG),
    ("compress", JPEG, JPEG),
    ("aws-chunked", JPEG, JPEG),
    ("aws-chunked", PACKED, JPEG),
    ("aws-chunked,gzip", PACKED, JPEG),
    ("UTF-8", PNG, PNG),
    ("utf-8", PACKED, JPEG),
    ("none", JPEG, JPEG),
    ("binary", WEBP, WEBP),
    ("8bit", GIF, GIF),
    ("base64", JPEG, JPEG),
    ("identity", PACKED, JPEG),
    ("none", packed(PNG), PNG),
    ("", PACKED, JPEG),
    ("image/jpeg", JPEG, JPEG),
    ("gzip, gzip", PACKED, JPEG),
    ("gzip, gzip", packed(PACKED), JPEG),
    ("gzip", packed(PACKED), JPEG),
    ("gzip, gzip", JPEG, JPEG),
    ("gzip, identity", PACKED, JPEG),
    ("gzip", TWO, JPEG),
    ("gzip", b"".join(packed(JPEG[at : at + 97]) for at in range(0, len(JPEG), 97)), JPEG),
    ("gzip", PACKED + bytes(512), JPEG),
    ("gzip", PACKED + b"\r\n<!-- cache -->" * 99, JPEG),
    ("gzip", PACKED + b"\x1f\x8b", JPEG),
    ("gzip", PACKED[:-8], JPEG),
    ("gzip", PACKED[:-3], JPEG),
    ("deflate", zlib.compress(JPEG), JPEG),
    ("deflate", raw_deflate(JPEG), JPEG),
    ("deflate", raw_deflate(PNG) + b"\0\0", PNG),
    ("deflate", PACKED, JPEG),
    ("gzip", zlib.compress(WEBP), WEBP),
    ("gzip", raw_deflate(GIF), GIF),
    ("x-deflate", zlib.compress(PNG, 1), PNG),
    ("\xe9", JPEG, JPEG),
]


@pytest.mark.parametrize("number", range(len(ENCODINGS)))
def test_the_encoding_is_told_by_the_bytes(workspace: Workspace, raw: RawSite, number: int) -> None:
    claimed, body, made = ENCODINGS[number]
    framing = ("length", "chunked", "closed")[number % 3]
    header = f"Content-Encoding: {claimed}"
    made_so = {
        "length": answer(body, header),
        "chunked": framed(chunked(body), header, "Transfer-Encoding: chunked"),
        "closed": framed(body, header),
    }
    assert fetch(workspace, raw, made_so[framing]) == ("done", "", made)


@pytest.mark.parametrize(
    ("headers", "body", "reason"),
    [
        (["Content-Encoding: gzip"], packed(HTML), "not_an_image"),
        ([], packed(HTML), "not_an_image"),
        (["Content-Encoding: gzip"], HTML, "not_an_image"),
        (["Content-Encoding: aws-chunked"], HTML, "not_an_image"),
        (["Content-Encoding: gzip"], packed(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "svg_refused"),
        (["Content-Encoding: gzip"], packed(b""), "empty"),
        (["Content-Encoding: gzip"], PACKED[: len(PACKED) // 2], "truncated"),
        (["Content-Encoding: gzip"], PACKED[:-8] + bytes(8), "encoded_body"),  # the checksum is another's
        (["Content-Encoding: deflate"], raw_deflate(JPEG)[:200], "truncated"),
        (["Content-Encoding: br"], bytes(range(200, 256)) * 4, "encoded_body"),
        (["Content-Encoding: gzip"], packed(JPEG + bytes(4 << 20)), "too_large"),
        (["Content-Encoding: none"], packed(JPEG + bytes(4 << 20)), "too_large"),
        (["Content-Encoding: gzip, gzip"], packed(packed(JPEG + bytes(64 << 20))), "too_large"),
        ([], packed(packed(packed(JPEG + bytes(64 << 20)))), "too_large"),
        (["Content-Encoding: gzip"], packed(b"") * 40_000, "encoded_body"),  # members without end
        (["Content-Encoding: gzip"], packed(packed(packed(packed(JPEG)))), "encoded_body"),
        (["Content-Encoding: deflate"], zlib.compress(many_frames(20)), ""),
    ],
)
def test_what_is_packed_is_held_to_the_same_limits(
    workspace: Workspace, raw: RawSite, headers: list[str], body: bytes, reason: str
) -> None:
    state, found, _ = fetch(workspace, raw, answer(body, *headers))
    assert (state, found) == ("failed" if reason else "done", reason)


STATUSES = [
    ("201 Created", []),
    ("202 Accepted", []),
    ("203 Non-Authoritative Information", []),
    ("207 Multi-Status", []),
    ("218 This is fine", []),
    ("226 IM Used", ["IM: feed"]),
    ("299 Odd", []),
    ("206 Partial Content", [f"Content-Range: bytes 0-{len(JPEG) - 1}/{len(JPEG)}"]),
    ("206 Partial Content", [f"Content-Range: bytes 0-{len(JPEG) - 1}/*"]),
    ("206 Partial Content", [f"content-range:bytes=0-{len(JPEG) - 1}/{len(JPEG)}"]),
    ("206 Partial Content", [f"Content-Range: Bytes 0 - {len(JPEG) - 1} / {len(JPEG)}"]),
    ("206 Partial Content", []),
    ("200 OK", [f"Content-Range: bytes 0-{len(JPEG) - 1}/{len(JPEG)}"]),
]


@pytest.mark.parametrize(("status", "headers"), STATUSES)
def test_any_success_may_hold_the_whole_file(
    workspace: Workspace, raw: RawSite, status: str, headers: list[str]
) -> None:
    assert fetch(workspace, raw, answer(JPEG, *headers, status=status)) == ("done", "", JPEG)
    assert only(workspace)["http_status"] == int(status[:3])


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (answer(JPEG[:900], f"Content-Range: bytes 0-899/{len(JPEG)}", status="206 Partial Content"), "http_206"),
        (answer(JPEG[9:], f"Content-Range: bytes 9-{len(JPEG) - 1}/{len(JPEG)}", status="206 x"), "http_206"),
        (answer(JPEG[:900], status="206 Partial Content"), "truncated"),
        (answer(JPEG[:900], "Content-Range: bytes 0-899/*", status="206 Partial Content"), "truncated"),
        (answer(b"", status="204 No Content", length=False), "http_204"),
        (answer(b"", status="205 Reset Content"), "http_205"),
        (answer(b"", status="202 Accepted"), "http_202"),
        (answer(HTML, status="203 x"), "not_an_image"),
        (answer(JPEG, status="404 Not Found"), "http_404"),
        (answer(JPEG, status="300 Multiple Choices"), "bad_redirect"),
    ],
)
def test_no_other_answer_does(workspace: Workspace, raw: RawSite, made: bytes, reason: str) -> None:
    assert fetch(workspace, raw, made)[:2] == ("failed", reason)


SIZE = len(JPEG)
HEADS = [
    framed(JPEG, f"Content-Length: {SIZE}", f"Content-Length: {SIZE}"),
    framed(JPEG, f"Content-Length: {SIZE}", f"Content-length: {SIZE + 7}"),
    framed(JPEG, f"Content-Length: {SIZE - 400}", f"Content-Length: {SIZE}"),
    framed(JPEG, f"Content-Length: {SIZE}, {SIZE}"),
    framed(JPEG, f"Content-Length: {SIZE},{SIZE + 1}"),
    framed(JPEG, f"Content-Length : {SIZE}"),
    framed(JPEG, f"Content-Length\t: {SIZE}", "X-Other : 1"),
    framed(JPEG, f"Content-Length:{SIZE}   "),
    framed(JPEG, "Content-Length: unknown"),
    framed(JPEG, "Content-Length: "),
    framed(JPEG, "Content-Length: -1"),
    framed(JPEG, f"Content-Length: +{SIZE}"),
    framed(JPEG, f"Content-Length: {SIZE} bytes"),
    framed(JPEG, f"Content-Length: {SIZE}.0"),
    framed(JPEG, f"Content-Length: 0x{SIZE:x}"),
    framed(chunked(JPEG), f"Content-Length: {SIZE}", "Transfer-Encoding: chunked"),
    framed(chunked(JPEG), "Transfer-Encoding: chunked", "Content-Length: 3"),
    framed(chunked(JPEG), "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    framed(chunked(JPEG), "Transfer-Encoding: Chunked "),
    framed(chunked(JPEG), "Transfer-Encoding: chunked, chunked"),
    framed(chunked(JPEG), "Transfer-Encoding : chunked"),
    framed(chunked(JPEG), "Transfer-Encoding: identity, chunked"),
    framed(chunked(PACKED), "Transfer-Encoding: gzip, chunked"),
    framed(PACKED, "Transfer-Encoding: gzip"),
    framed(JPEG, "Transfer-Encoding: identity", f"Content-Length: {SIZE}"),
    framed(JPEG, "Transfer-Encoding: chunked"),  # it is not
    framed(JPEG, "Transfer-Encoding: chunked", f"Content-Length: {SIZE}"),
    framed(JPEG, "Transfer-Encoding: binary"),
    framed(JPEG),
    framed(JPEG, "Connection: keep-alive"),
    framed(JPEG, "a line without its colon", f"Content-Length: {SIZE}"),
    framed(JPEG, "HTTP/1.1 200 OK", f"Content-Length: {SIZE}"),
    framed(JPEG, f"Content-Length: {SIZE}", "X-Folded: a", "  b"),
    framed(JPEG, f"Content-Length: {SIZE}", "X (odd): 1", "X\xe9: 2", ": 3"),
    framed(JPEG, f"Content-Length: {SIZE}", "X-Nul: a\0b", "X-Bell: \x07", "X-Latin: \xe9"),
    framed(JPEG, f"Content-Length: {SIZE}", "Content-Type: image/png", "Location: /x", "Location: /y"),
    answer(JPEG).replace(b"HTTP/1.1 200 OK", b"HTTP/1.1 200"),
    answer(JPEG).replace(b"HTTP/1.1 200 OK", b"HTTP/1.0 200  \xe9t\xe9"),
    answer(JPEG).replace(b"HTTP/1.1 200 OK", b"http/1.1 200 ok"),
    answer(JPEG).replace(b"HTTP/1.1 200 OK", b"HTTP/2 200"),
    answer(JPEG).replace(b"HTTP/1.1 200 OK", b"ICY 200 OK"),
    b"\r\n" + answer(JPEG),
    answer(b"").replace(b"\r\n", b"\n").replace(b"Length: 0", b"Length: %d" % SIZE) + JPEG,
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + answer(JPEG),
    b"HTTP/1.1 100 Continue\r\n\r\n" + framed(JPEG, f"Content-Length : {SIZE}"),
]


@pytest.mark.parametrize("made", HEADS, ids=range(len(HEADS)))
def test_heads_that_no_strict_parser_takes(workspace: Workspace, raw: RawSite, made: bytes) -> None:
    assert fetch(workspace, raw, made) == ("done", "", JPEG)
    assert len(raw.requests) == 1


ENDS = [
    framed(JPEG, f"Content-Length: {SIZE + 2}"),
    framed(JPEG, f"Content-Length: {SIZE + 40}"),
    framed(PNG, f"Content-Length: {len(PNG) + 2}"),
    framed(GIF, f"Content-Length: {len(GIF) + 1}"),
    framed(WEBP, f"Content-Length: {len(WEBP) + 3}"),
    framed(chunked(JPEG, b""), "Transfer-Encoding: chunked"),
    framed(chunked(JPEG, b"0"), "Transfer-Encoding: chunked"),
    framed(chunked(JPEG, b"0\r\n"), "Transfer-Encoding: chunked"),
    framed(chunked(JPEG, b"\r\n"), "Transfer-Encoding: chunked"),
    framed(chunked(JPEG, b"zz\r\n"), "Transfer-Encoding: chunked"),
    framed(chunked(PNG, b"<!-- end -->"), "Transfer-Encoding: chunked"),
    framed(chunked(WEBP, b"-1\r\n\r\n", 1 << 20), "Transfer-Encoding: chunked"),
    framed(b"%x\r\n" % (SIZE + 9) + JPEG, "Transfer-Encoding: chunked"),  # the chunk is said to be longer
    framed(chunked(PACKED, b""), "Transfer-Encoding: chunked", "Content-Encoding: gzip"),
    framed(PACKED, f"Content-Length: {len(PACKED) + 2}", "Content-Encoding: gzip"),
]


@pytest.mark.parametrize("held", [False, True], ids=["closed", "held"])
@pytest.mark.parametrize("made", ENDS, ids=range(len(ENDS)))
def test_a_whole_picture_whose_transfer_breaks_off_at_its_end(
    workspace: Workspace, raw: RawSite, made: bytes, held: bool
) -> None:
    if held:
        raw.held.add("/a")
    kept = fetch(workspace, raw, made, limits=replace(CALM, timeout=0.3 if held else 60))
    assert kept[:2] == ("done", "") and kept[2] in (JPEG, PNG, GIF, WEBP)
    assert len(raw.requests) == 1


CUT = picture(5, (400, 300), "TIFF")
BROKEN = [
    framed(JPEG[:-2], f"Content-Length: {SIZE}"),
    framed(JPEG[:-1], f"Content-Length: {SIZE}"),
    framed(JPEG[: SIZE // 2], f"Content-Length: {SIZE}"),
    framed(chunked(JPEG[:-9], b""), "Transfer-Encoding: chunked"),
    framed(chunked(PNG[:-4], b"0\r"), "Transfer-Encoding: chunked"),
    framed(chunked(GIF[:-1], b"zz"), "Transfer-Encoding: chunked"),
    framed(chunked(WEBP[:-6], b""), "Transfer-Encoding: chunked"),
    framed(chunked(CUT[:-6], b""), "Transfer-Encoding: chunked"),
    framed(JPEG[:900], f"Content-Length: {SIZE}", f"Content-Length: {SIZE + 1}"),
    framed(JPEG[:900]),
    framed(JPEG, f"Content-Length: {SIZE + 90_000}"),  # most of it is missing, whatever stands there
    framed(JPEG + b"\xff\xd8\xff\xe1", f"Content-Length: {SIZE + 500}"),  # a second picture had begun
    framed(chunked(PACKED[:-200], b""), "Transfer-Encoding: chunked", "Content-Encoding: gzip"),
]


@pytest.mark.parametrize("made", BROKEN, ids=range(len(BROKEN)))
def test_a_picture_that_is_not_whole_is_never_kept(workspace: Workspace, raw: RawSite, made: bytes) -> None:
    assert fetch(workspace, raw, made)[:2] == ("failed", "truncated")


def test_what_a_kept_picture_was_is_its_hash(workspace: Workspace, raw: RawSite) -> None:
    fetch(workspace, raw, framed(chunked(JPEG, b""), "Transfer-Encoding: chunked"))
    assert only(workspace)["sha256"] == hashlib.sha256(JPEG).hexdigest()


def test_the_next_answer_on_a_connection_is_its_own(workspace: Workspace, raw: RawSite) -> None:
    """What follows a mended head or a broken body is never taken for the next picture."""
    smuggled = answer(jpeg(9))
    raw.answers["/a"] = framed(JPEG, f"Content-Length : {SIZE}") + smuggled
    raw.answers["/b"] = answer(jpeg(7))
    fill(workspace, {"test:1": [("original", f"{raw.url}/a")], "test:2": [("original", f"{raw.url}/b")]})
    run(workspace, retries=0, per_host=1)
    assert sorted(files(workspace).values()) == sorted([JPEG, jpeg(7)])


LARGE = picture(8, (1500, 1200), "BMP")


def test_a_part_that_is_whole_ends_with_a_416(workspace: Workspace, raw: RawSite) -> None:
    """A killed run had all of it; the server has nothing more to give."""
    limits = replace(CALM, max_bytes=16 << 20)
    png = picture(8, (400, 300), "PNG") + bytes(0)
    big = _padded(png, 5 << 20)
    raw.answers["/a"] = framed(chunked(big[: len(big) - 20], b""), "Transfer-Encoding: chunked", *VERSION)
    fill(workspace, {"test:1": [("original", f"{raw.url}/a")]})

    def rest(head: bytes) -> bytes:
        if b"Range: bytes=" not in head:
            return raw_first
        at = int(head.split(b"Range: bytes=")[1].split(b"-")[0])
        return answer(big[at:], f"Content-Range: bytes {at}-{len(big) - 1}/{len(big)}", *VERSION, status="206 x")

    raw_first = raw.answers["/a"]
    raw.answers["/a"] = rest
    report(workspace, retries=3, limits=limits)
    assert only(workspace)["state"] == "done" and list(files(workspace).values()) == [big]


VERSION = ("Accept-Ranges: bytes", 'ETag: "v1"')


def _padded(png: bytes, size: int) -> bytes:
    """A PNG with a long comment before its end."""
    body = b"Comment\0" + b"x" * size
    chunk = len(body).to_bytes(4, "big") + b"tEXt" + body
    return png[:-12] + chunk + zlib.crc32(b"tEXt" + body).to_bytes(4, "big") + png[-12:]


@pytest.mark.parametrize("kind", ["416", "416 with range", "206 of all", "203", "200"])
def test_a_resume_that_is_answered_otherwise(workspace: Workspace, raw: RawSite, kind: str) -> None:
    """The part on the disk is the whole picture already, or the server sends all of it again."""
    from lib.download.recovery import kept_name, write_note
    from lib.files.names import PARTS

    limits = replace(CALM, max_bytes=16 << 20)
    big = _padded(picture(8, (400, 300), "PNG"), 5 << 20)
    fill(workspace, {"test:1": [("original", f"{raw.url}/a")]})
    parts = workspace.images / PARTS
    parts.mkdir(parents=True)
    part = str(parts / kept_name(f"{raw.url}/a"))
    with open(part, "wb") as handle:
        handle.write(big if kind.startswith("416") else big[: 3 << 20])
    write_note(part, f"{raw.url}/a", '"v1"', 0)

    def rest(head: bytes) -> bytes:
        if b"Range: bytes=" not in head:
            return answer(b"", status="500 Internal Server Error")
        if kind == "416":
            return answer(b"", status="416 Range Not Satisfiable")
        if kind == "416 with range":
            return answer(b"", f"Content-Range: bytes */{len(big)}", status="416 x")
        if kind == "206 of all":
            return answer(big, f"Content-Range: bytes 0-{len(big) - 1}/{len(big)}", *VERSION, status="206 x")
        return answer(big, *VERSION, status=f"{kind} x")

    raw.answers["/a"] = rest
    report(workspace, retries=0, limits=limits)
    assert only(workspace)["state"] == "done" and list(files(workspace).values()) == [big]
    assert len(raw.requests) == 1
    consistent(workspace)


def test_a_part_that_is_not_whole_is_not_kept_for_a_416(workspace: Workspace, raw: RawSite) -> None:
    from lib.download.recovery import kept_name, write_note
    from lib.files.names import PARTS

    fill(workspace, {"test:1": [("original", f"{raw.url}/a")]})
    parts = workspace.images / PARTS
    parts.mkdir(parents=True)
    part = str(parts / kept_name(f"{raw.url}/a"))
    with open(part, "wb") as handle:
        handle.write(JPEG[:900])
    write_note(part, f"{raw.url}/a", '"v1"', 0)
    raw.answers["/a"] = lambda head: answer(b"", status="416 x") if b"Range:" in head else answer(JPEG)
    report(workspace, retries=1)
    assert only(workspace)["state"] == "done" and list(files(workspace).values()) == [JPEG]
