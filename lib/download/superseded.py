"""Contents that no picture uses any more go to the quarantine, journalled like every move, and can be brought back.

What lies at an address (`--to`) is brought into the workspace's quarantine and taken away there; `--undo` sends it
back. `lib.journal.files` moves files of this machine, so the journal's entries for such files are handled here alone.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lib.db import Context, Database, journal
from lib.db.download_queue import leases
from lib.db.downloads import unused_contents
from lib.db.journal import Action
from lib.db.scores import copies_of
from lib.download.targets import RemoteTarget, local_path
from lib.errors import GleanerError, UsageError
from lib.files.pictures import sha256_of
from lib.journal import files
from lib.journal.moves import free_target, remove_empty_parents, temporary_name
from lib.workspace import Workspace

log = logging.getLogger("gleaner.download")

SIDECAR = ".json"  # added to a picture's name


def quarantine_superseded(context: Context, to: str = "") -> int:
    """Moves what no picture uses any more out of the pictures' folder; gives the number of files.

    `to` is the address that this run keeps files at. While another download is at work it does nothing: the next run
    will.
    """
    db, workspace, run_id = context.db, context.workspace, context.run_id
    if leases(db):
        return 0
    far = FolderMoves(db, workspace, to)
    far.finish_interrupted()
    files.finish_interrupted(context, "download", tidy=True)
    planned = list(_plan(context, far))
    if not planned:
        return 0
    files.plan(db, run_id, planned)
    done = files.apply(context, check=lambda action: "" if workspace.to_path(action.source).exists() else "gone")
    return done["done"] + far.bring(run_id)


def _plan(context: Context, far: FolderMoves) -> Iterator[Action]:
    """Moves of contents that no picture uses, with their sidecars, and of the copies of those that are opted out."""
    workspace = context.workspace
    taken: set[str] = set()
    for sha256, text, size, replaced in unused_contents(context.db):
        path = local_path(workspace, text)
        if path is not None and not path.exists():
            continue
        # At an address a file's shelf is kept, in the workspace all of its path; from another folder the name alone.
        inside = "/".join(text.rsplit("/", 2)[1:]) if path is None else path.name if text.startswith("/") else text
        target = free_target(workspace.quarantine / str(context.run_id) / inside, taken)
        reason = "superseded" if replaced else "opted_out"
        # The sidecar first: after a kill in between, the picture is still there and the next run takes it.
        if found := far.sidecar(text):
            beside = free_target(target.with_name(f"{target.name}{SIDECAR}"), taken)
            yield Action("move", f"{text}{SIDECAR}", workspace.to_text(beside), found, reason=reason)
        yield Action("move", text, workspace.to_text(target), sha256, size, reason=reason)
        for copy in copies_of(context.db, sha256) if not replaced else ():
            place = workspace.to_path(copy)
            if not copy.startswith(f"{workspace.sorted.name}/") or not place.is_file() or place.is_symlink():
                continue
            aside = free_target(workspace.quarantine / str(context.run_id) / copy, taken)
            yield Action("move", copy, workspace.to_text(aside), sha256, size, reason=reason)


@dataclass
class FolderMoves:
    """The journal's moves between an address and the quarantine.

    A file arrives whole under its new name before it goes at the old one, and its entry and row follow at the end; what
    a kill leaves in between, `finish_interrupted` or the next `undo` finishes.
    """

    db: Database
    workspace: Workspace
    to: str = ""

    def sidecar(self, text: str) -> str:
        """The hash of what `--sidecar` wrote beside a picture; empty where nothing lies there or can be asked."""
        name = f"{text}{SIDECAR}"
        path = local_path(self.workspace, name)
        if path is not None:
            return sha256_of(path) if path.is_file() and not path.is_symlink() else ""
        try:
            return self._store_at(name).sha256(name)
        except (GleanerError, UsageError, OSError):
            return ""

    def bring(self, run_id: int) -> int:
        """Carries out what is planned for a run; gives the number of files that came."""
        return sum(self._attempt(action, self._bring) == "done" for action in self._entries(run_id, "planned"))

    def finish_interrupted(self) -> None:
        """Finishes what a killed run had brought here, and drops what it had not: that is planned anew."""
        for run_id in journal.runs_with_planned_actions(self.db, "download"):
            for action in self._entries(run_id, "planned"):
                target = self.workspace.to_path(action.target)
                temporary_name(target).unlink(missing_ok=True)
                if not target.is_file() or sha256_of(target) != action.sha256:
                    journal.set_state(self.db, [action.id], "dropped")
                else:
                    self._attempt(action, self._take_away)

    def undo(self, run_id: int, *, dry_run: bool = False) -> Counter[str]:
        """Sends back what a run brought here, newest first; counted as in `lib.journal.files.undo`."""
        counts: Counter[str] = Counter()
        for action in self._entries(run_id, "done", newest_first=True):
            counts[self._attempt(action, lambda one: self._send_back(one, dry_run))] += 1
        return counts

    def _entries(self, run_id: int, state: str, *, newest_first: bool = False) -> Iterator[Action]:
        return journal.iter_actions(self.db, run_id, state, newest_first=newest_first, elsewhere=True)

    def _attempt(self, action: Action, work: Callable[[Action], str]) -> str:
        """Gives the outcome of one entry; an address that does not answer fails it, and is no reason to stop."""
        try:
            return work(action)
        except (GleanerError, UsageError) as error:
            why = str(error)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):  # the quarantine's own disk
                raise
            why = f"{type(error).__name__}: {error}"
        except Exception as error:  # every store has exceptions of its own
            why = f"{type(error).__name__}: {error}"
        log.warning("%s is not moved (%s); run the same command again.", action.source, why)
        if action.state == "planned" and not self.workspace.to_path(action.target).exists():
            journal.set_state(self.db, [action.id], "failed")  # else it is here already, and the next run finishes it
        return "failed"

    def _bring(self, action: Action) -> str:
        """Fetches a file, whole and as it is known, then takes it away at its address."""
        store, target = self._store(action), self.workspace.to_path(action.target)
        aside = temporary_name(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.suppress(FileNotFoundError):
                store.fetch(action.source, str(aside))
            if not aside.is_file() or sha256_of(aside) != action.sha256:
                what = "is another file now" if aside.is_file() else "has gone"
                log.warning("%s %s; it is left as it is.", action.source, what)
                with self.db.transaction():
                    journal.set_state(self.db, [action.id], "dropped")
                    journal.follow_file(self.db, action.sha256, action.source, action.source, "missing")
                return "dropped"
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)
            remove_empty_parents(target.parent, self.workspace.root)
        try:
            return self._take_away(action)
        except Exception:
            if store.exists(action.source):  # it may be read there and not be removed
                target.unlink()
                remove_empty_parents(target.parent, self.workspace.root)
            raise

    def _take_away(self, action: Action) -> str:
        self._store(action).remove(action.source)
        with self.db.transaction():
            journal.set_state(self.db, [action.id], "done")
            journal.follow_file(self.db, action.sha256, action.source, action.target, "quarantined")
        return "done"

    def _send_back(self, action: Action, dry_run: bool) -> str:
        store, target = self._store(action), self.workspace.to_path(action.target)
        there, here = store.sha256(action.source), target.is_file()
        if there and there != action.sha256:
            return "occupied"
        if not there and not here:
            return "missing"
        if dry_run:
            return "undone"
        if there:  # an earlier undo was killed after it had sent the file
            target.unlink(missing_ok=True)
        else:
            name = action.source.removeprefix(store.address).lstrip("/")
            store.write(str(target), b"", name, f"{target.name}.part")
        with self.db.transaction():
            journal.set_state(self.db, [action.id], "undone")
            journal.follow_file(self.db, action.sha256, action.target, action.source, "present")
        remove_empty_parents(target.parent, self.workspace.root)
        return "undone"

    def _store(self, action: Action) -> RemoteTarget:
        return self._store_at(action.source)

    def _store_at(self, text: str) -> RemoteTarget:
        """The store at the address of a file: this run's own where it lies there."""
        if self.to:
            own = RemoteTarget(self.workspace, self.to)  # which may know a password that no row holds
            if text.startswith(f"{own.address}/"):
                return own
        return RemoteTarget(self.workspace, text.rsplit("/", 2)[0])
