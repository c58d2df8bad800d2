"""The errors that a person may see, and the exit code each one carries.

    GleanerError          1   the job could not be done
    └── UsageError        2   wrong usage, or a step that has to run first

Library code raises; only `lib.cli.run` turns an error into a sentence and an exit code.
"""

from __future__ import annotations

import os
import sys

ENVIRONMENT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), ".venv")
EXIT_OK = 0  # done, also where there was nothing to do
EXIT_FAILED = 1  # the job could not be done
EXIT_USAGE = 2  # wrong usage, or a step that has to run first
EXIT_INCOMPLETE = 3  # finished, but some items failed and strictness was asked for
EXIT_BLOCKED = 4  # a captcha or a block; the queue is kept
EXIT_INTERRUPTED = 130  # stopped by Ctrl-C; the state is safe


class GleanerError(Exception):
    """The job could not be done. The message is one sentence that ends with what to do."""

    exit_code = EXIT_FAILED


def broken_installation(error: object) -> str:
    """The sentence about a module, or a file of our own, that is missing or broken.

    Where a requirement is missing outside the environment, the environment is to be activated.
    """
    if isinstance(error, ModuleNotFoundError) and not (error.name or "lib").startswith("lib") and not in_environment():
        return f"this Python ({sys.executable}) has no {error.name}; {how_to_enter()}"
    return f"the installation is broken ({error}); put it right with: python 0_setup.py"


def in_environment() -> bool:
    """True for the Python of the environment that 0_setup.py makes."""
    try:
        return os.path.samefile(sys.prefix, ENVIRONMENT)
    except OSError:
        return False


def how_to_enter() -> str:
    """Tells how the environment is entered from here, or made where there is none."""
    windows = sys.platform == "win32"
    script = os.path.join(ENVIRONMENT, "Scripts" if windows else "bin", "activate")
    folder = os.path.dirname(ENVIRONMENT)
    here = os.path.realpath(os.curdir) == os.path.realpath(folder)
    if not os.path.exists(script):
        setup = "0_setup.py" if here else os.path.join(folder, "0_setup.py")
        return f"set the environment up with: {'python' if windows else 'python3'} {setup}"
    shown = os.path.relpath(script) if here else script
    shown = f'"{shown}"' if " " in shown else shown
    return f"activate the environment first: {shown if windows else f'source {shown}'}"


def is_broken_installation(error: BaseException) -> bool:
    """True for the error of a module that is missing or cannot be read: no item is to blame for it.

    Pillow's plug-ins raise a SyntaxError of their own for data that they do not know; that of a file of Python has its
    name. Under a limit of memory a library that does not fit cannot be imported either: that is the item's.
    """
    if isinstance(error, SyntaxError):
        return bool(error.filename)
    return isinstance(error, ImportError) and not is_for_want_of_memory(error)


def is_for_want_of_memory(error: ImportError) -> bool:
    """True where a library could not be loaded since its process may use no more memory."""
    return "failed to map" in str(error) or "allocate" in str(error)


class UsageError(GleanerError):
    """Wrong usage or a missing precondition; the message names the flag or the step to run first.

    It may be a typing error, so a workspace that was made for such a run is taken away again.
    """

    exit_code = EXIT_USAGE
