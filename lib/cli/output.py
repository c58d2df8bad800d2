"""The session that a step is given, and its output: lines, log lines beside progress bars, and at the end the summary.

No text that a server sent can steer the terminal.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lib.cli.flags import STEP_FILES
from lib.cli.following import next_step, same_command, without_options
from lib.db import Context, Database, journal
from lib.errors import EXIT_OK
from lib.progress import BarFactory, no_bar
from lib.text import command_line, counted, escape_controls, first_lines, hide, redact, replacements
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

BYTES = "_bytes"  # how the name of a count ends that is the size of what another one counts
DETAIL_LINES = 10  # of one kind, unless -v
BY_REASON = ("failed", "unreadable", "passed_over", "unanswered")  # counts that have one for each reason beside them


@dataclass
class Summary:
    """Summary of a run. `counts` become the summary line and the run's row; with `--json` they stand in one object.

    That object is `envelope()`'s; `result` and `details` are its result, and `beside` stands at its end. Iterators in
    them are written entry by entry, so that a long list needs no memory.
    """

    counts: dict[str, int | float | str]
    next: str | None = ""  # a step's command; where it is None nothing follows a dry run either
    exit_code: int = EXIT_OK
    note: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)  # for names of counts that say little to a person


@dataclass
class Session:
    """One run as its script sees it: the parsed arguments beside everything that library code takes as `context`."""

    step: str
    args: argparse.Namespace
    workspace: Workspace
    db: Database
    run_id: int = 0
    interrupts: int = 0
    bar: BarFactory = no_bar
    parser: argparse.ArgumentParser = field(default_factory=argparse.ArgumentParser)
    words: Sequence[str] = ()  # of the command line
    started: float = field(default_factory=time.monotonic)

    @property
    def dry_run(self) -> bool:
        return bool(getattr(self.args, "dry_run", False))

    @property
    def context(self) -> Context:
        """The run as library code takes it: everything but the parsed arguments."""
        return Context(self.db, self.workspace, self.run_id, self.dry_run, self.stopping, self.bar)

    @property
    def most_lines(self) -> int | None:
        """The lines of detail that are printed at most; None for all."""
        return None if self.args.verbose else DETAIL_LINES

    def again(self, *without: str, plus: Sequence[str] = ()) -> str:
        """The command that was typed, without the options of these names, and with further words at its end."""
        return same_command(self.parser, self.step, self.words, without=without, plus=plus)

    def way_back(self, run: int) -> str:
        """The command that takes back a run of this step."""
        command = f"python {STEP_FILES[self.step]} --undo {run}"
        if self.step == "download" and self.args.to:  # step 5 opens no store that was not named to it
            command += f" --to {command_line([self.args.to])}"
        return next_step(command, self.args.workspace)

    def following(self, summary: Summary) -> str:
        """The command to run next: after a dry run the same one in earnest; empty where there is none."""
        if summary.next is None or not self.dry_run:
            return next_step(summary.next, self.args.workspace) if summary.next else ""
        in_earnest = without_options(self.parser, self.words, ("dry_run",))
        # The page of the run in earnest has its own place, and what was looked at stays as it was.
        return (
            self.again("dry_run", "page") if in_earnest != list(self.words) else ""
        )  # else a setting asks for dry runs

    @property
    def shows_page(self) -> bool:
        """False for a dry run under `-q`: its page would lie at a temporary place that nobody is told of."""
        told = self.args.json or getattr(self.args, "page", None) is not None
        return bool(told or not (self.dry_run and self.args.quiet))

    def stopping(self) -> bool:
        """True after the first Ctrl-C: finish what is in flight, commit, and return."""
        return self.interrupts > 0


def say(lines: Iterable[str], most: int | None = None) -> None:
    """Prints lines of a result, the first `most` and the number of the others; names in them may hold anything."""
    for line in first_lines(lines, most):
        print(escape_controls(line))


def print_summary(session: Session, summary: Summary) -> None:
    """Prints the summary of a run, as a line for a person or as one JSON object."""
    elapsed = time.monotonic() - session.started
    if session.args.json:
        result = {**summary.result, **summary.details}
        head = envelope(session.step, session.run_id, session.dry_run, summary.exit_code, summary.counts, result)
        print_json(session, {**head, **summary.beside})
    if left := sum(handler.left_out() for handler in logging.getLogger().handlers if isinstance(handler, _Handler)):
        log.warning("… and %s more (-v prints all)", counted(left, "line"))
    parts = ", ".join(_parts({summary.words.get(name, name): count for name, count in summary.counts.items()}))
    mode = " (dry run, nothing written)" if session.dry_run else ""
    if not session.args.quiet:
        if summary.note:
            log.info("%s", summary.note)
        log.info("%s%s: %s in %.1f s", session.step, mode, parts or "nothing to do", elapsed)
        if command := taking_back(session):
            log.info("to take this back: %s", command)
        if session.stopping():
            log.info("interrupted; the state is safe: run the same command to continue")
        elif following := session.following(summary):
            log.info("next: %s", following)


def taking_back(session: Session) -> str:
    """The command that takes back what this run has moved, written or taken out; empty where that is nothing.

    The journal knows, so no step has to say it.
    """
    if not session.run_id or not hasattr(session.args, "undo") or session.step not in STEP_FILES:
        return ""
    if not journal.count_actions(session.db, session.run_id, "done"):
        return ""
    return session.way_back(session.run_id)


def envelope(
    step: str,
    run: int,
    dry_run: bool,
    exit_code: int,
    counts: Mapping[str, int | float | str] | None = None,
    result: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the object that `--json` prints, in each step and however a run ends; without a run, `run` is null."""
    return {
        "step": step,
        "run": run or None,
        "dry_run": dry_run,
        "exit_code": exit_code,
        "counts": counts or {},
        "result": result or {},
    }


def print_json(session: Session, value: Any) -> None:
    """Prints a value as one line of JSON.

    It may hold addresses of pictures, which stay as they are; what a flag brought as a secret does not.
    """
    secrets = replacements(vars(session.args).values())
    sys.stdout.writelines(hide(part, secrets) for part in json_parts(value))
    print()


def json_parts(value: Any) -> Iterator[str]:
    """A value as JSON, in parts. An iterator, also in a dict, is an array that is written entry by entry."""
    if isinstance(value, Iterator):
        before = "["
        for entry in value:
            yield before + _dumped(entry)
            before = ", "
        yield "[]" if before == "[" else "]"
    elif isinstance(value, dict):
        before = "{"
        for name, entry in value.items():
            yield f"{before}{_dumped(str(name))}: "
            yield from json_parts(entry) if isinstance(entry, Iterator | dict) else (_dumped(entry),)
            before = ", "
        yield "}" if value else "{}"
    else:
        yield _dumped(value)


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _parts(counts: dict[str, Any]) -> Iterator[str]:
    """Each count in words; what `failed_<reason>` counts is part of what `failed` does.

    `removed_bytes` is told with `removed`, in megabytes.
    """
    reasons: dict[str, dict[str, Any]] = {name: {} for name in BY_REASON if name in counts}
    for name, value in counts.items():
        if whole := next((one for one in reasons if name.startswith(f"{one}_")), ""):
            reasons[whole][name.removeprefix(f"{whole}_")] = value
    sizes = {name.removesuffix(BYTES): value for name, value in counts.items() if name.endswith(BYTES)}
    for name, value in counts.items():
        if name.endswith(BYTES) and name.removesuffix(BYTES) in counts:
            continue
        if not any(name.startswith(f"{one}_") for one in reasons):
            told = ", ".join(f"{_number(part)} {_words(reason)}" for reason, part in reasons.get(name, {}).items())
            size = f" ({_megabytes(sizes[name])})" if sizes.get(name) else ""
            yield _counted(value, _words(name)) + size + (f" ({told})" if told else "")


def _words(name: str) -> str:
    return name.replace("_", " ").replace(":", ": ")


def _megabytes(size: float) -> str:
    return "< 0.1 MB" if size < 5e4 else f"{size / 1e6:,.1f} MB"


def _number(value: int | float | str) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _counted(value: int | float | str, name: str) -> str:
    """`3 new pictures`, `1 query`; `run 7` where the number is a name."""
    if name == "run":
        return f"run {value}"
    plural = name.endswith("s") and not name.endswith("ss") and not name.startswith("too many")
    if value == 1 and plural:
        name = (
            name[:-3] + "y"
            if name.endswith("ies")
            else name[: -2 if name.endswith(("sses", "ches", "shes", "xes")) else -1]
        )
    return f"{_number(value)} {name}"


class _Handler(logging.Handler):
    """Writes beside a progress bar without breaking it; of one kind of line the first ten, unless all are asked for."""

    def __init__(self, most: int | None = None):
        super().__init__()
        self.most, self.kinds = most, Counter[tuple[str, int, int]]()

    def left_out(self) -> int:
        """The number of lines that were left out since this was last asked."""
        left = sum(count - self.most for count in self.kinds.values() if count > self.most) if self.most else 0
        self.kinds.clear()
        return left

    def _is_enough(self, record: logging.LogRecord) -> bool:
        """True for one line more of a place in the code than a person wants to see; errors and ALWAYS are told."""
        if self.most is None or record.levelno >= logging.ERROR or getattr(record, "always", False):
            return False
        kind = (record.pathname, record.lineno, record.levelno)
        self.kinds[kind] += 1
        return self.kinds[kind] > self.most

    def emit(self, record: logging.LogRecord) -> None:
        if self._is_enough(record):
            return
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
    root.handlers[:] = [_Handler(None if args.verbose else DETAIL_LINES)]
    root.setLevel(logging.DEBUG if args.verbose > 1 else logging.WARNING)
    log.setLevel(level)


def tolerate_terminal_encoding() -> None:
    """A page title in Korean must not end a run on a terminal that cannot show it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
