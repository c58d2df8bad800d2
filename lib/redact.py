"""Passwords and keys in addresses, left out of whatever is recorded, logged or said."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

HIDDEN = "***"
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


def secrets_in(values: Iterable[Any]) -> Iterator[str]:
    """The passwords and keys of the addresses among options: what must stand in nothing that a run gives out."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from secrets_in(value)
        elif isinstance(value, str | PurePath):
            text = str(value)
            for found in _USER.finditer(text):
                yield found["secret"]
                yield from (part for part in [found["secret"].partition(":")[2]] if part)
            yield from (found["secret"] for found in _PARAMETER.finditer(text))


def hide(text: str, secrets: Iterable[str]) -> str:
    """A text without these very words; the longest first, since one may be part of another."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
