"""Settings: the value of an option is that of its flag, `GLEANER_*`, `gleaner.toml` or the default, in this order.

A settings file may have come with a folder that somebody else has made, so it sets what is harmless and nothing else:
speed, limits, selection, formats, thresholds. Options that do something, that name places or addresses, or that give
up a safeguard are refused there with a sentence. `SETTABLE` decides that for every option of every step.
"""

from __future__ import annotations

import argparse
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.errors import UsageError
from lib.text import did_you_mean, other_spelling

PREFIX = "GLEANER_"
LARGEST_FILE = 256_000  # bytes; a settings file has a few lines
DEEPEST_KEY = 16  # parts of a dotted key; two are needed, and the reader's time grows with the square
SHOWN = 60  # characters of a wrong value that a message repeats
_SECRET_WORDS = ("key", "password", "passwd", "token", "secret")
STEPS = ("collect", "ingest", "report", "cleanup", "download", "dedup", "sort")

SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)

FILE = "file"  # may stand in gleaner.toml
INSIDE = "inside"  # likewise, where it names a file within the workspace
NAME = "name"  # likewise, where it is a name and no folder: a model's folder may hold code
ENVIRONMENT = "environment"  # the environment is the user's own: from there or as a flag
SPOT = "spot"  # asked for on the spot: as a flag only

# Values that a settings file may not give to an option which it may otherwise set.
REFUSED_VALUES = {
    ("download", "robots"): ("report", "ignore"),
    ("sort", "mode"): ("move",),
}


def _where(**places: str) -> dict[str, str]:
    """Options by name from lists of them by place."""
    return {name: place for place, names in places.items() for name in names.split()}


_COMMON = _where(
    file="json verbose quiet dry-run limit workers",
    environment="workspace executor",
    spot="help version undo",
)
SETTABLE: dict[str, dict[str, str]] = {
    "collect": _COMMON
    | _where(
        file="keywords engine size orientation type licence max-pages max-results pace timeout contexts headed "
        "pause-on-captcha pause-limit strict",
        environment="images keywords-file host profile proxy",  # what is sent to whom, and from where
        spot="i-am-allowed list drift retry replay expand yes",
    ),
    "ingest": _COMMON
    | _where(
        file="strict encoding url-column", spot="import import-folder rescan retry-failed reparse watch check repair"
    ),
    "report": _COMMON | _where(file="by top format of", spot="compare results extract to blocklist allowlist"),
    "cleanup": _COMMON
    | _where(
        file="rule min-side languages examples",
        inside="blocklist allowlist",
        environment="keep",  # fewer backups: older ones are deleted
        spot="list-rules forget-query restore vacuum reset yes page",
    ),
    "download": _COMMON
    | _where(
        file="stage only shard robots verify strip-trailing sidecar concurrency per-host per-domain retries backoff "
        "timeout deadline min-speed max-bytes max-megapixels min-free",
        inside="blocklist allowlist placeholders",
        environment="allow-private to",
        spot="retry-failed refresh upgrade",
    ),
    "dedup": _COMMON
    | _where(
        file="mode hash hash-size threshold near-query far-query device least-cosine keep protect interactive format",
        name="clip-model",
        environment="reference models-dir remove max-share link",
        spot="leak plan apply decisions restore purge page",
    ),
    "sort": _COMMON
    | _where(
        file="mode where format square tolerance strategy edges every parts metric combine long-side high medium "
        "min-score keep drop margin near-query eps min-samples topic-text topic-top classes min-objects max-objects "
        "min-confidence vlm-model subject vlm-min-score max-images vlm-workers vlm-timeout vlm-tries as split label "
        "shard-size parquet-pictures title convert device caption resize resize-mode resize-only-if-bigger "
        "encode-format encode-quality",
        inside="keep-file drop-file labels vlm-prompt",
        name="clip-model detector",
        environment="vlm-url vlm-key-env to models-dir",  # where pictures and keys are sent, what is loaded
        spot="name page replace drop-opted-out take balance seed push public",
    ),
}


OPTIONS = frozenset(name for options in SETTABLE.values() for name in options)


def read_settings(path: Path) -> dict[str, Any]:
    """The tables of a `gleaner.toml`; empty when there is none. Raises UsageError when it cannot be read."""
    try:
        text = _read(path)
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); correct it or move it away.") from error
    try:
        if _has_deep_key(text):
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError:
        raise UsageError(f"{path} cannot be read (it is nested too deeply); correct it or move it away.") from None
    except (ValueError, OverflowError) as error:  # also of a number with thousands of digits
        raise UsageError(f"{path} cannot be read ({short(error)}); correct it or move it away.") from None


def _read(path: Path) -> str:
    """The text of an ordinary file of a few lines. Raises OSError, UnicodeDecodeError and UsageError."""
    # Not to wait for whoever might write into a named pipe.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise UsageError(f"{path} is no ordinary file; move it away.")
        body = file.read(LARGEST_FILE + 1)
    if len(body) > LARGEST_FILE:
        raise UsageError(f"{path} is larger than {LARGEST_FILE // 1000} kB, which no settings are; move it away.")
    return body.decode("utf-8-sig")


def _has_deep_key(text: str) -> bool:
    parts = 0
    for piece in text.split("."):
        parts = parts + 1 if re.fullmatch(r"[\w\"' \t-]+", piece) else 0
        if parts > DEEPEST_KEY:
            return True
    return False


def apply_settings(
    parser: argparse.ArgumentParser,
    step: str,
    settings: Mapping[str, Any],
    environment: Mapping[str, str],
    path: Path,
) -> None:
    """Turns settings and environment into the parser's defaults, so that a flag still wins.

    `settings` may hold options at the top and in a table named after the step; the step's table wins. The whole file
    is looked through whatever the step: what may not stand in it is refused wherever it stands.
    """
    settings = _with_dashes(settings)
    _look_through(settings, path)
    chosen: dict[str, Any] = {}
    for action in parser._actions:
        name = next((o[2:] for o in action.option_strings if o.startswith("--") and not o.startswith("--no-")), "")
        if not name:
            continue
        for table in (settings, settings.get(step, {})):
            if name in table:
                # Only at the top can there still be what this step refuses: another step may take it.
                _refuse_unsafe(step, name, table[name], path, "put it into the table of the step that it is meant for")
                chosen[action.dest] = _convert(action, table[name], f"{name} in {path}")
        variable = PREFIX + name.upper().replace("-", "_")
        other = PREFIX + other_spelling(name).upper().replace("-", "_")
        if text := environment.get(variable) or environment.get(other):
            if (place := place_of(step, name)) == SPOT and name not in ("help", "version"):
                raise UsageError(f"{variable} is set, but --{name} is asked for on the spot: unset it, give the flag.")
            if place != SPOT:
                chosen[action.dest] = _convert(action, text, variable)
    parser.set_defaults(**chosen)


def place_of(step: str, name: str) -> str:
    """Returns where an option may be set. What nobody has decided about is asked for on the spot."""
    return SETTABLE.get(step, {}).get(name, SPOT)


def _with_dashes(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are called on the command line, in the tables of steps too: `max_bytes` is `max-bytes`, `license`
    is `licence`."""
    return {
        _as_flag(name): {_as_flag(inner): one for inner, one in value.items()} if isinstance(value, dict) else value
        for name, value in settings.items()
    }


def _as_flag(name: str) -> str:
    dashed = name.replace("_", "-")
    spelled = other_spelling(dashed)
    return spelled if spelled in OPTIONS and dashed not in OPTIONS else dashed


def _look_through(settings: Mapping[str, Any], path: Path) -> None:
    """Raises UsageError for what no settings file may hold, whatever the step."""
    for name, value in settings.items():
        if not isinstance(value, dict):
            places = {SETTABLE[step][name] for step in STEPS if name in SETTABLE[step]}
            if places and places <= {SPOT, ENVIRONMENT}:
                _refuse_place(name, min(places), path)
            refuse_secret(name, value, path)
            if not places:
                meant = did_you_mean(name, OPTIONS) or " Remove the line."
                table = f" It is a table: [{name}]." if name in STEPS else meant
                raise UsageError(f"{path} sets {shown(name)}, which is an option of no step.{table}")
            continue
        if name in OPTIONS:
            raise UsageError(f"{path} has a table [{name}], which is an option: write {name} = and its value.")
        if name not in STEPS:
            meant = did_you_mean(name, STEPS)
            known = f"the steps are {', '.join(STEPS)}"
            raise UsageError(f"{path} has a table [{short(name)}], which is no step; {known}.{meant}")
        for inner, one in value.items():
            if inner in SETTABLE[name]:
                _refuse_unsafe(name, inner, one, path)
            refuse_secret(inner, one, path)
            if inner not in SETTABLE[name]:
                raise UsageError(
                    f"{path} sets {shown(inner)} for {name}, which has no such option.{_meant(name, inner)}"
                )
            if isinstance(one, dict):
                deeper = ", ".join(map(short, one)) or "nothing"
                raise UsageError(
                    f"{path} has a table [{name}.{inner}] (with {deeper}), and {inner} is an option: write {inner} ="
                    f" and its value in [{name}]."
                )


def _meant(step: str, option: str) -> str:
    """Words about an option that a step does not have: its right table, or an option of nearly that name."""
    if owners := [f"[{other}]" for other in STEPS if option in SETTABLE[other]]:
        return f" It belongs into {' or '.join(owners)}."
    own = [name for name, place in SETTABLE[step].items() if place not in (SPOT, ENVIRONMENT)]
    return did_you_mean(option, own) or did_you_mean(option, OPTIONS) or " Remove the line."


def _refuse_unsafe(step: str, name: str, value: Any, path: Path, remedy: str = "remove the line") -> None:
    place = place_of(step, name)
    if place in (SPOT, ENVIRONMENT):
        _refuse_place(f"{name} for {step}", place, path, remedy)
    if value in REFUSED_VALUES.get((step, name), ()):
        raise UsageError(f"{path} sets {name} = {shown(value)}, which a settings file may not; give --{name} {value}.")
    if place == INSIDE and not all(is_inside(text, path.parent) for text in texts_of(value)):
        raise UsageError(f"{name} in {path} lies outside the workspace; give --{name} on the command line.")
    if place == NAME and any(is_folder(text) for text in texts_of(value)):
        raise UsageError(f"{name} in {path} is a folder, which may hold code; give --{name} on the command line.")


def _refuse_place(what: str, place: str, path: Path, remedy: str = "remove the line") -> None:
    name = what.partition(" ")[0]
    instead = f" or as {PREFIX}{name.upper().replace('-', '_')} in the environment" if place == ENVIRONMENT else ""
    raise UsageError(
        f"{path} sets {what}, which a settings file may not; {remedy}, or give --{name} on the command line{instead}."
    )


def is_inside(text: str, root: Path) -> bool:
    try:
        return Path(text).resolve().is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # a loop of links, a null character
        return False


def is_folder(text: str) -> bool:
    try:
        return text.startswith(("~", ".")) or Path(text).is_absolute() or "\\" in text or Path(text).exists()
    except (OSError, ValueError):
        return True


def texts_of(value: Any) -> list[str]:
    """The texts of a value, which may be one or a list of some."""
    return [text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)]


def refuse_secret(name: str, value: Any, path: Path) -> None:
    in_address = any(re.match(r"[^/?#\s]*://[^/?#]*@", text) for text in texts_of(value))
    if in_address or any(word in name.split("-") for word in _SECRET_WORDS):
        raise UsageError(f"{short(name)} in {path} looks like a secret; set it in the environment instead.")


def _convert(action: argparse.Action, value: Any, where: str) -> Any:
    if action.nargs == 0:
        return _to_switch(action, value, where)
    several = action.nargs in ("*", "+") or isinstance(action.nargs, int)
    if several or isinstance(action, argparse._AppendAction):
        parts = value if isinstance(value, list) else _text(value, where).split(",")
        return [_convert_one(action, part, where) for part in parts]
    return _convert_one(action, value, where)


def _convert_one(action: argparse.Action, value: Any, where: str) -> Any:
    text = _text(value, where)
    if action.type is Path and not text:
        raise UsageError(f"{where} is empty; give a path or leave it out.")
    try:
        converted = action.type(text) if callable(action.type) else text
    except (ValueError, TypeError, OverflowError, argparse.ArgumentTypeError) as error:
        raise UsageError(f"{where} cannot be {shown(value)} ({short(error)}); correct it.") from None
    if action.choices is not None and converted not in action.choices and isinstance(converted, str):
        spelled = other_spelling(converted)
        converted = spelled if spelled in action.choices else converted
    if action.choices is not None and converted not in action.choices:
        raise UsageError(
            f"{where} cannot be {shown(value)}; it is one of {', '.join(map(str, action.choices))}."
            + did_you_mean(text, map(str, action.choices))
        )
    return converted


def _text(value: Any, where: str) -> str:
    """One value as it would be typed on the command line. Raises UsageError for a table, a list and the like."""
    if isinstance(value, dict | list) or (isinstance(value, int) and abs(value) >= 2**64) or "\0" in str(value):
        raise UsageError(f"{where} cannot be {shown(value)}; give one value as on the command line.")
    return str(value)


def _to_switch(action: argparse.Action, value: Any, where: str) -> Any:
    chosen = value if isinstance(value, bool) else SWITCHES.get(_text(value, where).strip().lower())
    if chosen is None:
        raise UsageError(f"{where} cannot be {shown(value)}; it is true or false.")
    if isinstance(action, argparse._CountAction):
        return int(chosen)
    if not chosen:
        return False if action.const is True else action.default
    return action.const


def shown(value: Any) -> str:
    """A value as a message repeats it, whatever it is."""
    try:
        return short(repr(value))
    except (ValueError, RecursionError):  # a number of thousands of digits, lists within lists
        return "a list" if isinstance(value, list) else "so large a number"


def short(text: object) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(str(text).split())
    return line if len(line) <= SHOWN else line[:SHOWN] + "…"
