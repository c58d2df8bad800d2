"""One run of a step: settings, database, logging, progress, exit code, and the end that Ctrl-C asks for.

A step hands `run()` its parser and one function that takes a `Session` and gives a `Summary`. Only this module turns
errors into sentences and exit codes.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

from lib.cli.flags import STEP_FILES
from lib.cli.following import next_step, without_options
from lib.cli.output import (
    Session,
    Summary,
    envelope,
    log,
    print_summary,
    start_logging,
    tolerate_terminal_encoding,
)
from lib.cli.settings import apply_settings, read_settings
from lib.db import Database, open_database, open_for_preview
from lib.db.connection import beside, is_unused, open_empty
from lib.db.journal import WORDS, finish_run, has_rows, start_run
from lib.db.maintenance import finish_replacing, waiting
from lib.db.soundness import DAMAGED, Fault, find_fault, refuse_unusable
from lib.errors import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    GleanerError,
    UsageError,
    broken_installation,
    is_broken_installation,
)
from lib.files.pictures import clear_leftovers
from lib.progress import no_bar, terminal_bar
from lib.text import escape_controls, is_storable, redact, redact_any, redacted
from lib.workspace import Workspace, file_lock, step_lock

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?:/|$)")  # `Path` makes one slash of two; one letter is a drive
_TYPING_ERRORS = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.ENOENT})
RECIPE = "GLEANER_RECIPE"  # `lib.setup.recipe` sets it: the name and digest of the recipe that a step runs for
LONGEST_LOOK = 20.0  # seconds that a database is looked through after an error that nobody expected


def run(
    made: argparse.ArgumentParser,
    argv: Sequence[str] | None,
    work: Callable[[Session], Summary],
    *,
    check: Callable[[argparse.Namespace], None] = lambda args: None,
    needs: str = "",
    alone: bool = False,
    before: Callable[[argparse.Namespace], bool] = lambda args: False,
) -> int:
    """Parses, opens, works, reports; gives the exit code.

    `check` holds the rules across flags and raises UsageError before anything is touched. `needs` names the step that
    has to run first; without it the workspace is made when missing. `alone` refuses a second run of the step beside
    this one: steps that keep a journal finish what a killed run left, and must not take a living one for that.
    `before` does what has to be done before the database is opened, and gives whether there is none to open.
    """
    tolerate_terminal_encoding()
    begun = _Begun(made.get_default("step"), sys.argv[1:] if argv is None else argv)
    args: argparse.Namespace | None = None
    try:
        args = parse(made, argv)
        begun.as_json, begun.dry_run = args.json, bool(getattr(args, "dry_run", False))
        start_logging(args)
        _require_text(args)
        _refuse_empty(begun.words)
        _refuse_addresses(made, args)
        workspace = Workspace(args.workspace)
        if not getattr(args, "restore", None):
            workspace.refuse_foreign(_paths_in(args))
        workspace.refuse_links()
        _finish_restore(workspace, dry_run=begun.dry_run)
        check(args)
        with (
            _nothing_made_in_error(workspace),
            _opened(args, workspace, needs=needs, alone=alone, before=before) as db,
        ):
            session = Session(args.step, args, workspace, db, parser=made, words=begun.words)
            begun.session = session
            return _run_in_session(session, work, last=argv is None)
    except GleanerError as error:
        return begun.fail(str(error), error.exit_code)
    except SystemExit as end:  # argparse has said on stderr what is wrong
        if end.code == EXIT_USAGE:
            wrong = getattr(made, "wrong", "") or "the arguments cannot be read; see --help."
            begun.print_error(" ".join(wrong.split()), EXIT_USAGE)
        raise
    except KeyboardInterrupt:
        return begun.fail("stopped at once; the state is safe: run the same command to continue.", EXIT_INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_OK
    except Exception as error:
        if sentence := _explained(error, args):
            return begun.fail(sentence, EXIT_FAILED)
        if argv is None:  # a bug; its traceback may repeat an address that holds a password
            sys.stderr.write(redact(traceback.format_exc()))
            begun.print_error(f"an error that nobody expected ({type(error).__name__}); see stderr.", EXIT_FAILED)
            return EXIT_FAILED
        raise


class _Begun:
    """A run as far as it has come, for the JSON of one that fails: before the words are parsed, they are looked at."""

    def __init__(self, step: str, words: Sequence[str]):
        self.step, self.words = step, words
        self.session: Session | None = None
        self.as_json = "--json" in words
        self.dry_run = "--dry-run" in words or "-n" in words

    def print_error(self, sentence: str, exit_code: int) -> None:
        if self.as_json:
            run_id = self.session.run_id if self.session else 0
            shown = envelope(self.step, run_id, self.dry_run, exit_code, result={"error": redact(sentence)})
            print(json.dumps(shown, ensure_ascii=False))

    def fail(self, sentence: str, exit_code: int) -> int:
        """Says why the run ends; gives its exit code."""
        sentence = redact(sentence)
        self.print_error(sentence, exit_code)
        print(escape_controls(f"error: {sentence}" if exit_code != EXIT_INTERRUPTED else sentence), file=sys.stderr)
        return exit_code


def parse(made: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """The arguments, with settings from the environment and `gleaner.toml` below the flags."""
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--workspace", type=Path, default=Path(os.environ.get("GLEANER_WORKSPACE") or "workspace"))
    early.add_argument("-h", "--help", "--version", dest="asks", action="store_true")
    found = early.parse_known_args(argv)[0]
    if not found.asks:  # whatever is wrong with a settings file, the help is shown
        workspace = Workspace(found.workspace)
        workspace.refuse_odd_root()
        settings = read_settings(workspace.settings)
        apply_settings(made, made.get_default("step"), settings, os.environ, workspace.settings)
    # Intermixed, so that words may stand after flags: `6_dedup.py exact --dry-run photos`.
    return made.parse_intermixed_args(argv)


def _require_text(args: argparse.Namespace) -> None:
    """Raises UsageError where an argument is no text. Paths may be named by any bytes."""
    for name, value in vars(args).items():
        words = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(word, str) and not is_storable(word) for word in words):
            raise UsageError(f"--{name.replace('_', '-')} is no UTF-8 text; write it in UTF-8.")


def _refuse_empty(argv: Sequence[str]) -> None:
    """Raises UsageError for an empty word, as of a variable that is not set.

    As a path, it would be the folder that one stands in.
    """
    flag = ""
    for word in argv:
        name, equals, value = word.partition("=")
        if not word or (name.startswith("--") and equals and not value):
            raise UsageError(f"{name or flag or 'an argument'} is empty; give a value, or leave it out.")
        flag = word if word.startswith("-") else flag


def _refuse_addresses(made: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Raises UsageError where a path of this machine is meant and an address was given: no folder is called `s3:`."""
    for action in made._actions:
        value = getattr(args, action.dest, None)
        for path in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(path, Path) or not _ADDRESS.match(text := str(path)):
                continue
            if not os.path.lexists(text.partition("/")[0]):
                name = (action.option_strings or [str(action.metavar)])[-1]
                raise UsageError(f"{name} takes a path of this machine, and {text} is an address; give a path.")


def _paths_in(args: argparse.Namespace) -> Iterator[Path]:
    """The paths that a command line names, but for the workspace; words of step 6 may be folders."""
    for name, value in vars(args).items():
        for one in value if isinstance(value, list | tuple) else [value]:
            if name != "workspace" and (isinstance(one, Path) or (name == "what" and isinstance(one, str))):
                yield Path(one)


@contextmanager
def _nothing_made_in_error(workspace: Workspace) -> Iterator[None]:
    """Takes away the empty workspace that a run has made which then was refused: its path was a typing error."""
    was_there = os.path.lexists(workspace.database)
    root = Path(os.path.abspath(workspace.root))
    missing = [path for path in (root, *root.parents) if not path.exists()]
    try:
        yield
    except (UsageError, OSError) as error:
        if not _is_refusal(error):
            raise
        if not was_there and os.path.lexists(workspace.database) and is_unused(workspace.database):
            for path in (workspace.database, *beside(workspace.database)):
                path.unlink(missing_ok=True)
        if missing:
            for path in root.glob(".*.lock"):
                path.unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            for path in missing:
                path.rmdir()
        raise


def _is_refusal(error: BaseException) -> bool:
    """True for an error that what was typed may be the reason of."""
    return isinstance(error, UsageError) or (isinstance(error, OSError) and error.errno in _TYPING_ERRORS)


def _finish_restore(workspace: Workspace, *, dry_run: bool) -> None:
    """Brings a backup that a killed restore has left beside its place to its place."""
    if os.path.lexists(workspace.database) or not waiting(workspace.database).exists():
        return
    if dry_run:
        raise UsageError("a restore was interrupted; run 4_db_cleanup.py --restore last once without --dry-run.")
    with _alone(workspace, "cleanup"):
        finish_replacing(workspace.database)


@contextmanager
def _opened(
    args: argparse.Namespace,
    workspace: Workspace,
    *,
    needs: str,
    alone: bool,
    before: Callable[[argparse.Namespace], bool],
) -> Iterator[Database]:
    """The workspace's database, in the way that `run` describes: held alone, as a preview, or an empty one."""
    dry_run = bool(getattr(args, "dry_run", False))
    if not (args.step == "cleanup" and args.restore):  # a restore works whatever is wrong with the database
        _refuse_missing(workspace, args, needs)
        refuse_unusable(workspace.database)
    with _alone(workspace, args.step) if alone and not dry_run else nullcontext():
        without = before(args)
        with open_empty() if without else (open_for_preview if dry_run else open_database)(workspace.database) as db:
            yield db


def _refuse_missing(workspace: Workspace, args: argparse.Namespace, needs: str) -> None:
    if os.path.lexists(workspace.database):
        return
    if needs:
        raise UsageError(f"there is no database in {workspace.root}; run {needs} first.")
    if getattr(args, "undo", None):
        raise UsageError(f"there is no database in {workspace.root}, so there is nothing to undo; check --workspace.")


def _alone(workspace: Workspace, step: str) -> AbstractContextManager[None]:
    busy = f"another run of {STEP_FILES.get(step, step)} is at work in this workspace; wait until it has ended."
    return file_lock(step_lock(workspace.root, step), busy)


def _run_in_session(session: Session, work: Callable[[Session], Summary], *, last: bool) -> int:
    args = session.args
    if not session.dry_run:
        # Without passwords and keys; a proxy's address may hold a password in a form of its own.
        given = {name: "set" if name == "proxy" and value else value for name, value in vars(args).items()}
        if re.fullmatch(r"[\w.-]+ sha256:[0-9a-f]{64}", recipe := os.environ.get(RECIPE, "")):
            given["recipe"] = recipe
        given[WORDS] = _words_to_keep(session)
        session.run_id = start_run(session.db, args.step, redacted(given))
        clear_leftovers(session.workspace, args.step)
    session.bar = no_bar if args.quiet else terminal_bar
    try:
        with _interruptible(session, last=last):
            summary = _work_recorded(session, work)
    except BaseException as error:  # however it ends, the page is to say so
        # A refused run leaves nothing behind: a new workspace goes again.
        if not isinstance(error, UsageError) and not (_is_refusal(error) and is_unused(session.workspace.database)):
            _refresh_index(session)
        raise
    _refresh_index(session)
    print_summary(session, summary)
    return summary.exit_code


def _words_to_keep(session: Session) -> list[str]:
    """The words of the command line for those who go on with a run: without what only this terminal wanted.

    None where one may hold a password: what is hidden cannot be typed again.
    """
    words = without_options(session.parser, session.words, ("workspace", "json", "quiet", "verbose"))
    if "--" in words or any(redact_any(word) != word for word in words):
        return []
    return words


def _refresh_index(session: Session) -> None:
    """Brings `reports/index.html` up to date; whatever goes wrong there is no reason for a run to fail."""
    if session.dry_run:
        return
    try:
        from lib.pages.index import refresh_index

        refresh_index(session.workspace, session.db, partial(next_step, workspace=session.args.workspace))
    except Exception as error:
        log.debug("reports/index.html could not be brought up to date: %s", error)


def _work_recorded(session: Session, work: Callable[[Session], Summary]) -> Summary:
    """Runs the step and records in its row how it ended, whatever happens."""
    exit_code, counts = EXIT_FAILED, {}
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
            try:
                finish_run(session.db, session.run_id, exit_code, counts)
            except sqlite3.Error as error:  # the reason that ended the run matters more than its row
                log.debug("the run's end could not be recorded: %s", error)


@contextmanager
def _interruptible(session: Session, *, last: bool) -> Iterator[None]:
    """First Ctrl-C (or SIGTERM): ask the step to come to an end. Second: stop now.

    With `last` the process ends after this: a signal that comes too late must not make a finished run a killed one.
    """

    def handle(number: int, frame: object) -> None:
        session.interrupts += 1
        if session.interrupts > 1:
            raise KeyboardInterrupt
        log.warning("stopping: finishing what is in flight (Ctrl-C again stops at once)")

    asking = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        asking.append(signal.SIGBREAK)  # Ctrl-Break
    previous = {number: signal.signal(number, handle) for number in asking}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if last else handler)


def _explained(error: Exception, args: argparse.Namespace | None) -> str | None:
    """An error as a sentence where it is the disk's, the database's or a name's; None where it is a bug of ours."""
    if is_broken_installation(error):
        return broken_installation(f"{type(error).__name__}: {error}" if isinstance(error, SyntaxError) else error)
    if isinstance(error, sqlite3.OperationalError) and (sentence := explain_sqlite(error)):
        return f"the database could not be used: {sentence}"
    if isinstance(error, OSError):
        return explain_os(error)
    if args is None:
        return None
    # Rows that have been garbled can end in any error; only where the file is found damaged is it no bug.
    database = Workspace(args.workspace).database
    fault = find_fault(database, deep=True, texts=True, seconds=LONGEST_LOOK)
    if fault:
        return str(fault.error(database))
    if type(error) is sqlite3.DatabaseError:
        return str(Fault(DAMAGED, str(error)).error(database))
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return f"a name or a text is not UTF-8 ({escape_controls(error.object[:60])}); rename that file or folder."
    return None


def explain_sqlite(error: sqlite3.OperationalError) -> str | None:
    """Says what the system did not give; None where the file or the statement is to blame."""
    text = str(error)
    held = "another step held it for too long; wait for that step to end and run the same command again."
    unwritable = f"{text}; check that the workspace folder can be written."
    known = {
        "full": "the disk is full; make room and run the same command again.",
        "disk I/O": "the disk is full or failing; make room or check it, and run the same command again.",
        "readonly": unwritable, "unable to open": unwritable, "locked": held, "busy": held,
    }  # fmt: skip
    return next((sentence for words, sentence in known.items() if words in text), None)


def explain_os(error: OSError) -> str:
    """Says what is wrong with the disk, a path or a connection, and what to do."""
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
        errno.EEXIST: f"{where} is there already; move it away or give another path.",
        errno.ELOOP: f"{where} is a link that leads to itself; give another path.",
        errno.ENXIO: f"{where} is no ordinary file; give another path.",
        errno.ENAMETOOLONG: f"{str(where)[:60]}… is too long a name; give a shorter path.",
    }
    said = " ".join(str(error.strerror or error).split()) or type(error).__name__
    named = f" ({error.filename})" if error.filename else ""
    return known.get(error.errno or 0) or f"the system says {said}{named}; mend that and run the same command again."


def require_pictures(session: Session) -> None:
    """Raises UsageError where step 2 has left nothing to work on."""
    if not has_rows(session.db, "images"):
        raise UsageError("the database holds no picture yet; run 2_ingest_db.py first.")
