"""Faults that change the shape of an answer, for protocols whose answer is a list of records somewhere inside."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from demo.faults import Ask, Fault, Kind


@dataclass(frozen=True)
class Shapes:
    """Where a protocol's records lie and which keys they can do without.

    `path` leads to the list, `gone` is a key that drift takes away, `number` one whose number it makes text (or text a
    number), `original` the key of the original's address, `nothing` what an honest "nothing found" says besides.
    """

    path: Sequence[str]
    gone: str
    number: str
    original: str
    nothing: dict[str, Any]

    def kinds(self, *routes: str) -> dict[str, Kind]:
        """The kinds `changed_shape`, `drift`, `nulls` and `empty`, for answers on these routes."""
        shapes = {
            "changed_shape": self._changed_shape,
            "drift": self._drift,
            "nulls": self._nulls,
            "empty": self._empty,
        }
        return {name: Kind(routes, shape=shape) for name, shape in shapes.items()}

    def _changed_shape(self, payload: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
        """The records are in another place, under other names."""
        payload, holder = self._copied(payload)
        cards = [
            {"cardId": place, "media": {"src": row.get(self.original)}} for place, row in enumerate(self._of(holder))
        ]
        holder.pop(self.path[-1], None)
        holder["feed"] = {"cards": cards}
        return payload

    def _drift(self, payload: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
        """Small changes: an unknown key in every record, an expected one gone, a number of the other type."""
        payload, holder = self._copied(payload)
        for row in filter(None, self._of(holder)):
            row["aiBadge"] = "none"
            row.pop(self.gone, None)
            if self.number in row:
                row[self.number] = int(row[self.number]) if isinstance(row[self.number], str) else str(row[self.number])
        return payload

    def _nulls(self, payload: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
        """Every second record lost the original's address."""
        payload, holder = self._copied(payload)
        for row in self._of(holder)[::2]:
            if self.original in row:
                row[self.original] = None
        return payload

    def _empty(self, payload: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
        """Nothing found, honestly."""
        payload, holder = self._copied(payload)
        holder[self.path[-1]] = []
        return payload | copy.deepcopy(self.nothing)

    def _copied(self, payload: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The payload as a copy, and within that the object that holds the list."""
        payload = copy.deepcopy(payload)
        holder = payload
        for key in self.path[:-1]:
            holder = holder.setdefault(key, {})
        return payload, holder

    def _of(self, holder: dict[str, Any]) -> list[dict[str, Any]]:
        return holder.get(self.path[-1], [])


def either(first: dict[str, Kind], second: dict[str, Kind], key: str) -> dict[str, Kind]:
    """The kinds of two layouts under the same names: the first for answers that have the key, else the second."""

    def choose(name: str) -> Kind:
        def shape(payload: dict[str, Any], fault: Fault, ask: Ask) -> dict[str, Any]:
            chosen = (first if key in payload else second)[name].shape
            return chosen(payload, fault, ask) if chosen else payload

        return Kind(tuple({*first[name].routes, *second[name].routes}), shape=shape)

    return {name: choose(name) for name in first}
