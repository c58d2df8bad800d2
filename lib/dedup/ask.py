"""Asking a person about each group before anything moves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lib.dedup.find import Group

QUESTION = "move these away? [y]es, [n]o, [s]top asking and keep the rest, [q]uit without any move: "


def ask(groups: Sequence[Group], say: Callable[[str], object], hear: Callable[[], str]) -> tuple[set[int], set[int]]:
    """The numbers of the groups that are to be left alone, and of those that a person said no to.

    To stop asking says nothing of the groups that were not shown. `hear` gives a line, or nothing at the end of the
    input.
    """
    pending = [group for group in groups if any(member.decision == "remove" for member in group.members)]
    refused: set[int] = set()
    for place, group in enumerate(pending):
        say(f"\n{place + 1} of {len(pending)}: keep {group.keeper.path}\n")
        for member in group.members:
            say(f"  {member.decision:<7} {member.file.path}  ({member.kind}, {member.reason})\n")
        answer = _answer(say, hear)
        if answer == "q":
            return {other.number for other in pending}, set()
        if answer == "s":
            return refused | {other.number for other in pending[place:]}, refused
        if answer == "n":
            refused.add(group.number)
    return refused, refused


def _answer(say: Callable[[str], object], hear: Callable[[], str]) -> str:
    """One of y, n, s, q; the end of the input means q, so that a pipe that breaks moves nothing."""
    while True:
        say(QUESTION)
        line = hear()
        if not line:
            return "q"
        if (letter := line.strip().lower()[:1]) and letter in "ynsq":
            return letter
