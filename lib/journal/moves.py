"""Moves, copies and links single files so that nothing is overwritten and every name shows a whole file."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from unicodedata import normalize

from lib.errors import UsageError
from lib.files.names import fitting_name
from lib.temporary import fitting, remove_file, rename_unless_taken, temporary_beside

# Another file system, one without hard links, or one more name than it allows.
NO_HARD_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS})
NO_PRIVILEGE = 1314  # Windows' own number for it
LONGEST_TEMPORARY = 200  # bytes of the target's name in that of its temporary file
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


def free_target(target: Path, taken: set[str]) -> Path:
    """`target`, or the same name with a number when that is taken on disk or in this plan.

    Names are compared without case and in one normal form, since macOS and Windows do. One that would be too long is
    cut. The chosen name is added to `taken`.
    """
    candidate, number = target.with_name(fitting_name(target.name)), 1
    while _one_name(candidate) in taken or os.path.lexists(candidate):
        number += 1
        candidate = target.with_name(fitting_name(target.name, f"_{number}"))
    taken.add(_one_name(candidate))
    return candidate


def _one_name(path: Path) -> str:
    """Returns the same text for names that some file system takes for one: by case, and as NFC and NFD."""
    return normalize("NFC", normalize("NFC", str(path)).casefold())


def move_without_overwriting(source: Path, target: Path) -> None:
    """Moves a file; raises FileExistsError when the target exists. Works across file systems."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_symlink():
        os.symlink(_link_text(source, target), target)
        let_go(source, target)
        return
    try:
        if sys.platform == "win32":  # where a rename refuses by itself, and takes files that may not be written
            os.rename(source, target)
            return
        # A hard link fails where the target exists, which a rename would silently replace.
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in NO_ROOM:  # a copy needs more, and would no longer be one file with its other names
            raise
        if sys.platform == "win32" and error.errno != errno.EXDEV:  # such as a file that another program has open
            raise
        copy_without_overwriting(source, target)
    let_go(source, target)


def _link_text(link: Path, place: Path) -> str:
    """The text of a link at another place, to lead where it leads; the way back gives its own text again.

    A relative link leads to the same file only from its own folder.
    """
    text = os.readlink(link)
    if os.path.isabs(text):
        return text
    leads_to = os.path.normpath(os.path.join(link.parent.absolute(), text))
    try:
        moved = os.path.relpath(leads_to, place.parent.absolute())
    except ValueError:  # another drive on Windows
        return leads_to
    # Where folders above are links themselves, ".." does not go back the way that the names say.
    same = os.path.realpath(place.parent / moved) == os.path.realpath(link)
    return moved if same else os.path.realpath(link)


def let_go(source: Path, target: Path) -> None:
    """Takes the old name away; where that may not be, the new one, so that the file has one name as before."""
    try:
        remove_file(source)
    except OSError:
        if os.path.lexists(source):
            remove_file(target)
        raise


def copy_without_overwriting(source: Path, target: Path) -> None:
    """Copies through a temporary file beside the target, so that the final name only ever shows a whole file."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "target exists", str(target))
    temporary = temporary_name(target)
    try:
        if os.path.lexists(temporary):  # what a killed copy left
            remove_file(temporary)
        shutil.copyfile(source, temporary)
        with temporary.open("rb+") as handle:
            os.fsync(handle.fileno())
        shutil.copystat(source, temporary)  # last: a file that may not be written could not be synced after it
        rename_unless_taken(temporary, target)
    finally:
        if os.path.lexists(temporary):
            remove_file(temporary)


def temporary_name(target: Path) -> Path:
    """The place where a copy is made, beside its target; always the same, so that what a kill left is found."""
    return target.with_name(f".{fitting(target.name, LONGEST_TEMPORARY)}.part")


def hard_link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_HARD_LINK:
            raise
        raise UsageError(
            f"{target.parent} is on another file system than {source} or knows no hard links; use copies or symbolic"
            " links."
        ) from error


def symbolic_link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        text = os.path.relpath(source.absolute(), target.parent.absolute())
        # Where folders above are links themselves, ".." does not go back the way that the names say.
        same = os.path.realpath(target.parent / text) == os.path.realpath(source)
    except ValueError:  # another drive on Windows
        text, same = "", False
    os.symlink(text if same else source.absolute(), target)


def require_symbolic_links(folder: Path) -> None:
    """Raises UsageError where none can be made in a folder: Windows asks for a privilege, some file systems know none.

    To be asked before anything is moved to make room for one.
    """
    place = temporary_beside(folder / "link")
    try:
        os.symlink("nowhere", place)
    except OSError as error:
        if getattr(error, "winerror", None) != NO_PRIVILEGE and error.errno not in NO_HARD_LINK:
            raise
        raise UsageError(
            f"symbolic links cannot be made in {folder} ({error.strerror}); use hard links or copies, or turn on the"
            " developer mode of Windows."
        ) from error
    os.unlink(place)


def same_file(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def remove_empty_parents(folder: Path, stop: Path) -> None:
    """Removes a folder and those above it as long as they are empty; `stop` and what is not below it stay."""
    while folder != stop and stop in folder.parents:
        try:
            folder.rmdir()
        except FileNotFoundError:  # a kill while folders were made leaves those above it
            pass
        except OSError:
            return
        folder = folder.parent
