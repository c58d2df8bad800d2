"""The flags of step 3 as one value."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

from lib.arguments import values_of

KEYS = ("domain", "family", "host", "engine", "query", "licence", "format", "size")
FORMATS = ("text", "csv", "json", "markdown", "html")


@dataclass(frozen=True)
class ReportOptions:
    """The flags of the same names: `by` is one of KEYS, `format` one of FORMATS, `of` names domains for the lists."""

    by: str
    top: int | None
    format: str
    compare: list[str] | None
    results: list[str] | None
    extract: list[str] | None
    to: Path | None
    of: list[str] | None
    blocklist: Path | None
    allowlist: Path | None


def options_from(args: Namespace) -> ReportOptions:
    return ReportOptions(**values_of(args, ReportOptions))
