"""How gently a site wants to be asked, where that is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lib.net.tables import FOLDER, read_table


@dataclass(frozen=True)
class Manner:
    """Limits of one registrable domain; 0 is no limit of its own. `gap` is mean seconds between two starts."""

    per_host: int = 0
    per_domain: int = 0
    gap: float = 0.0


NO_MANNER = Manner()


@dataclass(frozen=True)
class Manners:
    """Manners by registrable domain."""

    known: Mapping[str, Manner] = field(default_factory=dict)

    def of(self, domain: str) -> Manner:
        return self.known.get(domain, NO_MANNER)


def known_manners() -> Manners:
    """What `known_hosts.toml` says."""
    table = read_table(FOLDER / "known_hosts.toml")
    return Manners({domain: Manner(**values) for domain, values in table.items()})
