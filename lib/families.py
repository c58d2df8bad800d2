"""Service families: VK, Pinterest, Google … each one name for a service's many domains (`lib/data/families.toml`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from lib.domains import registrable_domain

DATA = Path(__file__).parent / "data" / "families.toml"


@cache
def family_by_domain() -> Mapping[str, str]:
    """Registrable domain (or single host) to the name of its family."""
    with DATA.open("rb") as handle:
        families = tomllib.load(handle)["family"]
    return {domain: family["name"] for family in families for domain in [*family["domains"], *family.get("hosts", [])]}


def family_of(domain: str, host: str = "") -> str:
    """The family of a domain, or of the host where a rule names hosts; empty when there is none."""
    known = family_by_domain()
    while host and host != domain:
        if host in known:
            return known[host]
        host = host.partition(".")[2]
    return known.get(domain, "")


@cache
def host_rules() -> frozenset[str]:
    """The registrable domains that a rule splits by naming single hosts of them."""
    with DATA.open("rb") as handle:
        families = tomllib.load(handle)["family"]
    return frozenset(registrable_domain(host) for family in families for host in family.get("hosts", []))


def domains_of(family: str) -> list[str]:
    """The domains of a family by its name, whatever the case; empty when there is no such family."""
    return [domain for domain, name in family_by_domain().items() if name.casefold() == family.casefold()]


def family_names() -> list[str]:
    """Every family's name, in the order of the file."""
    return list(dict.fromkeys(family_by_domain().values()))
