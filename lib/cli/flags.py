"""The flags that steps share, how their help looks, and the parser: a wrong word ends in a line of usage and a sentence
that names the word that was meant."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from lib import STEP_FILES, __version__
from lib.arguments import cpu_count, html_file, positive, run_reference
from lib.cli.settings import SETTABLE
from lib.errors import EXIT_USAGE
from lib.text import did_you_mean, other_spelling, redact_any

MOST_COLUMNS = 120  # longer lines are hard to read, however wide a terminal is
USUAL_COLUMNS = 100  # where neither a terminal nor COLUMNS says how wide it is
_COMMAND = re.compile(r" +python3? ")
_ENTRY = re.compile(r" *\S+ {2,}(?=\S)")  # `Reads   the query pictures`: what follows is indented as deep as its text


def parser(doc: str | None, step: str) -> argparse.ArgumentParser:
    """A parser whose help is the step's docstring, with the flags that every step has."""
    made = documented_parser(doc, STEP_FILES.get(step, step))
    add = made.add_argument_group("common").add_argument
    add("-h", "--help", action="help", help="show this page and exit")
    add("--version", action="version", version=f"Gleaner {__version__}", help="show the version and exit")
    text = "the folder that the steps share (default: workspace)"
    add("--workspace", type=Path, default=Path("workspace"), metavar="DIR", help=text)
    add(
        "--json",
        action="store_true",
        help="print one JSON object on stdout: step, run, dry_run, exit_code, counts, result",
    )
    add("-v", "--verbose", action="count", default=0, help="say more; twice for everything")
    add("-q", "--quiet", action="store_true", help="say only what went wrong")
    made.set_defaults(step=step)
    return made


def documented_parser(doc: str | None, prog: str) -> argparse.ArgumentParser:
    """A parser without flags whose help begins with a docstring: examples stand before the flags."""
    return StepParser(
        prog=prog, description=(doc or "").strip(), formatter_class=_Help, allow_abbrev=False, add_help=False
    )


class StepParser(argparse.ArgumentParser):
    """An argument parser that takes both spellings of a word, such as --license, and knows near ones."""

    wrong = ""  # the sentence that ended parsing

    def error(self, message: str) -> NoReturn:
        self.wrong = redact_any(" ".join(message.split()))  # what was typed wrong is repeated
        self.exit(EXIT_USAGE, f"{self._usage_line()}\n{self.prog}: error: {self.wrong}\n")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self._all_known(*self.parse_known_args(args, namespace))

    def parse_intermixed_args(self, args: Any = None, namespace: Any = None) -> Any:
        return self._all_known(*self.parse_known_intermixed_args(args, namespace))

    def _all_known(self, found: argparse.Namespace, left: Sequence[str]) -> argparse.Namespace:
        if left:
            flags = [word for word in left if word.startswith("-")]
            if not flags:
                self.error(f"{left[0]!r} is not expected here; {self.prog} --help shows what is.")
            self.error(f"unknown flag {', '.join(flags)}.{self._meant(flags[0].partition('=')[0])}")
        return found

    def _meant(self, flag: str) -> str:
        """Words about a flag that this step does not have: the step that has it, or a flag of nearly that name."""
        owners = [STEP_FILES[step] for step, names in SETTABLE.items() if flag.removeprefix("--") in names]
        if owners and flag.startswith("--"):
            return f" It is a flag of {' and '.join(owners)}."
        own = [text for text in self._option_string_actions if text.startswith("--")]
        return did_you_mean(flag, own) or f" {self.prog} --help shows what there is."

    def _usage_line(self) -> str:
        """The usage without the flags, which --help shows."""
        words = [_usage(action) for action in self._actions if not action.option_strings]
        return f"usage: python {' '.join([self.prog, *words])} [flags]; all flags: python {self.prog} --help"

    def _parse_optional(self, arg_string: str) -> Any:
        """Takes a flag in its other spelling for the flag."""
        flag, equals, value = arg_string.partition("=")
        if flag.startswith("--") and flag not in self._option_string_actions:
            spelled = other_spelling(flag)
            if spelled in self._option_string_actions:
                arg_string = f"{spelled}{equals}{value}"
        return super()._parse_optional(arg_string)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        value = super()._get_value(action, arg_string)  # type: ignore[misc]
        if action.choices is not None and isinstance(value, str) and value not in action.choices:
            spelled = other_spelling(value)
            return spelled if spelled in action.choices else value
        return value

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            near = did_you_mean(str(value), known)
            raise argparse.ArgumentError(action, f"{value!r} is none of {', '.join(known)}.{near}")


def _usage(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest)
    nargs = getattr(action, "save_nargs", action.nargs)  # while words are told from flags it stands there
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(nargs), name)


class _Help(argparse.RawDescriptionHelpFormatter):
    """Help as wide as the terminal, or as COLUMNS says."""

    def __init__(self, prog: str):
        columns = shutil.get_terminal_size((USUAL_COLUMNS, 24)).columns
        super().__init__(prog, max_help_position=32, width=min(MOST_COLUMNS, columns) - 1)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.indent(refill(text, width), indent)


def refill(text: str, width: int) -> str:
    """A docstring wrapped to a width; commands stay on their line, and entries such as `Reads` keep their column."""
    paragraphs: list[tuple[str, str]] = []  # what stands once at the left, and what is wrapped at its right
    for line in text.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if not line or _COMMAND.match(line):
            paragraphs.append((line, ""))
        elif entry := _ENTRY.match(line):
            paragraphs.append((entry[0], line[entry.end() :]))
        elif paragraphs and paragraphs[-1][1] and len(paragraphs[-1][0]) == len(indent):
            paragraphs[-1] = (paragraphs[-1][0], f"{paragraphs[-1][1]} {line.strip()}")
        else:
            paragraphs.append((indent, line.strip()))
    wrapper = textwrap.TextWrapper(width, break_long_words=False, break_on_hyphens=False)
    lines = []
    for left, words in paragraphs:
        wrapper.initial_indent, wrapper.subsequent_indent = left, " " * len(left)
        lines += wrapper.wrap(words) or [left]
    return "\n".join(lines)


def add_dry_run(to: argparse.ArgumentParser) -> None:
    to.add_argument("-n", "--dry-run", action="store_true", help="show what would be done and write nothing at all")


def add_limit(to: argparse.ArgumentParser, what: str) -> None:
    to.add_argument("--limit", type=positive, metavar="N", help=f"handle at most N {what} (default: all)")


def add_workers(to: argparse.ArgumentParser, default: int | None = None, what: str = "worker processes") -> None:
    text = f"{what} (default: {default or 'one a processor'})"
    to.add_argument("--workers", type=positive, default=default or cpu_count(), metavar="N", help=text)


def add_executor(to: argparse.ArgumentParser) -> None:
    text = "where the work is done: this machine or a Ray cluster (default: local)"
    to.add_argument("--executor", choices=("local", "ray"), default="local", help=text)


def add_undo(to: argparse.ArgumentParser) -> None:
    text = "take back what a run of this step did, then exit"
    to.add_argument("--undo", type=run_reference, metavar="RUN|last", help=text)


def add_page(to: argparse.ArgumentParser) -> None:
    text = "where the page goes (default: reports/; of a dry run a temporary place, which is printed)"
    to.add_argument("--page", type=html_file, metavar="FILE", help=text)
