"""`--where`: a small language for choosing pictures by earlier labels, parsed and bound, never pasted into SQL.

    quality = high and orientation in (landscape, square)
    quality.score >= 70 and not (engine = bing or domain like '%.shop')

A plain name is a criterion, and stands for the label that it gave; `<name>.score` is its score (or a metric's, such as
`technical.score`) and `<name>.reason` its words. Further: width, height, megapixels, bytes, format, and query, engine,
domain, title, license, creator, where a picture found several times matches if any of its findings does. Operators:
= != < <= > >= in like is null, is not null; and, or, not, parentheses. Text needs quotes only where it has blanks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lib.db.connection import Database
from lib.domains import host_pattern, shown_host, typed_host
from lib.errors import UsageError

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*'|\"[^\"]*\")|(?P<sign><=|>=|!=|<>|==|[=<>(),])|(?P<word>[^\s=<>!(),'\"]+))"
)
_SIGNS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NAME = re.compile(r"[a-z][a-z0-9_+-]*(?:\.(?:score|reason))?")

CRITERIA = ("orientation", "megapixels", "quality", "filter", "topic", "objects", "vlm", "split")
_SIZE = (
    "coalesce({own}, (SELECT json_extract(detail, '$.{name}') FROM scores"
    " WHERE sha256 = c.sha256 AND value IS NOT NULL))"
)
_FILE = "(SELECT {column} FROM files WHERE sha256 = c.sha256)"
_WIDTH = _SIZE.format(own=_FILE.format(column="iif(orientation >= 5, height, width)"), name="width")
_HEIGHT = _SIZE.format(own=_FILE.format(column="iif(orientation >= 5, width, height)"), name="height")
_SCALARS = {
    "width": _WIDTH,
    "height": _HEIGHT,
    "megapixels": f"({_WIDTH} * {_HEIGHT} / 1e6)",
    "bytes": _FILE.format(column="bytes"),
    "format": _SIZE.format(own=_FILE.format(column="format"), name="format"),
}
_FOUND = {
    "query": "coalesce(nullif(queries.text, ''), queries.image_path)",
    "engine": "images.engine",
    "domain": "images.registrable_domain",
    "title": "images.title",
    "license": "images.license",
    "creator": "images.creator",
}
_ANY = (
    "EXISTS (SELECT 1 FROM downloads JOIN images ON images.id = downloads.image_id"
    " LEFT JOIN results ON results.image_id = images.id LEFT JOIN queries ON queries.id = results.query_id"
    " WHERE downloads.sha256 = c.sha256 AND {test})"
)


@dataclass(frozen=True)
class Condition:
    """A parsed `--where`: SQL made of our own words, and the values to bind."""

    text: str
    sql: str
    values: tuple[str | float, ...]

    def matching(self, db: Database, contents: Sequence[str]) -> set[str]:
        db.connection.create_function("shown_host", 1, lambda host: shown_host(host or ""), deterministic=True)
        sql = f"WITH c (sha256) AS (SELECT value FROM json_each(?)) SELECT c.sha256 FROM c WHERE {self.sql}"
        return set(db.column(sql, (json.dumps(contents), *self.values)))


def parse_where(text: str) -> Condition:
    """The condition. Raises UsageError with the place that is not understood."""
    return _WhereParser(text).parse()


class _WhereParser:
    def __init__(self, text: str):
        self.text, self.values = text, list[str | float]()
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None or match.end() == position:
                raise self._error(text[position:])
            self.tokens.append((str(match.lastgroup), match[str(match.lastgroup)]))
            position = match.end()
        self.at = 0

    def parse(self) -> Condition:
        sql = self._either()
        if self.at < len(self.tokens):
            raise self._error(self.tokens[self.at][1])
        return Condition(self.text, sql, tuple(self.values))

    def _either(self) -> str:
        parts = [self._both()]
        while self._skip("or"):
            parts.append(self._both())
        return f"({' OR '.join(parts)})"

    def _both(self) -> str:
        parts = [self._single()]
        while self._skip("and"):
            parts.append(self._single())
        return f"({' AND '.join(parts)})"

    def _single(self) -> str:
        if self._skip("not"):
            return f"(NOT coalesce({self._single()}, 0))"
        if self._skip("("):
            inner = self._either()
            self._demand(")")
            return inner
        return self._comparison()

    def _comparison(self) -> str:
        kind, name = self._next()
        if kind != "word" or not _NAME.fullmatch(name.lower()):
            raise self._error(name)
        name = name.lower()
        if name in _FOUND:
            return _ANY.format(test=self._test(_FOUND[name], of_host=name == "domain"))
        return self._test(_SCALARS.get(name) or self._of_label(name))

    def _of_label(self, name: str) -> str:
        criterion, _, part = name.partition(".")
        column = part or "label"
        if criterion not in CRITERIA and column != "score":  # a score may be that of any metric
            known = ", ".join((*CRITERIA, *_SCALARS, *_FOUND))
            raise UsageError(f"--where {self.text!r} knows no {name!r}; names are {known}.")
        self.values.append(criterion)
        of_label = f"(SELECT {column} FROM labels WHERE sha256 = c.sha256 AND criterion = ?)"
        if column != "score":
            return of_label
        self.values.append(criterion)
        newest = "SELECT value FROM scores WHERE sha256 = c.sha256 AND metric = ? ORDER BY created_at DESC LIMIT 1"
        return f"coalesce({of_label}, ({newest}))"

    def _test(self, of: str, *, of_host: bool = False) -> str:
        """A test of a column. Hosts have one form there, whatever spelling they are compared with."""
        negated = self._skip("not")
        if self._skip("is"):
            word = "IS NOT NULL" if self._skip("not") else "IS NULL"
            self._demand("null")
            return f"({of} {word})"
        if self._skip("in"):
            self._demand("(")
            marks = [self._value(of_host)]
            while self._skip(","):
                marks.append(self._value(of_host))
            self._demand(")")
            return f"({of} {'NOT ' if negated else ''}IN ({', '.join(marks)}))"
        if self._skip("like"):
            if of_host:  # as it stands there, and as a person sees it
                test = f"{of} LIKE {self._value()} OR shown_host({of}) LIKE ?"
                self.values.append(host_pattern(str(self.values[-1])))
                return f"({'NOT ' if negated else ''}({test}))"
            return f"({of} {'NOT ' if negated else ''}LIKE {self._value()})"
        kind, sign = self._next()
        if kind != "sign" or sign not in _SIGNS or negated:
            raise self._error(sign)
        return f"({of} {_SIGNS[sign]} {self._value(of_host)})"

    def _value(self, of_host: bool = False) -> str:
        kind, word = self._next()
        if kind == "sign" or (kind == "word" and word.lower() in ("and", "or", "not", "in")):
            raise self._error(word)
        if kind == "word" and word.lower() in ("width", "height"):  # unquoted: the other size
            return _SCALARS[word.lower()]
        value = _plain(kind, word)
        self.values.append(typed_host(value) or value if of_host and isinstance(value, str) else value)
        return "?"

    def _next(self) -> tuple[str, str]:
        if self.at >= len(self.tokens):
            raise UsageError(f"--where {self.text!r} ends too early; see the examples in docs/sort.md.")
        self.at += 1
        return self.tokens[self.at - 1]

    def _skip(self, word: str) -> bool:
        there = self.at < len(self.tokens) and self.tokens[self.at][0] != "text"
        if there and self.tokens[self.at][1].lower() == word:
            self.at += 1
            return True
        return False

    def _demand(self, word: str) -> None:
        if not self._skip(word):
            raise self._error(self._next()[1])

    def _error(self, where: str) -> UsageError:
        return UsageError(
            f"--where {self.text!r} is not understood at {where[:40]!r}; see the examples in docs/sort.md."
        )


def _plain(kind: str, word: str) -> str | float:
    if kind == "text":
        return word[1:-1].replace("''", "'") if word[0] == "'" else word[1:-1]
    try:
        return float(word)
    except ValueError:
        return word
