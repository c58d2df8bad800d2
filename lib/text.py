"""Text: counted nouns, words that were meant, commands for a shell, what UTF-8 and the database can hold, secrets left
out, control characters made visible."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import PurePath
from typing import Any

HIDDEN = "***"
LONGEST_NO_VALUE = 24  # characters of a word for nothing, with what stands around it
LIKENESS = 0.6  # of a mistyped word to the one that was meant: the share of letters in common that difflib goes by
SHORTEST = 6  # characters of a password that is looked for by itself
# A `Path` made of an address has one slash only.
_USER = re.compile(r"(?P<head>\b[A-Za-z][A-Za-z0-9+.-]*:/{1,3})(?P<secret>[^/?#\s\"'<>]+)@")
_NO_VALUE = frozenset(
    {"", "?", "??", "???", "-", "--", "---", "\u2013", "\u2014", "_", "/", "*", "n/a", "n.a", "#n/a", "none", "null"}
    | {"nil", "nan", "unknown", "undefined", "not available", "not specified", "unspecified", "not provided", "no data"}
    | {f"unknown {what}" for what in "author artist creator photographer uploader date source title owner".split()}
    | {"0", "na", "not known", "no value", "unknown license", "unknown licence"}
)  # in small letters
_HALF = re.compile("[\ud800-\udfff]")
_BARE = re.compile(r"[^\s:/@'\"]+:[^\s/@'\"]+@(?=[\w.-])")
_SECRET_NAME = (
    r"[\w.%-]*(?:token|secret|passw|passphrase|pwd|signature|credential|api-?key|access-?key|auth)[\w.%-]*"
    r"|(?:[\w.%-]*[_.-])?(?:key|sig|pass)"
)
_PARAMETER = re.compile(rf"(?P<head>[?&;#](?:{_SECRET_NAME})=)(?P<secret>[^&;#\s\"'<>]+)", re.IGNORECASE)


def counted(number: int, noun: str) -> str:
    """`1 file`, `2,000 files`, `3 addresses`, `4 queries`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{number:,} {noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}s"


def command_line(words: Sequence[str]) -> str:
    """Words as they are typed into a shell: that of Windows, or one of POSIX."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'quality'?` for a word that is nearly one of those known; empty where none is near."""
    names = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), names, n=1, cutoff=LIKENESS)
    return f" Did you mean {names[near[0]]!r}?" if near else ""


def known(value: str) -> str:
    """Returns the text, empty where it is a word for nothing: `?`, `-`, `N/A`, `unknown`."""
    return "" if len(value) < LONGEST_NO_VALUE and value.strip(" .()[]<>").casefold() in _NO_VALUE else value


def storable(text: str) -> str:
    """The text with half an emoji or a byte that is no UTF-8 as U+FFFD, and without NULs."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    return text if is_storable(text) else _HALF.sub("\ufffd", text)


def is_storable(text: str) -> bool:
    """True for a text that UTF-8 can write. Arguments and file names carry bytes that are none as half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_as_text(path: os.PathLike[str] | str) -> str:
    r"""A path for a person and the database: bytes that are no UTF-8 are written as \xff."""
    return os.fsencode(path).decode(errors="backslashreplace")


def redact(text: str) -> str:
    """A text without the passwords and keys of the addresses in it: `https://***@host/?token=***`."""
    if ":/" in text:
        text = _USER.sub(rf"\g<head>{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\g<head>{HIDDEN}", text) if "=" in text else text


def redact_any(text: str) -> str:
    """Redacts an address too that was typed without its scheme: `user:password@host`."""
    return _BARE.sub(f"{HIDDEN}@", redact(text))


def redacted(value: Any) -> Any:
    """Redacts every text within a value: a list, an option, a path."""
    if isinstance(value, str | PurePath):
        return redact(str(value))
    if isinstance(value, Mapping):
        return {name: redacted(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(one) for one in value]
    return value


def without_user(address: str) -> str:
    """An address without user and password, as rows hold it."""
    return _USER.sub(r"\g<head>", address)


def replacements(values: Iterable[Any]) -> dict[str, str]:
    """Secrets among the values of options, each with the text that replaces it in whatever a run gives out.

    These are whole addresses, and the words themselves unless they are so short that other text holds them too.
    """
    found: dict[str, str] = {}
    for value in values:
        if isinstance(value, list | tuple):
            found |= replacements(value)
        elif isinstance(value, str | PurePath) and (text := str(value)) != redact(text):
            found[text] = redact(text)
            users = [match["secret"] for match in _USER.finditer(text)]
            words = [*users, *(user.partition(":")[2] for user in users)]
            words += [match["secret"] for match in _PARAMETER.finditer(text)]
            found |= {word: HIDDEN for word in words if len(word) >= SHORTEST}
    return found


def hide(text: str, found: Mapping[str, str]) -> str:
    """A text with the replacements made, the longest first, since one may be part of another."""
    for secret in sorted(found, key=len, reverse=True):
        text = text.replace(secret, found[secret])
    return text


def escape_controls(text: str) -> str:
    """Text without control characters: what a server sent must not steer somebody's terminal."""

    def escaped(character: str) -> str:
        return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"

    return "".join(c if c in "\n\t" or c.isprintable() else escaped(c) for c in text)
