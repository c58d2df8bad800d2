"""Output of a step: log lines beside progress bars, and at the end the summary, the next command and `--json`.

No text that a server sent can steer the terminal.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lib.cli.session import Session, Summary
from lib.text import escape_controls, hide, redact, replacements

log = logging.getLogger("gleaner")


def print_summary(session: Session, summary: Summary) -> None:
    """Prints the summary of a run, as a line for a person or as one JSON object."""
    elapsed = time.monotonic() - session.started
    if session.args.json:
        secrets = replacements(vars(session.args).values())
        parts_of_json = json_parts(_as_json(session, summary))
        # A result may hold addresses of pictures, which stay as they are; what a flag brought as a secret does not.
        sys.stdout.writelines(hide(part, secrets) for part in parts_of_json)
        print()
    parts = ", ".join(_parts(summary.counts))
    mode = " (dry run, nothing written)" if session.dry_run else ""
    if not session.args.quiet:
        if summary.note:
            log.info("%s", summary.note)
        log.info("%s%s: %s in %.1f s", session.step, mode, parts or "nothing to do", elapsed)
        if session.stopping():
            log.info("interrupted; the state is safe: run the same command to continue")
        elif summary.next:
            log.info("next: %s", _with_workspace(summary.next, session.args.workspace))


def json_parts(value: Any) -> Iterator[str]:
    """A value as JSON, in parts. An iterator, also in a dict, is an array that is written entry by entry."""
    if isinstance(value, Iterator):
        yield from _array_parts(value)
        return
    if not isinstance(value, dict):
        yield _dumped(value)
        return
    before = "{"
    for name, entry in value.items():
        yield f"{before}{_dumped(str(name))}: "
        if isinstance(entry, Iterator):
            yield from _array_parts(entry)
        else:
            yield _dumped(entry)
        before = ", "
    yield "}" if value else "{}"


def _array_parts(entries: Iterator[Any]) -> Iterator[str]:
    before = "["
    for entry in entries:
        yield before + _dumped(entry)
        before = ", "
    yield "[]" if before == "[" else "]"


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _as_json(session: Session, summary: Summary) -> Any:
    if summary.result is not None:
        return summary.result
    return {
        "step": session.step,
        "run": session.run_id or None,
        "dry_run": session.dry_run,
        "exit_code": summary.exit_code,
        "counts": summary.counts,
    }


def _with_workspace(command: str, workspace: Path) -> str:
    """The next command as it has to be typed here."""
    if str(workspace) == "workspace" or os.environ.get("GLEANER_WORKSPACE") == str(workspace):
        return command
    return f"{command} --workspace {shlex.quote(str(workspace))}"


def _parts(counts: dict[str, Any]) -> Iterator[str]:
    """Each count in words; what `failed_<reason>` counts is part of what `failed` does."""
    reasons = {name: value for name, value in counts.items() if name.startswith("failed_") and "failed" in counts}
    told = ", ".join(f"{_number(value)} {_words(name.removeprefix('failed_'))}" for name, value in reasons.items())
    for name, value in counts.items():
        if name not in reasons:
            yield _counted(value, _words(name)) + (f" ({told})" if name == "failed" and told else "")


def _words(name: str) -> str:
    return name.replace("_", " ").replace(":", ": ")


def _number(value: int | float | str) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _counted(value: int | float | str, name: str) -> str:
    """`3 new pictures`, `1 query`; `run 7` where the number is a name."""
    if name == "run":
        return f"run {value}"
    if value == 1 and name.endswith("s") and not name.endswith("ss"):
        name = name[:-3] + "y" if name.endswith("ies") else name[: -2 if name.endswith("sses") else -1]
    return f"{_number(value)} {name}"


class _Handler(logging.Handler):
    """Writes beside a progress bar without breaking it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = escape_controls(redact(self.format(record)))
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


def tolerate_terminal_encoding() -> None:
    """A page title in Korean must not end a run on a terminal that cannot show it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
