"""Which of an engine's hosts is asked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Hosts:
    """The engine's hosts in the order in which they are tried; all queries of a run share the one that works."""

    names: list[str]
    current: int = 0

    @property
    def name(self) -> str:
        return self.names[self.current]

    def prefer(self, name: str) -> None:
        if name in self.names:
            self.current = self.names.index(name)

    def next(self, tried: set[str]) -> bool:
        """Goes on to a host that was not tried yet; False where there is none."""
        for place, name in enumerate(self.names):
            if name not in tried:
                self.current = place
                return True
        return False
