"""The errors that a person may see, and the exit code each one carries.

    GleanerError          1   the job could not be done
    ├── UsageError        2   wrong usage, or a step that has to run first
    ├── StrictError       3   finished, but some items failed and strictness was asked for
    └── BlockedError      4   a captcha or a block; the queue is kept

Library code raises; only `lib.cli.run` turns an error into a sentence and an exit code. Exit code 130 stands for an
interrupted run whose state is safe.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_INTERRUPTED = 130


class GleanerError(Exception):
    """The job could not be done. The message is one sentence that ends with what to do."""

    exit_code = 1


class UsageError(GleanerError):
    """Wrong usage or a missing precondition; the message names the flag or the step to run first."""

    exit_code = 2


class StrictError(GleanerError):
    """The run finished, some items failed, and `--strict` was given."""

    exit_code = 3


class BlockedError(GleanerError):
    """A source answered with a captcha or a block. The work that is left stays queued."""

    exit_code = 4
