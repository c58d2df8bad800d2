"""The plain files below a folder, with a word for everything that stands in the way."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib.workspace import Workspace

log = logging.getLogger("gleaner")

Unreadable = Callable[[Path, OSError], None]


def text_name(path: Path, workspace: Workspace) -> str:
    """How the database writes a path. Raises OSError for a name that is no text: databases and pages hold only that."""
    text = workspace.to_text(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise OSError(errno.EILSEQ, "the name is no UTF-8", str(path)) from None
    return text


@dataclass(frozen=True)
class Unread:
    """What could not be read: said aloud, and counted by reason."""

    reasons: Counter[str] = field(default_factory=Counter)

    def __call__(self, path: Path, error: OSError) -> None:
        log.warning("%s cannot be read (%s); it is left out", path, error.strerror or error)
        self.reasons["unreadable_folder" if path.is_dir() else "unreadable_file"] += 1


def plain_files(
    folder: Path, unreadable: Unreadable, wanted: Callable[[str], bool], *, hidden: bool = True
) -> Iterator[Path]:
    """Every file below a folder whose name is wanted, sorted; without `hidden`, no folder whose name has a dot first.

    A folder that may not be read goes to `unreadable`, and so does a link to nothing, a pipe or a device: reading one
    of those would wait for ever. The folder itself need not be there.
    """

    def tell(error: OSError) -> None:
        path = Path(error.filename or folder)
        if path != folder or not isinstance(error, FileNotFoundError):
            unreadable(path, error)

    for parent, folders, names in os.walk(folder, onerror=tell):
        folders[:] = sorted(name for name in folders if hidden or not name.startswith("."))
        for name in sorted(filter(wanted, names)):
            path = Path(parent, name)
            try:
                if not stat.S_ISREG(path.stat().st_mode):
                    raise OSError(errno.EINVAL, "it is no plain file", str(path))
            except OSError as error:
                unreadable(path, error)
            else:
                yield path
