"""What a workspace holds, in a few lines for people: used by `check` and at the end of the demo."""

from __future__ import annotations

import os
from pathlib import Path

from lib.db.connection import open_for_preview
from lib.db.overview import table_counts
from lib.workspace import Workspace

# Tables whose rows say something about pictures; the others are bookkeeping.
SHOWN_TABLES = ("queries", "responses", "images", "results", "downloads", "files", "duplicates", "scores")


def workspace_lines(root: Path) -> list[tuple[str, str]]:
    """(path, what is in it) for the database and every folder; empty where there is no workspace."""
    workspace = Workspace(root)
    if not root.is_dir():
        return []
    lines = [(f"{root.name}/", "")]
    if workspace.database.exists():
        lines.append((f"  {workspace.database.name}", _rows(workspace.database)))
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        lines.append((f"  {folder.name}/", _count(folder)))
        if folder == workspace.sorted:
            lines += [(f"    {path.relative_to(folder).as_posix()}/", _count(path)) for path in _buckets(folder)]
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


def _buckets(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/*") if path.is_dir())


def _count(folder: Path) -> str:
    files, total = folder_size(folder)
    return f"{files} file{'' if files == 1 else 's'}, {human_size(total)}"


def _rows(database: Path) -> str:
    with open_for_preview(database) as db:
        counts = table_counts(db)
    return ", ".join(f"{counts[name]} {name}" for name in SHOWN_TABLES if name in counts)
