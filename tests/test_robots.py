"""robots.txt in every form: what it says, what it costs to read, and that no host's own stops the others."""

from __future__ import annotations

import pytest

from lib.net.robots import CUT, MOST_BYTES, decode_robots, parse_robots

ALL = "User-agent: *\n"
PATHOLOGICAL = ALL + "Disallow: /*a*a*a*a*a*a*a*a*b\n"
LONG = "/" + "a" * 130 + ".jpg"

FORMS: list[tuple[str, str, bool]] = [
    # Nothing that is meant for us.
    ("", "/a", True),
    (ALL + "Disallow:", "/a", True),
    ("Disallow: /", "/a", True),
    ("<html>not found</html>", "/a", True),
    ("User-agent: otherbot\nDisallow: /", "/a", True),
    ("User-agent: gleanerbot\nDisallow: /", "/a", True),
    ("User-agent: glean\nDisallow: /", "/a", True),
    ("User-agent: my-gleaner\nDisallow: /", "/a", True),
    ("User-agent: *bot\nDisallow: /", "/a", True),
    # Everybody, our name, several names, groups apart that belong together.
    (ALL + "Disallow: /", "/a", False),
    ("User-agent: *\nDisallow: /\nUser-agent: Gleaner\nDisallow: /b", "/a", True),
    ("User-agent: *\nDisallow: /\nUser-agent: Gleaner\nDisallow: /b", "/b", False),
    ("User-agent: gleaner\nDisallow:\n\nUser-agent: *\nDisallow: /", "/a", True),
    ("User-agent: gleaner/2.0\nDisallow: /a", "/a", False),
    ("User-agent: GLEANER/0.1 (+https://example.org)\nDisallow: /a", "/a", False),
    ("User-agent: a\nUser-agent: *\nDisallow: /a", "/a", False),
    ("User-agent: gleaner\n\n\nUser-agent: b\nDisallow: /a", "/a", False),
    ("User-agent: gleaner\nSitemap: /s.xml\nUser-agent: b\nDisallow: /a", "/a", False),
    (ALL + "Disallow: /a\n\nUser-agent: b\nDisallow: /\n\n" + ALL + "Disallow: /c", "/a", False),
    (ALL + "Disallow: /a\n\nUser-agent: b\nDisallow: /\n\n" + ALL + "Disallow: /c", "/c", False),
    (ALL + "Disallow: /a\n\nUser-agent: b\nDisallow: /\n\n" + ALL + "Disallow: /c", "/b", True),
    ("User-agent: gleaner\nDisallow: /a\nUser-agent: b\nDisallow: /b\nUser-agent: Gleaner\nDisallow: /c", "/c", False),
    (ALL + "Crawl-delay: 10\nDisallow: /a", "/a", False),
    (ALL + "Noindex: /a\nUnknown\n:\nDisallow: /b", "/b", False),
    # The longest rule wins, Allow where two are as long; the order does not matter.
    (ALL + "Disallow: /a\nAllow: /a/b", "/a/b/c", True),
    (ALL + "Allow: /a/b\nDisallow: /a", "/a/b/c", True),
    (ALL + "Allow: /a\nDisallow: /a/b", "/a/b/c", False),
    (ALL + "Disallow: /a\nAllow: /a", "/a", True),
    (ALL + "Allow: /a\nDisallow: /a", "/a", True),
    (ALL + "Allow: /page\nDisallow: /*.htm", "/page.htm", False),
    (ALL + "Allow: /page*\nDisallow: /*.htm", "/page.htm", True),
    (ALL + "Allow: /$\nDisallow: /", "/", True),
    (ALL + "Allow: /$\nDisallow: /", "/page.htm", False),
    (ALL + "Disallow: /*.jpg\nAllow: /good*.jpg", "/good/1.jpg", True),
    (ALL + "Disallow: /a$\nAllow: /a$", "/a", True),
    # Wildcards and ends.
    (ALL + "Disallow: /*.jpg$", "/x/a.jpg", False),
    (ALL + "Disallow: /*.jpg$", "/x/a.jpg?x", True),
    (ALL + "Disallow: /*.jpg$", "/x/a.jpg.jpg", False),
    (ALL + "Disallow: /a*b*c", "/a-c-b", True),
    (ALL + "Disallow: /a*b*c", "/a-b-c-d", False),
    (ALL + "Disallow: *", "/a", False),
    (ALL + "Disallow: /**a", "/xxa", False),
    (ALL + "Disallow: /*/", "/a", True),
    (ALL + "Disallow: /a*", "/a", False),
    (ALL + "Disallow: /ab*ba$", "/aba", True),
    (ALL + "Disallow: /*?", "/a?b", False),
    (ALL + "Disallow: /*?", "/a", True),
    (ALL + "Disallow: /a$b", "/a$b/c", False),
    (ALL + "Disallow: $", "/a", True),
    (ALL + "Disallow: /a b", "/a%20b", False),
    # One path in several spellings.
    (ALL + "Disallow: /%7Ejoe # not here", "/~joe/a", False),
    (ALL + "Disallow: /~joe", "/%7ejoe/a", False),
    (ALL + "Disallow: /a%3ab", "/a:b", False),
    (ALL + "Disallow: /a%2fb", "/a/b", True),
    (ALL + "Disallow: /a%2fb", "/a%2Fb", False),
    (ALL + "Disallow: /é", "/%C3%A9", False),
    (ALL + "Disallow: /%c3%a9", "/%C3%A9", False),
    (ALL + "Disallow: /%E9", "/%e9", False),
    (ALL + "Disallow: /%2A", "/*a", False),
    (ALL + "Disallow: /%2A", "/xa", True),
    (ALL + "Disallow: /a%24", "/a$", False),
    (ALL + "Disallow: /a%24", "/a", True),
    (ALL + "Disallow: /%zz", "/%zz", False),
    (ALL + "Disallow: /A", "/a", True),
    # Line ends are CR, LF and both; what else `str.splitlines` splits at is a character of the line.
    ("User-agent: *\rDisallow: /a\r", "/a", False),
    ("\ufeffUser-agent: *\r\nDisallow: /a\r\n", "/a", False),
    ("User-agent: *\n\rDisallow: /a", "/a", False),
    *[(f"# a comment{end}User-agent: *{end}Disallow: /", "/a", True) for end in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"],
    *[(ALL + f"Disallow: /a{end}Allow: /", "/b", True) for end in "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"],
    *[(ALL + f"Disallow: /a\nAllow: /x{end}Allow: /a", "/a", False) for end in "\x0b\x0c\x1c\x1e\x85\u2028"],
    (ALL + "Disallow: /a\x0bb", "/a%0Bb", False),
    (ALL + "Disallow: /a\0", "/a", False),
    # Spellings that are taken all the same.
    ("USER-AGENT : *\n\t DISALLOW\t:\t/a\t", "/a", False),
    ("user agent: *\nDisalow: /a", "/a", False),
    ("Useragent *\nDisallow /a", "/a", False),
    ("User-agent:*\nDisallow:/a#b", "/a", False),
    # Usage signals: AIPREF's, and Content Signals.
    (ALL + "Content-Usage: train-ai=n", "/a", False),
    (ALL + "Content-Usage: /a train-ai=n", "/a", False),
    (ALL + "Content-Usage: /a train-ai=n", "/b", True),
    (ALL + "Content-Usage: train-ai=n\nContent-Usage: /a train-ai=y", "/a", True),
    (ALL + "Content-Usage: search=n, train-ai=y", "/a", True),
    (ALL + "Content-Signal: search=yes,ai-train=no\nAllow: /", "/a", False),
    ("User-agent: b\nContent-Signal: ai-train=no", "/a", True),
    (ALL + "Content-Signal: search=yes\nUser-agent: b\nDisallow: /", "/a", True),
    # Much of it.
    (PATHOLOGICAL, LONG, True),
    (PATHOLOGICAL, LONG + "b", False),
    (ALL + "Disallow: /" + "*a" * 500 + "\n", "/" + "b" * 5000, True),
    (ALL + "Disallow: /" + "*a" * 2000 + "b\n", "/" + "a" * 8000, True),
    (ALL + "Disallow: /" + "*a" * 2000 + "\n", "/" + "a" * 8000, False),
    (ALL + "".join(f"Disallow: /{n}\n" for n in range(20_000)), "/19999", False),
    (ALL + "".join(f"Disallow: /*{n}x$\n" for n in range(20_000)), "/a19999x", False),
    (ALL + "".join(f"Disallow: /*{n}x$\n" for n in range(20_000)), "/a19999y", True),
    ("User-agent: x\nDisallow: /y\n" * 10_000 + ALL + "Disallow: /", "/a", False),
    (ALL + "Disallow: /" + "a" * 5000, "/" + "a" * 4999, True),
    (ALL + "Disallow: /" + "a" * 5000, "/" + "a" * 5000, False),
]


@pytest.mark.parametrize(("text", "path", "allowed"), FORMS)
def test_reading_robots_txt(text: str, path: str, allowed: bool) -> None:
    assert parse_robots(text).allows(path) is allowed


@pytest.mark.parametrize(
    "rules",
    [
        "".join(f"Disallow:/*a{n}b\n" for n in range(30_000)),
        "".join(f"Disallow: /*{'a' * 40}b{'a' * 40}{n}\n" for n in range(5_000)),
        "".join(f"Disallow: /*{'a' * 45}{n % 10}{'a' * 45}*{n}\n" for n in range(5_000)),
    ],
    ids=["many", "long", "almost"],
)
def test_rules_that_take_too_long_forbid(rules: str) -> None:
    """A path is looked at for so many characters; what is not told by then is taken for forbidden, and said so."""
    found = parse_robots((ALL + rules)[:MOST_BYTES])
    assert found.refusal("/" + "a" * 7990) == "has too many rules to tell about"
    assert found.refusal("/b") == ""


@pytest.mark.parametrize(
    ("data", "path", "allowed"),
    [
        (b"\xef\xbb\xbfUser-agent: *\nDisallow: /a", "/a", False),
        ("\ufeffUser-agent: *\nDisallow: /a".encode("utf-16-le"), "/a", False),
        ("\ufeffUser-agent: *\nDisallow: /a".encode("utf-16-be"), "/a", False),
        (b"User-agent: *\nDisallow: /caf\xe9", "/caf%E9", False),
        (b"\xff\xff\0\0User-agent: *\nDisallow: /b\nUser-agent: *\nDisallow: /a", "/a", False),
        (b"User-agent: *\nDisallow: /\xc3\xa9", "/%C3%A9", False),
    ],
)
def test_bytes_of_robots_txt(data: bytes, path: str, allowed: bool) -> None:
    text = decode_robots(data)
    text.encode()  # the database takes no half characters
    assert parse_robots(text).allows(path) is allowed


def test_a_text_that_is_too_long_is_cut_at_a_line_and_says_so() -> None:
    lines = b"User-agent: *\nDisallow: /a\n"
    filler = b"#" * (MOST_BYTES - len(lines) - 11) + b"\n"
    data = lines + filler + b"Allow: /a/b/c\nDisallow: /z\n"
    text = decode_robots(data)
    found = parse_robots(text)
    assert text.endswith(CUT) and found.cut and found.size == 1
    assert not found.allows("/a/b/c") and found.allows("/z")  # a rule that lost its end would say another thing
    assert not parse_robots(decode_robots(lines)).cut
    assert parse_robots(decode_robots(lines + filler)[: -len(CUT)]).cut is False
