"""The parser of every step: a wrong word ends in a line of usage and a sentence that names the word that was meant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NoReturn

from lib import STEP_FILES
from lib.cli.settings import SETTABLE
from lib.errors import EXIT_USAGE
from lib.text import did_you_mean, other_spelling, redact_any


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
