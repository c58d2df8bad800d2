"""Where an option's value comes from: flag, `GLEANER_*` in the environment, `gleaner.toml`, default; in this order."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX = "GLEANER_"
_SECRET_WORDS = ("key", "password", "passwd", "token", "secret")
STEPS = ("collect", "ingest", "report", "cleanup", "download", "dedup", "sort")
_NEVER = {"help", "undo", "version"}  # asked for on the spot, never by a settings file


def read_settings(path: Path) -> dict[str, Any]:
    """The tables of a `gleaner.toml`; empty when there is none. Raises UsageError when it cannot be read."""
    try:
        with path.open("rb") as handle:
            return tomllib.load(handle)
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); correct it or move it away.") from error


def apply_settings(
    parser: argparse.ArgumentParser,
    step: str,
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
    path: Path,
) -> None:
    """Turns settings and environment into the parser's defaults, so that a flag still wins.

    `settings` may hold options at the top and in a table named after the step; the step's table wins.
    """
    settings = _with_dashes(settings)
    known = {name: action for action in parser._actions if (name := _long_name(action)) and name not in _NEVER}
    _refuse_unknown(settings, step, known, path)
    chosen: dict[str, Any] = {}
    for name, action in known.items():
        for table in (settings, settings.get(step, {})):
            if name in table:
                chosen[action.dest] = _convert(action, table[name], f"{name} in {path}")
        text = environment.get(PREFIX + name.upper().replace("-", "_"))
        if text:
            chosen[action.dest] = _convert(action, text, PREFIX + name.upper().replace("-", "_"))
    parser.set_defaults(**chosen)


def _with_dashes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are called on the command line: `max_bytes` is `max-bytes`."""
    return {
        name.replace("_", "-"): _with_dashes(value) if isinstance(value, dict) else value
        for name, value in settings.items()
    }


def _refuse_unknown(settings: Mapping[str, Any], step: str, known: Mapping[str, Any], path: Path) -> None:
    for name, value in settings.items():
        if isinstance(value, dict) and name not in STEPS:
            raise UsageError(f"{path} has a table [{name}], which is no step; the steps are {', '.join(STEPS)}.")
        # A plain option at the top may be another step's, which this step's parser cannot know.
        _refuse_secret(name, value, path)
    for name, value in settings.get(step, {}).items():
        _refuse_secret(name, value, path)
        if name not in known:
            raise UsageError(f"{path} sets {name!r} for {step}, which has no such option; remove the line.")


def _refuse_secret(name: str, value: Any, path: Path) -> None:
    in_address = isinstance(value, str) and "://" in value and "@" in value.partition("://")[2].partition("/")[0]
    if in_address or any(word in name.split("-") for word in _SECRET_WORDS):
        raise UsageError(f"{name} in {path} looks like a secret; set it in the environment instead.")


def _long_name(action: argparse.Action) -> str:
    for option in action.option_strings:
        if option.startswith("--") and not option.startswith("--no-"):
            return option[2:]
    return ""


def _convert(action: argparse.Action, value: Any, where: str) -> Any:
    if action.nargs == 0:
        return _to_switch(action, value, where)
    several = action.nargs in ("*", "+") or isinstance(action.nargs, int)
    if several or isinstance(action, argparse._AppendAction):
        parts = value if isinstance(value, list) else str(value).split(",")
        return [_convert_one(action, part, where) for part in parts]
    return _convert_one(action, value, where)


def _convert_one(action: argparse.Action, value: Any, where: str) -> Any:
    try:
        converted = action.type(str(value)) if callable(action.type) else value
    except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
        raise UsageError(f"{where} cannot be {value!r} ({error}); correct it.") from error
    if action.choices is not None and converted not in action.choices:
        raise UsageError(f"{where} cannot be {value!r}; it is one of {', '.join(map(str, action.choices))}.")
    return converted


def _to_switch(action: argparse.Action, value: Any, where: str) -> Any:
    words = {
        "1": True,
        "true": True,
        "yes": True,
        "on": True,
        "0": False,
        "false": False,
        "no": False,
        "off": False,
    }
    chosen = value if isinstance(value, bool) else words.get(str(value).strip().lower())
    if chosen is None:
        raise UsageError(f"{where} cannot be {value!r}; it is true or false.")
    if isinstance(action, argparse._CountAction):
        return int(chosen)
    if not chosen:
        return False if action.const is True else action.default
    return action.const
