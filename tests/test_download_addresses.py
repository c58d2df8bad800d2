"""Addresses are asked byte for byte as they were given, where a redirect leads as well; waits in every spelling."""

from __future__ import annotations

import pytest
from download_support import files, fill, only, run
from hostile_server import jpeg
from raw_server import RawSite

from lib.net.robots import decode_robots, parse_robots
from lib.times import retry_after
from lib.workspace import Workspace

JPEG = jpeg(1)
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(JPEG) + JPEG


AS_GIVEN = [
    "/a%2Fb",
    "/a%2fb%7E~%7e",
    "/a+b%2Bc?d+e=%2B&f=%20",
    "/a|b[1](2){3}^`'\"<>",
    "//a//b/",
    "/a/../b/./c/..",
    "/a?",
    "/a/b.jpg?&&=",
    "/?x=1",
    "/a;v=1,2?b?c=/d",
    "/a%",
    "/a%zz%u00e9",
    "/sig?X-Amz-Signature=AbC%2Fd%3D&Expires=1%2C2",
    "/%E9t%C3%A9%00",
    "/a:b@c!$&*",
]


@pytest.mark.parametrize("target", AS_GIVEN)
def test_an_address_is_asked_as_it_stands(workspace: Workspace, raw: RawSite, target: str) -> None:
    raw.answers[target] = WHOLE
    fill(workspace, {"test:1": [("original", f"{raw.url}{target}#fragment?x")]})
    run(workspace, retries=0)
    assert raw.targets == [target] and only(workspace)["state"] == "done"


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("/é%2F%7E~", "/%C3%A9%2F%7E~"),
        ("/a b%7E+c", "/a%20b%7E+c"),
        ("/a?b=%2F+%7E é", "/a?b=%2F+%7E%20%C3%A9"),
        ("/\u65e5\u672c//../x?", "/%E6%97%A5%E6%9C%AC//../x?"),
        ("/e\u0301?q=\u00e9", "/e%CC%81?q=%C3%A9"),  # no other normal form
        ("?x=é", "/?x=%C3%A9"),
        ("", "/"),
    ],
)
def test_only_what_no_request_may_hold_is_escaped(workspace: Workspace, raw: RawSite, given: str, asked: str) -> None:
    raw.answers[asked] = WHOLE
    fill(workspace, {"test:1": [("original", f"{raw.url}{given}")]})
    run(workspace, retries=0)
    assert raw.targets == [asked] and only(workspace)["state"] == "done"


START = "/d/e%2Fx.jpg?q=%2F"
LOCATIONS = [
    # the bytes of the header, what is asked then
    (b"/caf\xe9.jpg", "/caf%E9.jpg"),
    (b"/caf\xc3\xa9.jpg?\xe4", "/caf%C3%A9.jpg?%E4"),
    ("/\u65e5.jpg".encode("shift_jis"), "/%93%FA.jpg"),
    (b"SITE/caf\xe9//%2f/../y?z=%7E\xff", "/caf%E9//%2f/../y?z=%7E%FF"),
    (b"/a%2Fb%7E?", "/a%2Fb%7E?"),
    (b"/a b  c", "/a%20b%20%20c"),
    (b"  /a  ", "/a"),
    (b"/a|b[1]", "/a|b[1]"),
    (b"/a/../b", "/a/../b"),
    (b"//HOST/x//y", "/x//y"),
    (b"c//d", "/d/c//d"),
    (b"../f", "/f"),
    (b"./g/%2e%2e/h", "/d/g/%2e%2e/h"),
    (b"../../../k/.", "/k/"),
    (b"?z=+", "/d/e%2Fx.jpg?z=+"),
    (b"?", "/d/e%2Fx.jpg?"),
    (b"http:/x/y", "/x/y"),
    (b"/a#b", "/a"),
    (b"/first\r\nLocation: /second", "/first"),
    (b"\r\nLocation: /second", "/second"),
    (b"javascript:1\r\nLocation: /second", "/second"),
    (b"http://user:word@HOST/a", "/a"),
]


@pytest.mark.parametrize(("location", "asked"), LOCATIONS)
def test_a_redirect_is_followed_byte_for_byte(workspace: Workspace, raw: RawSite, location: bytes, asked: str) -> None:
    host = raw.url.removeprefix("http://").encode()
    location = location.replace(b"HOST", host).replace(b"SITE", raw.url.encode())
    raw.answers[START] = b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    raw.answers[asked] = WHOLE
    fill(workspace, {"test:1": [("original", f"{raw.url}{START}")]})
    run(workspace, retries=0)
    assert raw.targets == [START, asked]
    assert only(workspace)["state"] == "done" and len(files(workspace)) == 1
    only(workspace)["final_url"].encode("ascii")


@pytest.mark.parametrize(
    "location", [b"", b"javascript:1", b"file:///etc/passwd", b"http://\xe9\xff/x", b"/a\\b", b"http://"]
)
def test_a_redirect_that_leads_nowhere(workspace: Workspace, raw: RawSite, location: bytes) -> None:
    raw.answers["/a"] = b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n"
    fill(workspace, {"test:1": [("original", f"{raw.url}/a")]})
    run(workspace, retries=0)
    assert only(workspace)["reason"] == "bad_redirect" and raw.targets == ["/a"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30.0", 30.0),
        ("30.", 30.0),
        ("0.5", 0.5),
        (".5", 0.5),
        ("+30", 30.0),
        ("030", 30.0),
        ("30s", 30.0),
        ("30 s", 30.0),
        ("30 seconds", 30.0),
        ('"30"', 30.0),
        ("30;", 30.0),
        ("30, 60", 60.0),  # two headers in one: the longer is safe for both
        ("-30", None),
        ("-30.0", None),
        ("1e3", None),
        ("0x1e", None),
        ("inf", None),
        ("nan", None),
        ("30 minutes", None),
        ("\u0663\u0660", None),
        ("Fri, 20 Nov 2026 10:00:30 GMT", 30.0),
        ("Friday, 20-Nov-26 10:00:30 GMT", 30.0),
        ("Fri Nov 20 10:00:30 2026", 30.0),
        ("Fri, 20 Nov 2026 12:00:30 +0200", 30.0),
        ("20 Nov 2026 10:00:30", 30.0),
        ("2026-11-20T10:00:30Z", 30.0),
        ("2026-11-20 10:00:30", 30.0),
        ("2026-11-20T12:00:30+02:00", 30.0),
        ("Friday, 20-Nov-26 09:59:30 GMT", -30.0),
    ],
)
def test_waits_in_every_spelling(value: str, seconds: float | None) -> None:
    assert retry_after(value, now=1795168800.0) == seconds


ALL = "User-agent: *\n"


@pytest.mark.parametrize(
    ("rule", "path", "allowed"),
    [
        # RFC 9309: an escaped reserved character is another one than the character itself.
        ("/*%2F*", "/a%2Fb", False),
        ("/*%2F*", "/a%2fb", False),
        ("/*%2f*", "/a?u=http:%2F%2Fb", False),
        ("/*%2F*", "/a/b", True),
        ("/*%2F", "/a/b", True),
        ("/a%2F", "/a/", True),
        ("/a/", "/a%2F", True),
        ("/*%3F*", "/a%3Fb", False),
        ("/*%3F*", "/a?b", True),
        ("/*?*", "/a%3Fb", True),
        ("/*%25*", "/a%25b", False),
        ("/*%252F*", "/a%2Fb", True),
        ("/*%2A*", "/a*b", False),
        ("/*%2A*", "/ab", True),
        ("/*%24", "/a$", False),
        ("/*%2F$", "/a%2F", False),
        ("/*%2F$", "/a%2Fb", True),
        ("/*%7E*", "/a~b", False),
    ],
)
def test_escapes_in_rules(rule: str, path: str, allowed: bool) -> None:
    assert parse_robots(f"{ALL}Disallow: {rule}").allows(path) is allowed


@pytest.mark.parametrize("target", ["/x%2Fa?b=%2F é", "/x/a?u=http:%2F%2Fb&c=\u65e5"])
def test_a_rule_meets_the_address_as_it_is_asked(workspace: Workspace, raw: RawSite, target: str) -> None:
    """An address with a letter to escape keeps the escapes that it came with, so that the rule still matches."""
    rules = b"User-agent: *\nDisallow: /*%2F*\n"
    before, raw.robots = (
        raw.robots,
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(rules) + rules,
    )
    try:
        fill(workspace, {"test:1": [("original", f"{raw.url}{target}")]})
        run(workspace, retries=0, robots="obey")
    finally:
        raw.robots = before
    assert (only(workspace)["state"], only(workspace)["reason"]) == ("opted_out", "robots_txt") and not raw.targets


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffUser-agent: *\rDisallow: /*%2F*\r".encode("utf-16"),
        "User-agent: *\r\nDisallow: /*%2F*\r\n".encode("utf-16-le"),
        "User-agent: *\nDisallow: /*%2F*\n".encode("utf-16-be"),
        b"\xef\xbb\xbfUser-agent: *\rDisallow: /*%2F*",
    ],
)
def test_rules_in_other_encodings(data: bytes) -> None:
    assert not parse_robots(decode_robots(data)).allows("/a%2Fb")
