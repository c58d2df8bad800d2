"""Which domains the words of a command line mean: families, registrable domains, and single hosts."""

from __future__ import annotations

from collections.abc import Sequence

from lib.domain_lists import covers
from lib.domains import registrable_domain
from lib.errors import UsageError
from lib.families import domains_of, family_names


def chosen_domains(words: Sequence[str]) -> list[tuple[str, str]]:
    """(registrable domain, host) of every word; no host where the whole domain is meant. Raises UsageError.

    What another word covers is left out: no picture is chosen by two of them.
    """
    found: list[tuple[str, str]] = []
    for word in words:
        for name in domains_of(word) or [word.lower().strip(".")]:
            if "." not in name or any(c in name for c in "/ :"):
                known = ", ".join(family_names())
                raise UsageError(f"{word!r} is neither a domain nor a family; families are {known}.")
            domain = registrable_domain(name)
            found.append((domain, "" if domain == name else name))
    names = frozenset(names_of(found))
    return [pair for pair in dict.fromkeys(found) if not covers(names, (pair[1] or pair[0]).partition(".")[2])]


def names_of(chosen: Sequence[tuple[str, str]]) -> list[str]:
    """The names of the chosen domains and hosts."""
    return [host or domain for domain, host in chosen]
