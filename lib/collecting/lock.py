"""One run an engine: two runs at once would ask twice as often as the engine's pace allows."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from lib.lock import held
from lib.workspace import Workspace


def engine_lock(workspace: Workspace, engine: str) -> AbstractContextManager[None]:
    """Holds the engine for this process. Raises GleanerError when another run has it."""
    busy = f"another run is searching {engine} for this workspace; wait until it has ended."
    return held(workspace.root / f".collect-{engine}.lock", busy)


def profile_lock(profile: Path) -> AbstractContextManager[None]:
    """Holds a browser profile, which two browsers cannot share. Raises GleanerError when another run has it."""
    return held(profile.with_name(f".{profile.name}.lock"), f"another run uses the profile {profile}; give --profile.")
