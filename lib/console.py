"""The conversation on the error stream: logging beside progress bars, and text that cannot steer a terminal."""

from __future__ import annotations

import argparse
import logging
import sys

from lib.redact import redact

log = logging.getLogger("gleaner")


def clean(text: str) -> str:
    """Text without control characters: what a server sent must not steer somebody's terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


class _Handler(logging.Handler):
    """Writes beside a progress bar without breaking it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = clean(redact(self.format(record)))
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
            else:
                sys.stderr.write(line + "\n")
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)


def start_logging(args: argparse.Namespace) -> None:
    level = logging.WARNING if args.quiet else logging.DEBUG if args.verbose else logging.INFO
    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(logging.DEBUG if args.verbose > 1 else logging.WARNING)
    log.setLevel(level)


def speak_any_language() -> None:
    """A page title in Korean must not end a run on a terminal that cannot show it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
