"""The flags that steps share, and how their help looks."""

from __future__ import annotations

import argparse
import re
import shutil
import textwrap
from pathlib import Path

from lib import STEP_FILES, __version__
from lib.arguments import cpu_count, html_file, positive, run_reference
from lib.cli.parser import StepParser

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
