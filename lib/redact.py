"""Passwords and keys in addresses, left out of whatever is recorded, logged or said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

HIDDEN = "***"
SHORTEST = 6  # characters of a password that is looked for by itself
# A `Path` made of an address has one slash only.
_USER = re.compile(r"(?P<head>\b[A-Za-z][A-Za-z0-9+.-]*:/{1,3})(?P<secret>[^/?#\s\"'<>]+)@")
_BARE = re.compile(r"[^\s:/@'\"]+:[^\s/@'\"]+@(?=[\w.-])")
_SECRET_NAME = (
    r"[\w.%-]*(?:token|secret|passw|passphrase|pwd|signature|credential|api-?key|access-?key|auth)[\w.%-]*"
    r"|(?:[\w.%-]*[_.-])?(?:key|sig|pass)"
)
_PARAMETER = re.compile(rf"(?P<head>[?&;#](?:{_SECRET_NAME})=)(?P<secret>[^&;#\s\"'<>]+)", re.IGNORECASE)


def redact(text: str) -> str:
    """A text without the passwords and keys of the addresses in it: `https://***@host/?token=***`."""
    if ":/" in text:
        text = _USER.sub(rf"\g<head>{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\g<head>{HIDDEN}", text) if "=" in text else text


def redact_any(text: str) -> str:
    """The same where an address may have been typed without its scheme: `user:password@host`."""
    return _BARE.sub(f"{HIDDEN}@", redact(text))


def redacted(value: Any) -> Any:
    """The same of every text within a value: a list, an option, a path."""
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
    """What options hold of secrets, with what stands for it in whatever a run gives out: whole addresses, and the
    words themselves unless they are so short that other text holds them too."""
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
