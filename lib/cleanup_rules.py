"""The rules of step 4: what each is called, what it takes out, and how an address is judged."""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass

from lib.net.guard import is_private as leads_inside

_HTTP = re.compile(r"https?://", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+)){0,3}")
_LOCAL_NAMES = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa")


@dataclass(frozen=True)
class Rule:
    """One rule. Those that are not `by_default` are applied only when named."""

    name: str
    description: str
    by_default: bool = True


RULES = (
    Rule("broken_url", "addresses that are empty, have no host, or contain blanks or control characters"),
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
DEFAULT_RULES = tuple(rule.name for rule in RULES if rule.by_default)


def url_fault(url: str) -> tuple[str, str]:
    """(rule, reason) of what is wrong with an address; two empty texts when nothing is."""
    if not url.strip():
        return "broken_url", "empty"
    if url.startswith("//"):
        return "schemeless_url", "no_scheme"
    if _BLANK.search(url):
        return "broken_url", "blank_or_control_character"
    if not _SCHEME.match(url):
        return "broken_url", "no_scheme"
    if not (match := _HTTP.match(url)):
        return "not_http", "scheme_" + url.partition(":")[0].lower()[:20]
    if not host_after(url, match.end()):
        return "broken_url", "no_host"
    return "", ""


def host_after(url: str, start: int) -> str:
    """The host name that begins at `start`, behind user name and password, without its port."""
    authority = re.split(r"[/?#\\]", url[start:], maxsplit=1)[0].rpartition("@")[2]
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def is_private(url: str) -> bool:
    """Whether an address is on this machine or in a network of its own: by its spelling, no name is looked up."""
    match = _HTTP.match(url)
    host = host_after(url, match.end()).rstrip(".").lower() if match else ""
    if _NUMERIC.fullmatch(host):
        host = _as_connected(host)
    try:
        return leads_inside(host)
    except ValueError:
        one_word = bool(host) and "." not in host  # such as `intranet`: the public internet has no such name
        return one_word or any(host == name or (name[0] == "." and host.endswith(name)) for name in _LOCAL_NAMES)


def _as_connected(host: str) -> str:
    """An address that is written otherwise than as four numbers (`127.1`, `0x7f000001`), as systems read it."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host
