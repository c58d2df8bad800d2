"""What a robots.txt allows (RFC 9309): groups by crawler name, the longest matching rule wins, `*` and `$` in paths."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from yarl import URL

from lib.net.optout import TOKEN

MOST_BYTES = 512 * 1024  # RFC 9309 asks for at least 500 KiB; the rest is not read
MOST_RULES = 5000  # a file that lists every page of a site must not cost a second for every picture
LONGEST_RULE = 2000  # characters
MOST_STARS = 10  # in one rule; what has more is taken up to there, as a prefix


@dataclass(frozen=True)
class Rule:
    """One `Allow` or `Disallow`: `length` decides between rules that both match."""

    allows: bool
    length: int
    pattern: re.Pattern[str]


@dataclass(frozen=True)
class Robots:
    """The rules that hold for us. No rules: everything is allowed."""

    rules: tuple[Rule, ...] = field(default_factory=tuple)

    def allows(self, path: str) -> bool:
        """Whether a path with its query may be asked; `Allow` wins over a `Disallow` of the same length."""
        if not self.rules:
            return True
        path = _normal(path)
        best = max(((rule.length, rule.allows) for rule in self.rules if rule.pattern.match(path)), default=(0, True))
        return best[1]


def parse_robots(text: str, token: str = TOKEN) -> Robots:
    """The rules for our name, or for `*` where no group names us. Anything unreadable is passed over."""
    ours: list[Rule] = []
    everybodys: list[Rule] = []
    named = False
    names: set[str] = set()
    in_names = False
    for line in text.lstrip("\ufeff").splitlines():
        key, colon, value = line.partition("#")[0].partition(":")
        key, value = key.strip().lower(), value.strip()
        if not colon:
            continue
        if key == "user-agent":
            names = names if in_names else set()
            names.add(_product(value))
            in_names = True
            named = named or token in names
        elif key in ("allow", "disallow"):
            in_names = False
            if value and names & {token, "*"} and len(ours) + len(everybodys) < MOST_RULES:
                rule = _rule(key == "allow", value[:LONGEST_RULE])
                (ours if token in names else everybodys).append(rule)
    return Robots(tuple(ours if named else everybodys))


def robots_url(url: URL) -> URL:
    """Where the robots.txt of an address's origin lies."""
    return url.origin().with_path("/robots.txt")


def _product(value: str) -> str:
    """The product token of a user-agent line: `Gleaner/1.0` means us as well as `gleaner`."""
    found = re.match(r"\*|[A-Za-z_-]+", value)
    return found[0].lower() if found else ""


def _rule(allows: bool, value: str) -> Rule:
    value = _normal(value)
    pieces = value.removesuffix("$").split("*")
    pattern = ".*?".join(re.escape(piece) for piece in pieces[: MOST_STARS + 1])
    ends = value.endswith("$") and len(pieces) <= MOST_STARS + 1
    return Rule(allows, len(value), re.compile(pattern + (r"\Z" if ends else ""), re.DOTALL))


def _normal(path: str) -> str:
    """The same path written the same way, whichever characters it escapes."""
    try:
        return quote(unquote(path, errors="strict"), safe="/?&=*$%:@!~'(),;+-._")
    except UnicodeDecodeError:
        return path
