"""The demo: the offline gallery as a child process, and the seven steps against it, one after the other.

`workspace_lines` describes a workspace for people, at the end of the demo and in `check`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.db import open_for_preview
from lib.db.journal import table_counts
from lib.errors import GleanerError, UsageError
from lib.setup.environment import Environment, run_child
from lib.workspace import Workspace

log = logging.getLogger("gleaner.setup")

# The gallery makes its pictures first: some seconds on two cores, so two minutes mean that it hangs.
READY_SECONDS = 120
END_SECONDS = 5
# Below the ports that systems hand out by themselves, so that the gallery's own are still free the next time.
FIRST_PORT = 21870

# Tables whose rows say something about pictures; the others are bookkeeping.
SHOWN_TABLES = ("queries", "responses", "images", "results", "downloads", "files", "duplicates", "scores")


class DemoStepError(GleanerError):
    """A step of the demo ended with an exit code other than 0, which becomes that of the demo."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(
            f"`{command}` ended with exit code {code}; its reason is above, and the same demo can be rerun."
        )
        self.exit_code = code


@dataclass(frozen=True)
class Gallery:
    """A gallery that answers: its address and the folder of query pictures."""

    url: str
    queries: Path


@contextmanager
def running_gallery(environment: Environment, workspace: Path) -> Iterator[Gallery]:
    """The gallery, ended in any case when the block is left. It keeps its port from one demo to the next."""
    if not (environment.root / "demo").is_dir():
        raise UsageError(f"{environment.root / 'demo'} is missing; run `git checkout -- demo`.")
    folder = workspace / "gallery"
    Workspace(workspace).refuse_foreign([folder])  # before anything is written there
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GleanerError(f"{folder} cannot be made ({error.strerror}); give another --workspace.") from error
    # What it says goes elsewhere than its pictures, so that a full disk there can still be told.
    with tempfile.TemporaryDirectory(prefix="gleaner-") as said, contextlib.ExitStack() as running:
        gallery, last_port = None, FIRST_PORT
        with contextlib.suppress(OSError, ValueError):
            last_port = int((folder / "port").read_text(encoding="ascii"))
        # Somebody else may have the last port by now: then any other will do.
        for port in dict.fromkeys((last_port, 0)):
            child = _started(environment, folder, port, Path(said))
            running.callback(_end, child)
            gallery = _answer(child, Path(said))
            if gallery is not None:
                break
        if gallery is None:
            lines = (Path(said) / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            reason = lines[-1] if lines else "it gave no reason"
            raise GleanerError(f"the gallery did not start ({reason}); put that right and rerun.")
        (folder / "port").write_text(gallery["url"].rsplit(":", 1)[-1].strip("/"), encoding="ascii")
        yield Gallery(gallery["url"], folder / "queries")


def run_steps(environment: Environment, steps: Sequence[str], values: dict[str, str]) -> None:
    """Each step with its output as it comes; DemoStepError at the first that fails."""
    for number, step in enumerate(steps, 1):
        words = [word.format(**values) for word in step.split()]
        log.info("\n== %d of %d: python %s", number, len(steps), " ".join(words))
        started = time.monotonic()
        code = run_child([str(environment.python), *words], folder=environment.root)
        if code != 0:
            raise DemoStepError(" ".join(words), code)
        log.info("   %.1f s", time.monotonic() - started)


def _started(environment: Environment, folder: Path, port: int, said: Path) -> subprocess.Popen[bytes]:
    command = [str(environment.python), "-m", "demo", "--port", str(port), "--queries", str(folder / "queries")]
    with (said / "ready.json").open("wb") as out, (said / "log").open("wb") as errors:
        # A session of its own, so that Ctrl-C ends the step first and the gallery after it.
        return subprocess.Popen(
            command,
            cwd=environment.root,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=errors,
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),  # the same on Windows
        )


def _answer(child: subprocess.Popen[bytes], said: Path) -> dict[str, Any] | None:
    """The line the gallery prints when it is ready, or None where it ended or took too long."""
    deadline = time.monotonic() + READY_SECONDS
    ended = False
    while not ended and time.monotonic() < deadline:
        ended = child.poll() is not None
        line, newline, _ = (said / "ready.json").read_text(encoding="utf-8").partition("\n")
        if newline:
            try:
                answer = json.loads(line)
            except ValueError:
                return None
            return answer if isinstance(answer, dict) and "url" in answer else None
        time.sleep(0.05)
    return None


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def workspace_lines(root: Path) -> list[tuple[str, str]]:
    """(path, what is in it) for the database and every folder; empty where there is no workspace."""
    workspace = Workspace(root)
    if not root.is_dir():
        return []
    lines = [(f"{root.name}/", "")]
    if workspace.database.exists():
        with open_for_preview(workspace.database) as db:
            counts = table_counts(db)
        rows = ", ".join(f"{counts[name]} {name}" for name in SHOWN_TABLES if name in counts)
        lines.append((f"  {workspace.database.name}", rows))
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        lines.append((f"  {folder.name}/", _count(folder)))
        if folder == workspace.sorted:
            buckets = sorted(path for path in folder.glob("*/*") if path.is_dir())
            lines += [(f"    {path.relative_to(folder).as_posix()}/", _count(path)) for path in buckets]
    return lines


def report_pages(root: Path) -> list[Path]:
    """The pages to open in a browser, by name."""
    return sorted(Workspace(root).reports.rglob("*.html"))


def folder_size(folder: Path) -> tuple[int, int]:
    """(files, bytes) below a folder, links not followed and what vanishes meanwhile not counted."""
    files = total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(base) / name).lstat().st_size
            except OSError:
                continue
            files += 1
    return files, total


def human_size(size: float) -> str:
    """A number of bytes as people write it, in powers of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _count(folder: Path) -> str:
    files, total = folder_size(folder)
    return f"{files} file{'' if files == 1 else 's'}, {human_size(total)}"
