"""The rules of a robots.txt (RFC 9309): groups by crawler name, the longest matching rule wins, `*` and `$` in paths.

Not by `protego`, the library of this field, which matches in linear time too: it knows `User-agent: Gleaner/1.0` for
nobody's name, ends lines at `\\x0b` and the like, takes `%2A` for a wildcard, knows no `Content-Usage`, and has no
bound on the work for one path. Here the text is bounded, and a path that takes too much work counts as forbidden.

Opt-outs are read here too, in headers and in expressions of robots.txt. Where a line can be read in two ways, the one
that its owner is more likely to have meant as a refusal counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import chain
from operator import attrgetter
from urllib.parse import quote

MOST_BYTES = 512 * 1024  # RFC 9309 asks for at least 500 KiB; the rest is not read
CUT = "# Gleaner has read no further."  # the last line of a text that was longer
MOST_WORK = 8_000_000  # characters looked at for one path, some 30 ms: 40,000 rules for a path of 150
_WORK_OF_A_RULE = 30  # what a rule costs besides, in the same unit

_LINE = re.compile(r"\r\n|\r|\n")  # nothing else ends a line; `str.splitlines` knows eight more ends
# Misspellings that the large search engines take as well.
_DISALLOW = frozenset({"disallow", "dissallow", "dissalow", "disalow", "diasllow", "disallaw"})
_USER_AGENT = frozenset({"user-agent", "useragent", "user agent"})
_USAGE = frozenset({"content-usage", "content-signal"})
_KEYS = _DISALLOW | _USER_AGENT | _USAGE | {"allow"}
_BARE = re.compile(r"(user[ -]?agent|[a-z]+)[ \t]+(.*)", re.IGNORECASE | re.DOTALL)  # a line that lacks its colon
_BLANK = " \t\0\v\f"
# In a line that names crawlers: `Gleaner/1.0` means us as well as `gleaner`.
_PRODUCT = re.compile(r"\*(?=\s|$)|[A-Za-z_-]+")
_UNDECODED = re.compile(r"[\udc80-\udcff]")
_ESCAPED = re.compile(r"%([0-9A-Fa-f]{2})|[^!-~]")
# Of the printable characters these keep their escape: it means the character itself, and not a path's or rule's part.
_KEPT = frozenset("/?%*$")
_rank = attrgetter("rank")

TOKEN = "gleaner"  # our name in `X-Robots-Tag: gleaner: noai`
DIRECTIVES = frozenset({"noai", "noimageai", "noml", "noindex", "noimageindex", "none"})
# What else stands in such a header. A name before one of these, or before a word in "no", is a crawler's; before
# anything else it is a directive with a value, as in `max-snippet: 20`.
_OTHERS = frozenset({"all", "index", "follow", "archive", "indexifembedded", "unavailable_after"})
_WITH_VALUE = ("max-snippet", "max-image-preview", "max-video-preview")
# A product token, its version and a comment: `gleaner`, `*`, `Gleaner/0.1 (+https://example.org)`.
_NAME = re.compile(r"(\*|[a-z0-9_.-]+)(?:/[^\s:;(]*)? ?(?:\([^)]*\) ?)?:(.*)")
_EXPIRY = re.compile(r"unavailable[_-]after ?: ?(.*)")
_STAMP = re.compile(r"\d{4}-\d\d-\d\d(?:t\d\d)?")  # looks like a name where a date holds a colon
_LONGEST_DATE = 100  # characters
_DATE_PARTS = 3  # commas in one date at most, and one: `Wednesday, June 25, 2025`
# Usages that making a data set is part of, as AIPREF's drafts and Content Signals name them.
USAGES = frozenset({"train-ai", "train-genai", "ai-train", "ai", "genai", "tdm", "bots"})
_REFUSALS = frozenset({"n", "no", "?0", "0", "false"})


@dataclass(frozen=True)
class Pattern:
    """A path pattern with wildcards: the pieces between its stars, and whether it ends where the path does."""

    pieces: tuple[str, ...]
    anchored: bool
    length: int
    allows: bool
    weight: int  # how often the characters of a path may be looked at
    rank: int  # the smallest goes first: the longest, and of two as long the one that allows

    def matches(self, path: str) -> bool:
        """Tells if it matches. The pieces are found in order, each once, so that no path makes it go back."""
        first, *others = self.pieces
        if not path.startswith(first):
            return False
        if not others:
            return not self.anchored or path == first
        at, last = len(first), others.pop()
        for piece in others:
            found = path.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        if self.anchored:
            return len(path) - len(last) >= at and path.endswith(last)
        return path.find(last, at) >= 0


@dataclass(frozen=True)
class Patterns:
    """Patterns that begin with the same piece, by their rank, and what trying all of them costs at most."""

    patterns: tuple[Pattern, ...]
    fixed: int  # characters, whatever the path
    weight: int  # times the length of the path


@dataclass(frozen=True)
class Rules:
    """Rules of one kind: plain beginnings of paths by look-up, of the others those that begin like it."""

    plain: dict[str, bool] = field(default_factory=dict)
    lengths: tuple[int, ...] = ()
    patterns: dict[str, Patterns] = field(default_factory=dict)  # by how they begin
    starts: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.plain or self.patterns)

    def __len__(self) -> int:
        return len(self.plain) + sum(len(some.patterns) for some in self.patterns.values())

    def allows(self, path: str) -> bool | None:
        """Tells if a path in its normal form is allowed; None where telling takes more than `MOST_WORK`."""
        plain = ((n, self.plain.get(path[:n])) for n in self.lengths if n <= len(path))
        length, allowed = next(((n, found) for n, found in plain if found is not None), (0, True))
        likely = [found for start in self.starts if (found := self.patterns.get(path[:start])) is not None]
        if sum(some.fixed + some.weight * len(path) for some in likely) > MOST_WORK:
            return None
        ranked = likely[0].patterns if len(likely) == 1 else sorted(chain(*(one.patterns for one in likely)), key=_rank)
        for pattern in ranked:
            if pattern.length < length or (pattern.length == length and (allowed or not pattern.allows)):
                return allowed
            if pattern.matches(path):
                return pattern.allows
        return allowed


@dataclass(frozen=True)
class Robots:
    """The rules that hold for us. No rules: everything is allowed.

    `usage` are the rules of `Content-Usage` and `Content-Signal`, `cut` tells that the text was longer than what was
    read.
    """

    rules: Rules = field(default_factory=Rules)
    usage: Rules = field(default_factory=Rules)
    cut: bool = False

    def allows(self, path: str) -> bool:
        """Tells if a path with its query may be asked."""
        return not self.refusal(path)

    def refusal(self, path: str) -> str:
        """Says what robots.txt does to a path with its query that it does not allow; empty where it may be asked.

        `Allow` wins over a `Disallow` of the same length.
        """
        if not self.rules and not self.usage:
            return ""
        path = _normal(path, wild=False)
        for rules, verb in ((self.rules, "disallows"), (self.usage, "refuses the use of")):
            if (verdict := rules.allows(path)) is None:
                return "has too many rules to tell about"
            if not verdict:
                return verb
        return ""

    @property
    def size(self) -> int:
        """The number of rules."""
        return len(self.rules) + len(self.usage)


def decode_robots(data: bytes) -> str:
    """The text of a robots.txt, cut after `MOST_BYTES` at the end of a line and then with `CUT` as its last line.

    It is UTF-8, or UTF-16 where a mark or the zeros between its letters say so. Bytes that are neither become the
    escapes that an address has for them.
    """
    cut, data = len(data) > MOST_BYTES, data[:MOST_BYTES]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        text = data.decode("utf-16", "replace")
    elif data[1:4:2] == b"\0\0" or data[:3:2] == b"\0\0":
        text = data.decode("utf-16-le" if data[1:4:2] == b"\0\0" else "utf-16-be", "replace")
    else:
        text = data.decode("utf-8", "surrogateescape")
        text = _UNDECODED.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)
    if cut:
        whole = max(text.rfind("\n"), text.rfind("\r")) + 1
        text = f"{text[:whole]}{CUT}"
    return text


def parse_robots(text: str, token: str = TOKEN) -> Robots:
    """The rules for our name, or for `*` where no group names us. Anything unreadable is passed over."""
    ours, everybodys = _Group(), _Group()
    named, in_names = False, False
    names: set[str] = set()
    for line in _LINE.split(text.lstrip("\ufeff")):
        key, value = _key_and_value(line)
        if key in _USER_AGENT:
            names = names if in_names else set()
            if product := _PRODUCT.match(value):
                names.add(product[0].lower())
            in_names = True
            named = named or token in names
        elif key in _KEYS:
            in_names = False
            for group, name in ((ours, token), (everybodys, "*")):
                if name in names:
                    group.add(key, value)
    group = ours if named else everybodys
    return Robots(_rules(group.paths), _rules(group.usages), text.endswith(CUT))


class _Group:
    """The lines of the groups of one name: (whether it allows, path) each."""

    def __init__(self) -> None:
        self.paths: list[tuple[bool, str]] = []
        self.usages: list[tuple[bool, str]] = []

    def add(self, key: str, value: str) -> None:
        if key not in _USAGE:
            if value:
                self.paths.append((key == "allow", value))
            return
        path, *expression = value.split(None, 1) if value.startswith("/") else ("/", value)
        if expression:
            self.usages.append((not refused_usage(expression[0]), path))


def _key_and_value(line: str) -> tuple[str, str]:
    """The two halves of a line in the form `key: value` or `key value`; an empty key for any other."""
    line = line.partition("#")[0].strip(_BLANK)
    key, colon, value = line.partition(":")
    key = key.strip().lower()
    if colon and key in _KEYS:
        return key, value.strip(_BLANK)
    found = _BARE.match(line)
    key = found[1].lower() if found else ""
    return (key, found[2].strip(_BLANK)) if found and key in _KEYS else ("", "")


def _rules(lines: Iterable[tuple[bool, str]]) -> Rules:
    plain: dict[str, bool] = {}
    patterns: dict[tuple[str, bool], Pattern] = {}
    for allows, value in lines:
        anchored = value.endswith("$")
        text = _normal(value.removesuffix("$"), wild=True)
        if "*" in text or anchored:
            known = patterns.get((text, anchored))
            patterns[text, anchored] = _pattern(text, anchored, allows or (known is not None and known.allows))
        else:
            plain[text] = allows or plain.get(text, False)
    begins: dict[str, list[Pattern]] = {}
    for pattern in sorted(patterns.values(), key=_rank):
        begins.setdefault(pattern.pieces[0], []).append(pattern)
    together = {}
    for start, some in begins.items():
        fixed = sum(_WORK_OF_A_RULE + len(pattern.pieces) for pattern in some)
        together[start] = Patterns(tuple(some), fixed, sum(pattern.weight for pattern in some))
    lengths = tuple(sorted({len(text) for text in plain}, reverse=True))
    return Rules(plain, lengths, together, tuple({len(start) for start in begins}))


def _pattern(text: str, anchored: bool, allows: bool) -> Pattern:
    pieces = tuple(re.sub(r"\*+", "*", text).split("*"))
    # A piece that almost matches again and again costs more where it is long; from 100 on the search is linear.
    longest = max(map(len, pieces[1:]), default=0)
    weight = 1 + min(longest, 100) // 8 if len(pieces) > 1 else 0
    length = len(text) + anchored
    return Pattern(pieces, anchored, length, allows, weight, (not allows) - 2 * length)


def _normal(path: str, *, wild: bool) -> str:
    """The same path written the same way, whichever characters it escapes; in a `wild` one stars are wildcards."""
    if not wild:
        path = path.replace("*", "%2A")
    return _ESCAPED.sub(_escape, path.replace("$", "%24"))


def _escape(found: re.Match[str]) -> str:
    if found[1] is None:
        return quote(found[0], safe="", errors="replace")
    character = chr(int(found[1], 16))
    return character if "!" <= character <= "~" and character not in _KEPT else f"%{found[1].upper()}"


def opt_out(
    robots_tags: Iterable[str],
    reservations: Iterable[str] = (),
    usages: Iterable[str] = (),
    token: str = TOKEN,
    now: datetime | None = None,
) -> str:
    """The signal that forbids it (`X-Robots-Tag: noai`, `tdm-reservation: 1`), or an empty string.

    The arguments are the lines of the headers `X-Robots-Tag`, `tdm-reservation` and `Content-Usage`. A tag may be meant
    for one crawler (`otherbot: noai`); a name holds for the rest of its header line.
    """
    if any(word.strip("\"'") == "1" for line in reservations for word in re.split(r"[\s,;]+", line)):
        return "tdm-reservation: 1"
    for line in usages:
        if refused := refused_usage(line):
            return f"Content-Usage: {refused}"
    moment = now or datetime.now(UTC)
    for line in robots_tags:
        if directive := _forbidding(line, token, moment):
            return f"X-Robots-Tag: {directive}"
    return ""


def refused_usage(expression: str) -> str:
    """The part of a usage expression (`train-ai=n, search=y`) that refuses ours, or an empty string."""
    for part in re.split(r"[,; ]", re.sub(r" ?= ?", "=", _plain(expression))):
        usage, _, answer = part.partition("=")
        if usage in USAGES and answer.strip("\"'") in _REFUSALS:
            return f"{usage}={answer}"
    return ""


def _plain(line: str) -> str:
    """A header line in lower case with single spaces, so that no pattern has two ways to match a long run of them."""
    return " ".join(line.lower().split())


def _forbidding(line: str, token: str, now: datetime) -> str:
    """The directive of one header line that forbids it."""
    meant_for_us = True
    parts = re.split(r"[,;]", _plain(line))
    for place, part in enumerate(parts):
        text = part.strip().strip("\"'")
        if (named := _named(text)) is not None:
            name, text = named
            meant_for_us = name in (token, "*")
        if not meant_for_us:
            continue
        if expiry := _EXPIRY.match(text):
            if _is_past([expiry[1], *parts[place + 1 :]], now):
                return "unavailable_after"
            continue
        if text.startswith(_WITH_VALUE):
            continue
        for word in text.split():
            if word.strip("\"'") in DIRECTIVES:
                return word.strip("\"'")
    return ""


def _named(text: str) -> tuple[str, str] | None:
    """(crawler's name, directive) of a part that begins with a name; None for any other, such as half a date."""
    found = _NAME.match(text)
    if found is None or found[1].isdigit() or _STAMP.fullmatch(found[1]):
        return None
    if _EXPIRY.match(text) or text.startswith(_WITH_VALUE):
        return None
    rest = found[2].strip().strip("\"'")
    word = re.split(r"[ :]", rest, maxsplit=1)[0].replace("-", "_")
    is_name = found[1] in ("*", TOKEN) or not rest or word.startswith(("no", "max_")) or word in _OTHERS
    return (found[1], rest) if is_name else None


def _is_past(parts: list[str], now: datetime) -> bool:
    """Tells if the date that a list begins with, itself cut at its commas, is over. What is no date is not."""
    for count in range(1, min(_DATE_PARTS, len(parts)) + 1):
        text = ", ".join(part.strip().strip("\"'") for part in parts[:count])
        for moment in _dates(text[:_LONGEST_DATE]):
            return moment < now
    return False


def _dates(text: str) -> Iterator[datetime]:
    """The moment that a text names, in UTC where it does not say; nothing where it names none."""
    for read, written in ((datetime.fromisoformat, re.sub(r"z$", "+00:00", text)), (parsedate_to_datetime, text)):
        try:
            moment = read(written)
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
        yield moment if moment.tzinfo else moment.replace(tzinfo=UTC)
