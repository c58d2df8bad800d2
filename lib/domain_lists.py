"""Lists of domains to leave out or to keep to: plain text, one name a line, written by step 3, read by steps 4 and 5.

A line is a registrable domain or a host and covers every host below it, or `family:NAME` for a service family. What
follows a `#` is a comment.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lib.errors import UsageError
from lib.families import domains_of
from lib.temporary import clear_dead, write_whole

BLOCKED, NOT_ALLOWED = "blocked_domain", "not_allowed_domain"
_FAMILY = "family:"


@dataclass(frozen=True)
class DomainLists:
    """What may not be taken (`block`), and what alone may be taken (`allow`; None for no such limit)."""

    block: frozenset[str] = frozenset()
    allow: frozenset[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.block) or self.allow is not None

    def refusal(self, host: str) -> str:
        """Why a host may not be used: `blocked_domain`, `not_allowed_domain`, or empty when it may."""
        if covers(self.block, host):
            return BLOCKED
        return NOT_ALLOWED if self.allow is not None and not covers(self.allow, host) else ""


def read_lists(block: Path | None, allow: Path | None) -> DomainLists:
    """Both lists from their files. Raises UsageError for a file that cannot be read or holds no names."""
    return DomainLists(read_list(block) if block else frozenset(), read_list(allow) if allow else None)


def read_list(path: Path) -> frozenset[str]:
    """The names of a list in lower case, families resolved. Raises UsageError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); give a text file with one domain a line.") from None
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    return frozenset(name for line in names for name in _resolve(line, path))


def write_list(path: Path, names: Iterable[str], about: str) -> int:
    """Writes a list, sorted, with a line that says what it is; gives the number of names."""
    found = sorted({name.lower() for name in names if name})
    clear_dead(path.parent, target=path.name)
    write_whole(path, ("\n".join([f"# {about}", *found]) + "\n").encode())
    return len(found)


def covers(names: frozenset[str], host: str) -> bool:
    """Whether a host or a domain above it is among the names."""
    host = host.lower().rstrip(".")
    while host:
        if host in names:
            return True
        host = host.partition(".")[2]
    return False


def _resolve(name: str, path: Path) -> list[str]:
    if not name.lower().startswith(_FAMILY):
        plain = name.lower().removeprefix("*.").strip(".")
        if not plain or any(c in plain for c in "/ :"):
            raise UsageError(f"{path}: {name!r} is no domain; write names such as example.org, one a line.")
        return [plain]
    if not (domains := domains_of(name[len(_FAMILY) :].strip())):
        raise UsageError(f"{path}: there is no family {name[len(_FAMILY) :]!r}; see lib/data/families.toml.")
    return domains
