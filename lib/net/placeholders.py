"""Pictures that stand for a removed one, known by address, entity tag or content; and the tables beside this file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.errors import UsageError

PLACEHOLDER = "placeholder"
Patterns = tuple[re.Pattern[str], ...]

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Placeholders:
    """The known ones; `urls` and `etags` by the last two labels of a host's name. An empty one knows nothing."""

    moved: Patterns = ()
    urls: Mapping[str, Patterns] = field(default_factory=dict)
    etags: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)

    def by_answer(self, asked: str, final: str, etag: str) -> str:
        """Says why an answer is a placeholder, before its body is read; else an empty string."""
        _, _, host, path = (final.split("/", 3) + [""] * 3)[:4]
        path = "/" + path.partition("?")[0]
        site = ".".join(host.partition(":")[0].lower().rsplit(".", 2)[-2:])
        if any(pattern.search(path) for pattern in self.urls.get(site, ())):
            return f"the address of a placeholder: {final}"
        if final != asked and any(pattern.search(path) for pattern in self.moved):
            return f"redirected to a placeholder: {final}"
        if (tag := etag.removeprefix("W/").strip('"')) in self.etags.get(site, ()):
            return f"the entity tag of a placeholder: {tag}"
        return ""


def read_placeholders(own: Path | None = None) -> Placeholders:
    """The list beside this file, with that of a user's file added. Raises UsageError for a file that makes no sense."""
    made = _add(Placeholders(), FOLDER / "placeholders.toml")
    return _add(made, own) if own else made


def _add(made: Placeholders, path: Path) -> Placeholders:
    table = read_table(path)
    try:
        if unknown := set(table) - {"moved", "urls", "etags", "sha256"}:
            raise ValueError(f"unknown {', '.join(sorted(unknown))}")
        return Placeholders(
            made.moved + _patterns(table.get("moved", ())),
            {**made.urls, **{site: _patterns(texts) for site, texts in dict(table.get("urls", {})).items()}},
            {**made.etags, **{site: frozenset(tags) for site, tags in dict(table.get("etags", {})).items()}},
            {**made.sha256, **{digest.lower(): str(what) for digest, what in dict(table.get("sha256", {})).items()}},
        )
    except (ValueError, TypeError, re.error) as error:
        raise UsageError(f"{path} is no list of placeholders ({error}); see docs/download.md.") from error


def _patterns(texts: Iterable[str]) -> Patterns:
    return tuple(re.compile(text, re.IGNORECASE) for text in texts)


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary. Raises UsageError for one that cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used ({error}); correct it or name another file.") from error
