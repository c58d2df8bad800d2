"""The command that a run ends with: the next step's, or after a dry run the same one in earnest."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from lib.cli.flags import STEP_FILES
from lib.text import command_line

SCRIPTS = Path(__file__).resolve().parents[2]  # the folder of the numbered scripts
USUAL_WORKSPACE = "workspace"


def next_step(command: str, workspace: Path) -> str:
    """A step's command as it works from here: with the way to its script, and the workspace where that is not the
    usual one."""
    words = ["--workspace", str(workspace)]
    known = (USUAL_WORKSPACE, os.environ.get("GLEANER_WORKSPACE"))
    is_named = str(workspace) in known or " --workspace" in command
    return _located(command) + ("" if is_named else f" {command_line(words)}")


def same_command(
    made: argparse.ArgumentParser,
    step: str,
    words: Sequence[str],
    *,
    without: Collection[str] = (),
    plus: Sequence[str] = (),
) -> str:
    """The command that was typed, without the options of these names (`dry_run`), and with further words at its end."""
    kept = without_options(made, words, without)
    return _located(command_line(["python", STEP_FILES.get(step, step), *kept, *plus]))


def without_options(made: argparse.ArgumentParser, words: Sequence[str], names: Collection[str]) -> list[str]:
    """The words of a command line without some options and their one value, also where they share a dash: `-vn`.

    What stands behind `--` is no option.
    """
    options = {text: action for action in made._actions for text in action.option_strings}
    gone = {text for text, action in options.items() if action.dest in names}
    kept: list[str] = []
    end = words.index("--") if "--" in words else len(words)
    is_value = False
    for word in words[:end]:
        name, equals, _ = word.partition("=")
        if is_value:
            is_value = False
        elif name in gone:
            is_value = options[name].nargs is None and not equals
        elif _is_cluster(word, options):
            letters = "".join(letter for letter in word[1:] if f"-{letter}" not in gone)
            kept += [f"-{letters}"] if letters else []
        else:
            kept.append(word)
    return [*kept, *words[end:]]


def _is_cluster(word: str, options: dict[str, argparse.Action]) -> bool:
    """True for several switches of one letter behind one dash."""
    switches = {text for text, action in options.items() if action.nargs == 0}
    return len(word) > 2 and word[1] != "-" and all(f"-{letter}" in switches for letter in word[1:])


def _located(command: str) -> str:
    """The command with the path of its script where one stands in another folder."""
    if Path.cwd() == SCRIPTS:
        return command
    for name in STEP_FILES.values():
        if command.startswith(f"python {name}"):
            return f"python {command_line([str(SCRIPTS / name)])}{command.removeprefix(f'python {name}')}"
    return command
