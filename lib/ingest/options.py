"""The flags of step 2 as one value."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lib.arguments import values_of


@dataclass(frozen=True)
class IngestOptions:
    """The input and the way of reading it. `watch` is in seconds: None for one pass, 0 for no end."""

    source: Sequence[Path] = ()
    folder: Path | None = None
    rescan: bool = False
    retry_failed: bool = False
    reparse: bool = False
    watch: int | None = None
    encoding: str | None = None
    url_column: str | None = None
    limit: int | None = None
    workers: int = 1


def options_from(args: Namespace) -> IngestOptions:
    values = values_of(args, IngestOptions)
    return IngestOptions(**values | {"source": tuple(args.source or ())})
