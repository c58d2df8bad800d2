"""The flags of step 2 as one value."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class IngestOptions:
    """The input and the way of reading it. `watch` is in seconds: None for one pass, 0 for no end."""

    source: Path | None = None
    folder: Path | None = None
    rescan: bool = False
    retry_failed: bool = False
    reparse: bool = False
    watch: int | None = None
    limit: int | None = None
    workers: int = 1


def options_from(args: Namespace) -> IngestOptions:
    return IngestOptions(**{field.name: getattr(args, field.name) for field in fields(IngestOptions)})
