"""What narrows a search, as the command line, a query's parameters and an engine know it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib.engines import FILTER_VALUES


def filters_in(params: Mapping[str, Any]) -> dict[str, str]:
    """The filters among a query's parameters or a step's arguments, such as size -> large."""
    return {name: str(params[name]) for name in FILTER_VALUES if params.get(name)}
