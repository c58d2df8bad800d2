"""The tables of known hosts and placeholders that lie beside this file, or that a user names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from lib.errors import UsageError

FOLDER = Path(__file__).parent


def read_table(path: Path) -> dict[str, Any]:
    """A TOML file as a dictionary. Raises UsageError for one that cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be used ({error}); correct it or name another file.") from error
