"""What one address may cost; apart from the client, so that a command line can be read without loading it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What one address may cost: seconds, bytes, and bytes a second over a window of seconds."""

    timeout: float = 20.0  # to connect, to the first byte, and between two bytes
    deadline: float = 300.0  # the whole file
    max_bytes: int = 50 * 1024 * 1024
    min_speed: int = 1024
    speed_window: float = 10.0
