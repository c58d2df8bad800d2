"""`--where`: a small language for choosing pictures by earlier labels, parsed and bound, never pasted into SQL.

    quality = high and orientation in (landscape, square)
    quality.score >= 70 and not (engine = bing or domain like '%.shop')
    filter:indoor = keep and vlm.tags has sofa

A plain name is a criterion, and stands for the label that it gave; `<name>.score` is its score (or a metric's, such as
`technical.score`) and `<name>.reason` its words. `filter:indoor` is the filter of that name, and `vlm.tags` are the
words that a vision model gave. Further: width, height, megapixels, bytes, format, and query, engine, domain, title,
license, creator. A picture found several times matches if any of its findings does, one with several tags if any of
them does. Operators: = != < <= > >= in like has is null, is not null; and, or, not, parentheses. Text needs quotes only
where it has blanks. A number is compared with numbers alone, and a text with texts: `query = 2020` is the word.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lib.db.connection import Database
from lib.domains import host_pattern, shown_host, typed_host
from lib.errors import UsageError
from lib.text import did_you_mean, file_name_of, license_id

_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*'|\"[^\"]*\")|(?P<sign><=|>=|!=|<>|==|[=<>(),])|(?P<word>[^\s=<>!(),'\"]+))"
)
_SIGNS = {"=": "=", "==": "=", "!=": "<>", "<>": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
_NAME = re.compile(r"[a-z][a-z0-9_+-]*(?::[a-z0-9_-]+)?(?:\.(?:score|reason|tags))?")
_PICTURE_PATH = re.compile(
    r"[/~\\]|\.{1,2}[/\\]|[A-Za-z]:[/\\]|.*[/\\][^/\\]+\.(?:jpe?g|png|webp|gif|bmp|tiff?|avif|hei[cf]|jxl|jp2)$", re.I
)

FILTER = "filter"  # several may stand side by side, each a criterion of its own
METRICS = ("technical", "musiq", "clipiqa", "topiq_nr")  # of which a name is known before anything is scored
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
    "query": "CASE queries.kind WHEN 'keyword' THEN queries.text"
    " ELSE file_name_of(coalesce(nullif(queries.text, ''), queries.image_path)) END",
    "engine": "images.engine",
    "domain": "images.registrable_domain",
    "title": "images.title",
    "license": "license_id(images.license, images.license_url)",
    "creator": "images.creator",
}
_NUMBERS = frozenset({"width", "height", "megapixels", "bytes"})  # and every score; all other names are texts
_ALIASES = {"licence": "license", "licence_url": "license_url"}
# Tags of the answer that the picture's label was made of: another model, or another question, has others.
_TAGS = (
    "SELECT 1 FROM json_each(coalesce((SELECT json_extract(answer.detail, '$.tags') FROM scores AS answer"
    " LEFT JOIN labels AS own ON own.sha256 = answer.sha256 AND own.criterion = 'vlm'"
    " WHERE answer.sha256 = c.sha256 AND answer.metric LIKE 'vlm %' AND answer.value IS NOT NULL"
    " ORDER BY answer.version IS own.version DESC,"
    " answer.value IS own.score AND substr(own.reason, 1, length(answer.reason)) = answer.reason DESC,"
    " answer.created_at DESC LIMIT 1), '[]')) AS tag"
)
_TAG = "folded(tag.value)"
_ANY = (
    "EXISTS (SELECT 1 FROM downloads JOIN images ON images.id = downloads.image_id"
    " LEFT JOIN results ON results.image_id = images.id LEFT JOIN queries ON queries.id = results.query_id"
    " WHERE downloads.sha256 = c.sha256 AND {test})"
)


def criterion_of(name: str) -> str:
    """The criterion that a name of the command line means: `filter:indoor` is kept as `filter_indoor`."""
    kind, colon, own = name.lower().partition(":")
    return f"{FILTER}_{own}" if colon and kind == FILTER else name.lower()


def is_named_filter(criterion: str) -> bool:
    return criterion.startswith(f"{FILTER}_")


def _as_typed(criterion: str) -> str:
    """The way a person writes it: `filter:indoor`."""
    return criterion.replace("_", ":", 1) if is_named_filter(criterion) else criterion


def name_of_path(value: str) -> str:
    """The last part of what looks like a path; any other text as it is. A query picture is known by its file's name."""
    return file_name_of(value) if _PICTURE_PATH.match(value) else value


# The form in which values of a name are compared.
_FORMS: Mapping[str, Callable[[str], str]] = {
    "domain": lambda value: typed_host(value) or value,
    "license": license_id,
    "query": name_of_path,
    "tags": str.casefold,
}
# What `like` looks at besides, and the form of its pattern there.
_LIKE_TOO: Mapping[str, tuple[str, Callable[[str], str]]] = {
    "domain": ("shown_host(images.registrable_domain)", host_pattern),
    "license": ("images.license", str),
}


@dataclass(frozen=True)
class Condition:
    """A parsed `--where`: SQL made of our own words, the values to bind, and what it names of criteria, filters and
    metrics."""

    text: str
    sql: str
    values: tuple[str | float, ...]
    filters: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    criteria: tuple[str, ...] = ()

    def matching(self, db: Database, contents: Sequence[str]) -> set[str]:
        db.connection.create_function("shown_host", 1, lambda host: shown_host(host or ""), deterministic=True)
        db.connection.create_function("folded", 1, lambda text: str(text or "").casefold(), deterministic=True)
        sql = f"WITH c (sha256) AS (SELECT value FROM json_each(?)) SELECT c.sha256 FROM c WHERE {self.sql}"
        return set(db.column(sql, (json.dumps(contents), *self.values)))

    def unlabelled(self, db: Database) -> list[str]:
        """The criteria that it names by which no picture is labelled or scored."""
        known = {*db.column("SELECT DISTINCT criterion FROM labels"), *db.column("SELECT DISTINCT metric FROM scores")}
        return [name for name in dict.fromkeys(self.criteria) if name not in known]

    def check(self, db: Database) -> None:
        """Raises UsageError where a filter is named that nobody has run, or what looks like a metric's name."""
        if self.filters:
            run = db.column("SELECT DISTINCT criterion FROM labels WHERE criterion LIKE 'filter\\_%' ESCAPE '\\'")
            for name in (name for name in self.filters if name not in run):
                known = ", ".join(_as_typed(one) for one in sorted(run))
                raise UsageError(
                    f"--where {self.text!r} knows no {_as_typed(name)!r}; "
                    + (f"filters with a name are {known}." if run else "no filter with a name has been run.")
                    + did_you_mean(_as_typed(name), [_as_typed(one) for one in run])
                )
        scored = db.column("SELECT DISTINCT metric FROM scores") if self.metrics else ()
        for name in (name for name in self.metrics if name not in (*METRICS, *scored)):
            if hint := did_you_mean(f"{name}.score", [f"{one}.score" for one in (*CRITERIA, *METRICS, *scored)]):
                raise UsageError(f"--where {self.text!r}: nothing was scored by {name!r}.{hint}")


def parse_where(text: str) -> Condition:
    """The condition. Raises UsageError with the place that is not understood."""
    return _WhereParser(text).parse()


def without_paths(text: str) -> str:
    """A condition as others may read it: a path of this machine is reduced to its last part.

    Query pictures are compared by their names, so that the condition stays the same.
    """

    def named(match: re.Match[str]) -> str:
        quote = match[0][0] if match[0][0] in "'\"" else ""
        return f"{quote}{name_of_path(match[0].strip(quote or None))}{quote}"

    return re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|[^\s(),=<>!'\"]+", named, text)


class _WhereParser:
    def __init__(self, text: str):
        self.text, self.values = text, list[str | float]()
        self.filters, self.metrics, self.criteria = list[str](), list[str](), list[str]()
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
        return Condition(
            self.text, sql, tuple(self.values), tuple(self.filters), tuple(self.metrics), tuple(self.criteria)
        )

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
        name = criterion_of(_ALIASES.get(name.lower(), name))
        if name in _FOUND:
            return _ANY.format(test=self._test(_FOUND[name], name))
        if name == "vlm.tags":
            return self._tagged()
        return self._test(_SCALARS.get(name) or self._of_label(name), name)

    def _tagged(self) -> str:
        """A test that one of the tags fulfils; without any tag they are null."""
        if self._skip("is"):
            negated = self._skip("not")
            self._demand("null")
            return f"({'' if negated else 'NOT '}EXISTS ({_TAGS}))"
        if self._skip("has"):
            return f"EXISTS ({_TAGS} WHERE {_TAG} = {self._value('tags')})"
        return f"EXISTS ({_TAGS} WHERE {self._test(_TAG, 'tags')})"

    def _of_label(self, name: str) -> str:
        criterion, _, part = name.partition(".")
        column = part or "label"
        if column == "tags" or (
            column != "score" and criterion not in CRITERIA and not is_named_filter(criterion)
        ):  # a score may be that of any metric
            known = (*CRITERIA, *_SCALARS, *_FOUND)
            hint = did_you_mean(name, [*known, "vlm.tags", *(f"{one}.reason" for one in CRITERIA)])
            raise UsageError(f"--where {self.text!r} knows no {name!r}; names are {', '.join(known)}.{hint}")
        if is_named_filter(criterion):
            self.filters.append(criterion)
        else:
            (self.criteria if criterion in CRITERIA else self.metrics).append(criterion)
        self.values.append(criterion)
        of_label = f"(SELECT {column} FROM labels WHERE sha256 = c.sha256 AND criterion = ?)"
        if column != "score":
            return of_label
        self.values.append(criterion)
        newest = "SELECT value FROM scores WHERE sha256 = c.sha256 AND metric = ? ORDER BY created_at DESC LIMIT 1"
        return f"coalesce({of_label}, ({newest}))"

    def _test(self, of: str, name: str) -> str:
        """A test of a column. What has many spellings, such as a host or a licence, has one form there."""
        negated = self._skip("not")
        if self._skip("is"):
            word = "IS NOT NULL" if self._skip("not") else "IS NULL"
            self._demand("null")
            return f"({of} {word})"
        if self._skip("in"):
            self._demand("(")
            marks = [self._value(name)]
            while self._skip(","):
                marks.append(self._value(name))
            self._demand(")")
            return f"({of} {'NOT ' if negated else ''}IN ({', '.join(marks)}))"
        if self._skip("like"):
            test = f"{of} LIKE {self._value()}"
            if name in _LIKE_TOO:  # as it stands there, and as a person or the source writes it
                other, form = _LIKE_TOO[name]
                test = f"{test} OR {other} LIKE ?"
                self.values.append(form(str(self.values[-1])))
            return f"({'NOT ' if negated else ''}({test}))"
        kind, sign = self._next()
        if kind == "word" and sign.lower() == "has":
            raise UsageError(f"--where {self.text!r}: only vlm.tags has words; ask other names with = or like.")
        if kind != "sign" or sign not in _SIGNS or negated:
            raise self._error(sign)
        return f"({of} {_SIGNS[sign]} {self._value(name)})"

    def _value(self, name: str = "") -> str:
        kind, word = self._next()
        if kind == "sign" or (kind == "word" and word.lower() in ("and", "or", "not", "in", "has")):
            raise self._error(word)
        if kind == "word" and word.lower() in ("width", "height") and name != "tags":  # unquoted: the other size
            return _SCALARS[word.lower()]
        text = _plain(kind, word)
        if name in _NUMBERS or name.endswith(".score"):
            self.values.append(self._number(name, text))
        else:
            self.values.append(_FORMS[name](text) if name in _FORMS else text)
        return "?"

    def _number(self, name: str, word: str) -> float:
        """SQLite holds every text for larger than every number, so that a wrong value would pick all or none."""
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise UsageError(f"--where {self.text!r}: {_as_typed(name)} is a number, and {word!r} is none.")
        return value

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


def _plain(kind: str, word: str) -> str:
    if kind == "text":
        return word[1:-1].replace("''", "'") if word[0] == "'" else word[1:-1]
    return word
