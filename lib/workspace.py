"""The one folder that the steps share, and how paths in it are written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

DATABASE_NAME = "gleaner.db"
SETTINGS_NAME = "gleaner.toml"


@dataclass(frozen=True)
class Workspace:
    """Paths only: asking for one creates nothing."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / DATABASE_NAME

    @property
    def settings(self) -> Path:
        return self.root / SETTINGS_NAME

    @property
    def xhr(self) -> Path:
        return self.root / "xhr"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def sorted(self) -> Path:
        return self.root / "sorted"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    def to_text(self, path: Path) -> str:
        """How the database writes a path: relative with forward slashes inside the workspace, else absolute."""
        absolute = path if path.is_absolute() else Path.cwd() / path
        try:
            return absolute.relative_to(self._absolute_root()).as_posix()
        except ValueError:
            return absolute.as_posix()

    def to_path(self, text: str) -> Path:
        """The path that `to_text` wrote down."""
        pure = PurePosixPath(text)
        return Path(pure) if pure.is_absolute() else self.root / Path(pure)

    def _absolute_root(self) -> Path:
        return self.root if self.root.is_absolute() else Path.cwd() / self.root
