"""Errors of the system and of SQLite as sentences that end with what to do; things with their number."""

from __future__ import annotations

import errno
import sqlite3


def counted(number: int, noun: str) -> str:
    """`1 file`, `2,000 files`, `3 addresses`, `4 queries`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{number:,} {noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}s"


def explain_sqlite(error: sqlite3.OperationalError) -> str | None:
    """What the system did not give; None where the file or the statement is to blame."""
    text = str(error)
    if "full" in text:
        return "the disk is full; make room and run the same command again."
    if "disk I/O" in text:
        return "the disk is full or failing; make room or check it, and run the same command again."
    if "readonly" in text or "unable to open" in text:
        return f"{text}; check that the workspace folder can be written."
    if "locked" in text or "busy" in text:
        return "another step held it for too long; wait for that step to end and run the same command again."
    return None


def explain_os(error: OSError) -> str | None:
    where = error.filename or "the disk"
    known = {
        errno.ENOSPC: f"no space is left on the device ({where}); make room and run the same command again.",
        errno.EDQUOT: f"the disk quota is used up ({where}); make room and run the same command again.",
        errno.EROFS: f"{where} is read-only; choose another --workspace.",
        errno.EACCES: f"{where} may not be read or written; check its permissions.",
        errno.EPERM: f"{where} may not be changed; check its permissions.",
        errno.EMFILE: "too many files are open; lower --workers or raise the limit (ulimit -n).",
        errno.ENOTDIR: f"{where} is no folder; give another path.",
        errno.EISDIR: f"{where} is a folder, not a file; give another path.",
        errno.ENOENT: f"{where} does not exist; check the path.",
        errno.EEXIST: f"{where} is there already; move it away or give another path.",
        errno.ELOOP: f"{where} is a link that leads to itself; give another path.",
        errno.ENXIO: f"{where} is no ordinary file; give another path.",
        errno.ENAMETOOLONG: f"{str(where)[:60]}… is too long a name; give a shorter path.",
    }
    return known.get(error.errno or 0)
