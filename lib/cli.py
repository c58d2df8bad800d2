"""The edge of every step: flags, settings, logging, progress, exit codes and what Ctrl-C does.

A step declares its parser with `parser()` and the `add_*` functions, and hands `run()` one function that takes a
`Session` and gives a `Summary`. Only this module turns errors into sentences and exit codes.
"""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import shlex
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib import __version__
from lib.db import Database, open_database, open_for_preview
from lib.db.runs import finish_run, start_run
from lib.errors import EXIT_INTERRUPTED, EXIT_OK, GleanerError, UsageError
from lib.lock import held
from lib.progress import BarFactory, no_bar, terminal_bar
from lib.settings import apply_settings, read_settings
from lib.workspace import Workspace

log = logging.getLogger("gleaner")

STEP_FILES = {
    "collect": "1_collect.py",
    "ingest": "2_ingest_db.py",
    "report": "3_domain_report.py",
    "cleanup": "4_db_cleanup.py",
    "download": "5_download.py",
    "dedup": "6_dedup.py",
    "sort": "7_sort_quality.py",
}


@dataclass
class Summary:
    """What a step did. `counts` become the summary line, the run's row and `--json`; `result` replaces the latter."""

    counts: dict[str, int | float | str]
    next: str = ""
    exit_code: int = EXIT_OK
    note: str = ""
    result: Any = None


@dataclass
class Session:
    """What a step works with: its arguments, the workspace, the database, and whether it should come to an end."""

    step: str
    args: argparse.Namespace
    workspace: Workspace
    db: Database
    run_id: int
    interrupts: int = 0
    bar: BarFactory = no_bar
    started: float = field(default_factory=time.monotonic)

    @property
    def dry_run(self) -> bool:
        return bool(getattr(self.args, "dry_run", False))

    def stopping(self) -> bool:
        """True after the first Ctrl-C: finish what is in flight, commit, and return."""
        return self.interrupts > 0


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=32, width=min(110, _terminal_width()))


def _terminal_width() -> int:
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return 100


def parser(doc: str | None, step: str) -> argparse.ArgumentParser:
    """A parser whose help is the step's docstring, with the flags that every step has."""
    first, _, rest = (doc or "").strip().partition("\n")
    made = argparse.ArgumentParser(
        prog=STEP_FILES.get(step, step),
        description=first,
        epilog=rest.strip("\n"),
        formatter_class=_Help,
        allow_abbrev=False,
        add_help=False,
    )
    group = made.add_argument_group("common")
    group.add_argument("-h", "--help", action="help", help="show this page and exit")
    group.add_argument(
        "--version", action="version", version=f"Gleaner {__version__}", help="show the version and exit"
    )
    group.add_argument(
        "--workspace",
        type=Path,
        default=Path("workspace"),
        metavar="DIR",
        help="the folder that the steps share (default: workspace)",
    )
    group.add_argument("--json", action="store_true", help="print the summary as one JSON object on stdout")
    group.add_argument("-v", "--verbose", action="count", default=0, help="say more; twice for everything")
    group.add_argument("-q", "--quiet", action="store_true", help="say only what went wrong")
    made.set_defaults(step=step)
    return made


def add_dry_run(to: argparse.ArgumentParser) -> None:
    to.add_argument("-n", "--dry-run", action="store_true", help="show what would be done and write nothing at all")


def add_limit(to: argparse.ArgumentParser, what: str) -> None:
    to.add_argument("--limit", type=positive, metavar="N", help=f"handle at most N {what} (default: all)")


def add_workers(to: argparse.ArgumentParser, default: int | None = None, what: str = "worker processes") -> None:
    shown = "one a processor" if default is None else str(default)
    to.add_argument(
        "--workers",
        type=positive,
        default=default or cpu_count(),
        metavar="N",
        help=f"{what} (default: {shown})",
    )


def add_executor(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--executor",
        choices=("local", "ray"),
        default="local",
        help="where the work is done: this machine or a Ray cluster (default: local)",
    )


def add_undo(to: argparse.ArgumentParser) -> None:
    to.add_argument(
        "--undo",
        type=run_reference,
        metavar="RUN|last",
        help="take back what a run of this step did, then exit",
    )


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not 1 or more")
    return value


def whole(text: str) -> int:
    """A whole number of at least 0."""
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 0")
    return value


def share(text: str) -> float:
    """A share, written as 0.5 or 50%."""
    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no share such as 0.5 or 50%") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 1 (0% and 100%)")
    return value


def run_reference(text: str) -> str:
    """`last`, or the number of a run."""
    if text == "last" or text.isdigit():
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is neither a run's number nor 'last'")


def cpu_count() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def run(
    made: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    work: Callable[[Session], Summary],
    *,
    check: Callable[[argparse.Namespace], None] = lambda args: None,
    needs: str = "",
    alone: bool = False,
) -> int:
    """Parses, opens, works, reports; gives the exit code.

    `check` holds the rules across flags and raises UsageError before anything is touched. `needs` names the step that
    has to run first; without it the workspace is made when missing. `alone` refuses a second run of the step beside
    this one: steps that keep a journal settle what a killed run left, and must not take a living one for that.
    """
    _speak_any_language()
    as_json = "--json" in (sys.argv[1:] if argv is None else argv)
    try:
        args = parse(made, argv)
        as_json = args.json
        _start_logging(args)
        check(args)
        return _run_in_session(args, work, needs, alone)
    except GleanerError as error:
        return _fail(str(error), error.exit_code, as_json)
    except KeyboardInterrupt:
        return _fail("stopped at once; the state is safe: run the same command to continue.", EXIT_INTERRUPTED, as_json)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except sqlite3.OperationalError as error:
        return _fail(f"the database could not be used: {_explain_sqlite(error)}", 1, as_json)
    except sqlite3.DatabaseError as error:
        if type(error) is not sqlite3.DatabaseError:  # a broken constraint is a bug of ours, not a broken file
            raise
        return _fail(f"the database is damaged ({error}); put back a copy from the backups folder.", 1, as_json)
    except OSError as error:
        if (sentence := _explain_os(error)) is None:
            raise
        return _fail(sentence, 1, as_json)


def parse(made: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with settings from the environment and `gleaner.toml` below the flags."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--workspace", type=Path, default=Path(os.environ.get("GLEANER_WORKSPACE") or "workspace"))
    root: Path = early.parse_known_args(argv)[0].workspace
    path = Workspace(root).settings
    apply_settings(made, made.get_default("step"), read_settings(path), os.environ, path)
    # Intermixed, so that words may stand after flags: `6_dedup.py exact --dry-run photos`.
    return made.parse_intermixed_args(argv)


def _run_in_session(args: argparse.Namespace, work: Callable[[Session], Summary], needs: str, alone: bool) -> int:
    workspace = Workspace(args.workspace)
    dry_run = bool(getattr(args, "dry_run", False))
    if needs and not workspace.database.exists():
        raise UsageError(f"there is no database in {workspace.root}; run {needs} first.")
    with (
        _alone(workspace, args.step) if alone and not dry_run else nullcontext(),
        (open_for_preview if dry_run else open_database)(workspace.database) as db,
    ):
        run_id = 0 if dry_run else start_run(db, args.step, _recorded(args))
        session = Session(args.step, args, workspace, db, run_id, bar=no_bar if args.quiet else terminal_bar)
        with _interruptible(session):
            summary = _work_recorded(session, work)
        _report(session, summary)
    return summary.exit_code


def _alone(workspace: Workspace, step: str) -> AbstractContextManager[None]:
    busy = f"another run of {STEP_FILES.get(step, step)} is at work in this workspace; wait until it has ended."
    return held(workspace.root / f".{step}.lock", busy)


def _work_recorded(session: Session, work: Callable[[Session], Summary]) -> Summary:
    """Runs the step and records in its row how it ended, whatever happens."""
    exit_code, counts = 1, {}
    try:
        summary = work(session)
        if session.stopping():
            summary.exit_code = EXIT_INTERRUPTED
        exit_code, counts = summary.exit_code, summary.counts
        return summary
    except GleanerError as error:
        exit_code = error.exit_code
        raise
    except KeyboardInterrupt:
        exit_code = EXIT_INTERRUPTED
        raise
    finally:
        if session.run_id:
            _record_end(session, exit_code, counts)


def _record_end(session: Session, exit_code: int, counts: dict[str, Any]) -> None:
    try:
        finish_run(session.db, session.run_id, exit_code, counts)
    except sqlite3.Error as error:  # the reason that ended the run matters more than its row
        log.debug("the run's end could not be recorded: %s", error)


@contextmanager
def _interruptible(session: Session) -> Iterator[None]:
    """First Ctrl-C (or SIGTERM): ask the step to come to an end. Second: stop now."""

    def handle(number: int, frame: object) -> None:
        session.interrupts += 1
        if session.interrupts > 1:
            raise KeyboardInterrupt
        log.warning("stopping: finishing what is in flight (Ctrl-C again stops at once)")

    previous = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _recorded(args: argparse.Namespace) -> dict[str, Any]:
    # A proxy's address may carry a password.
    return {name: "set" if name == "proxy" and value else value for name, value in vars(args).items()}


def _report(session: Session, summary: Summary) -> None:
    elapsed = time.monotonic() - session.started
    if session.args.json:
        print(json.dumps(_as_json(session, summary), ensure_ascii=False, default=str))
    parts = ", ".join(f"{_number(value)} {name.replace('_', ' ')}" for name, value in summary.counts.items())
    mode = " (dry run, nothing written)" if session.dry_run else ""
    if not session.args.quiet:
        if summary.note:
            log.info("%s", summary.note)
        log.info("%s%s: %s in %.1f s", session.step, mode, parts or "nothing to do", elapsed)
        if session.stopping():
            log.info("interrupted; the state is safe: run the same command to continue")
        elif summary.next:
            log.info("next: %s", _with_workspace(summary.next, session.args.workspace))


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


def _number(value: int | float | str) -> str:
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _fail(sentence: str, exit_code: int, as_json: bool) -> int:
    if as_json:
        print(json.dumps({"error": sentence, "exit_code": exit_code}, ensure_ascii=False))
    print(clean(f"error: {sentence}" if exit_code != EXIT_INTERRUPTED else sentence), file=sys.stderr)
    return exit_code


def _explain_sqlite(error: sqlite3.OperationalError) -> str:
    text = str(error)
    if "full" in text:
        return "the disk is full; make room and run the same command again."
    if "readonly" in text or "unable to open" in text:
        return f"{text}; check that the workspace folder can be written."
    if "locked" in text or "busy" in text:
        return "another step held it for too long; wait for that step to end and run the same command again."
    return f"{text}; run the step with -v for more."


def _explain_os(error: OSError) -> str | None:
    where = error.filename or "the disk"
    known = {
        errno.ENOSPC: f"no space is left on the device ({where}); make room and run the same command again.",
        errno.EDQUOT: f"the disk quota is used up ({where}); make room and run the same command again.",
        errno.EROFS: f"{where} is read-only; choose another --workspace.",
        errno.EACCES: f"{where} may not be read or written; check its permissions.",
        errno.EPERM: f"{where} may not be changed; check its permissions.",
        errno.EMFILE: "too many files are open; lower --workers or raise the limit (ulimit -n).",
        errno.ENOTDIR: f"{where} is no folder; give another path.",
        errno.EISDIR: f"{where} is a folder, not a file; give another path.",
        errno.ENOENT: f"{where} does not exist; check the path.",
        errno.ENAMETOOLONG: f"{str(where)[:60]}… is too long a name; give a shorter path.",
    }
    return known.get(error.errno or 0)


def clean(text: str) -> str:
    """Text without control characters: what a server sent must not steer somebody's terminal."""
    return "".join(c if c in "\n\t" or c.isprintable() else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"


class _Handler(logging.Handler):
    """Writes beside a progress bar without breaking it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = clean(self.format(record))
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(line, file=sys.stderr)
            else:
                print(line, file=sys.stderr)
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)


def _start_logging(args: argparse.Namespace) -> None:
    level = logging.WARNING if args.quiet else logging.DEBUG if args.verbose else logging.INFO
    root = logging.getLogger()
    root.handlers[:] = [_Handler()]
    root.setLevel(logging.DEBUG if args.verbose > 1 else logging.WARNING)
    log.setLevel(level)


def _speak_any_language() -> None:
    """A page title in Korean must not end a run on a terminal that cannot show it."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
