"""How a run downloads: one frozen value that travels from the command line to every worker process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.db.download_queue import PENDING, Recheck, Scope
from lib.domains import DomainLists, read_lists
from lib.download.addresses import KINDS
from lib.net.fetch import FetchLimits

OBEY, REPORT, IGNORE = "obey", "report", "ignore"
# The kinds of address that each stage asks, best first.
STAGES: dict[str, tuple[str, ...]] = {
    "all": KINDS,
    "thumbs": ("thumb", "preview"),
    "originals": ("original", "preview", "dup"),
}


@dataclass(frozen=True)
class PictureLimits:
    """The largest picture that is kept, in pixels; all frames of an animation together may have ten times as many."""

    max_pixels: int = 200_000_000

    @property
    def max_frame_pixels(self) -> int:
        return 10 * self.max_pixels


@dataclass(frozen=True)
class VerifyLimits:
    """What decoding one picture may cost in a worker process: seconds, and bytes of address space."""

    seconds: float = 20.0
    memory: int = 3 << 30


@dataclass(frozen=True)
class DownloadOptions:
    """How a run downloads. `limit` is the most rows it takes on; `share` the processes that divide a host's limit."""

    limits: FetchLimits = field(default_factory=FetchLimits)
    pictures: PictureLimits = field(default_factory=PictureLimits)
    concurrency: int = 64
    per_host: int = 6
    per_domain: int = 12
    retries: int = 2
    backoff: float = 1.0
    limit: int | None = None
    allow_private: bool = False
    exempt: frozenset[str] = frozenset()  # single addresses that are let through, on any port
    contact: str = ""
    min_free: int = 0
    robots: str = IGNORE
    lists: DomainLists = field(default_factory=DomainLists)  # of domains that may not, or alone may, be asked
    stage: str = "all"
    again: Recheck = field(default_factory=Recheck)
    verify: VerifyLimits | None = None
    strip_trailing: bool = False
    to: str = ""
    sidecar: bool = False
    shard: int = 0
    shards: int = 1
    placeholders: Path | None = None
    workers: int = 1
    share: int = 1
    window: int = 2000

    @property
    def kinds(self) -> tuple[str, ...]:
        return STAGES[self.stage]

    @property
    def sources(self) -> tuple[str, ...]:
        """What a run claims, in this order: pending rows, then those that something is wished of."""
        return (() if self.again.kept else (PENDING,)) + self.again.wishes

    @property
    def scope(self) -> Scope:
        return Scope(self.kinds if self.stage != "all" else (), self.shard, self.shards)


def from_arguments(args: Mapping[str, Any], contact: str) -> DownloadOptions:
    """The options that a command line asks for. Raises UsageError for a list of domains that cannot be read."""
    shard, shards = args["shard"]
    retry = args["retry_failed"]
    again = Recheck(
        None if retry is None else tuple(retry),
        refresh=args["refresh"],
        upgrade=args["upgrade"],
        untried=args["stage"] == "originals",
        kept=args["only"] == "kept",
    )
    return DownloadOptions(
        limits=FetchLimits(args["timeout"], args["deadline"], args["max_bytes"], args["min_speed"]),
        pictures=PictureLimits(args["max_megapixels"] * 1_000_000),
        contact=contact,
        again=again,
        lists=read_lists(args["blocklist"], args["allowlist"]),
        verify=VerifyLimits() if args["verify"] else None,
        sidecar=args["sidecar"] == "json",
        shard=shard,
        shards=shards,
        **{name: args[name] for name in _AS_THEY_ARE},
    )


_AS_THEY_ARE = (
    "concurrency per_host per_domain retries backoff limit allow_private min_free robots stage strip_trailing to"
    " placeholders workers"
).split()
