"""The rules by which rows leave the database, by name; the journal archives each row under its rule."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One rule. Those that are not `by_default` are applied only when named."""

    name: str
    description: str
    by_default: bool = True

    def __str__(self) -> str:
        return f"{self.name:<15} {self.description}{'' if self.by_default else '  (only when named)'}"


RULES = (
    Rule("broken_url", "addresses that are empty, have no possible host, or contain blanks or control characters"),
    Rule("not_http", "addresses of another kind than http and https (data:, ftp:, file:)"),
    Rule("schemeless_url", "addresses that begin with //: completed to https, or taken out when that is known already"),
    Rule("repeated_url", "addresses that a picture has several times: the best kind stays, and the one that was used"),
    Rule("private_host", "addresses on loopback, private and link-local hosts", by_default=False),
    Rule("expired_url", "signed addresses whose time is over", by_default=False),
    Rule("dead_host", "addresses on hosts that were tried several times and never answered", by_default=False),
    Rule(
        "blocked_domain",
        "what --blocklist or --allowlist excludes: pictures by their page, addresses by their host",
        by_default=False,
    ),
    Rule("small_claim", "pictures that their engine says are smaller than --min-side", by_default=False),
    Rule("advert", "pictures that their engine marks as a shop's offer", by_default=False),
    Rule("wrong_language", "pictures whose title is written in another script than --languages use", by_default=False),
    Rule("orphan", "rows that belong to a picture or a search that is not there"),
    Rule("no_address", "pictures without any address, with what belongs to them"),
    Rule("no_result", "pictures that no search shows any more, with what belongs to them"),
)  # in the order in which they are applied: a row counts for the first rule that takes it
RULE_NAMES = tuple(rule.name for rule in RULES)
# Rules that take whole pictures, with all that belongs to them.
PICTURE_RULES = ("no_address", "no_result", "blocked_domain", "small_claim", "advert", "wrong_language")
# No rules to be named: what --forget-query takes, and what step 2 takes out with --reparse.
FORGOTTEN, MISREAD = "forgotten_query", "misread"
