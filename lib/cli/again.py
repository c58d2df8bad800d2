"""The command line that runs a step again with the options of this run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from lib.cli.flags import STEP_FILES
from lib.cli.following import SCRIPTS

# Flags about a single run: how much it says, and that it changes nothing.
OF_ONE_RUN = frozenset({"help", "version", "workspace", "json", "verbose", "quiet", "dry_run", "undo", "page"})


def command_again(made: argparse.ArgumentParser, args: argparse.Namespace, without: Collection[str] = ()) -> list[str]:
    """The words of a command: Python, the step, every flag that is not at its default, and the workspace.

    `without` names flags to leave out, beside those of one run. Paths are absolute, so that the command means the same
    wherever it is typed.
    """
    script = STEP_FILES[args.step]
    found = ["python", script if Path.cwd() == SCRIPTS else str(SCRIPTS / script)]
    for action in made._actions:
        value = getattr(args, action.dest, None)
        if not action.option_strings or action.dest in OF_ONE_RUN or action.dest in without:
            continue
        if value is None or value == action.default:
            continue
        flag = action.option_strings[-1]
        if action.nargs == 0:
            found.append(flag)
        elif isinstance(action, argparse._AppendAction):
            found += [word for one in _texts(value) for word in (flag, one)]
        else:
            found += [flag, *_texts(value)]
    return [*found, "--workspace", os.path.abspath(args.workspace)]


def _texts(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list | tuple) else [value]:
        yield os.path.abspath(one) if isinstance(one, Path) else str(one)
