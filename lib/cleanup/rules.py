"""Plans what step 4 takes out: judges addresses and pictures by its rules and lists the changes, each with its rule.

`lib.journal.rows` applies the plan.
"""

from __future__ import annotations

import re
import socket
import unicodedata
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import lru_cache

from lib.db import Database
from lib.db import cleanup as store
from lib.db.connection import meanwhile
from lib.domains import DomainLists, host_of, is_possible, one_form
from lib.journal import RULES
from lib.journal.rows import BLOCK, Change, RowPlan, plan_pictures
from lib.net.guard import is_private as leads_inside
from lib.progress import chunked
from lib.times import utc_now

RELATED = ("orphan", "no_address", "no_result")  # rules about pictures and their rows
MALFORMED = ("broken_url", "not_http", "schemeless_url")

_HTTP = re.compile(r"https?://", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*:")
_BLANK = re.compile(r"[\x00-\x20\x7f]")
_NUMERIC = re.compile(r"(?:0x[0-9a-f]+|\d+)(?:\.(?:0x[0-9a-f]+|\d+)){0,3}")
_LOCAL_NAMES = ("localhost", ".localhost", ".local", ".internal", ".lan", ".home.arpa")

DEFAULT_RULES = tuple(rule.name for rule in RULES if rule.by_default)

UNREACHABLE = {"dns_error", "connect_error", "timeout"}  # step 5's words for a host that did not answer
DEAD_AFTER = 3  # addresses of a host that step 5 has tried: fewer may be an accident
LETTERS = 8  # fewer tell no language

# The scripts that languages are written in, as the first word of their letters' Unicode names.
SCRIPTS = {
    **dict.fromkeys("en de fr es it pt nl pl cs sv da no fi tr vi id ro hu".split(), ("LATIN",)),
    **dict.fromkeys("ru uk be bg kk mk".split(), ("CYRILLIC",)),
    "sr": ("CYRILLIC", "LATIN"),
    "zh": ("CJK",),
    "ja": ("CJK", "HIRAGANA", "KATAKANA"),
    "ko": ("HANGUL", "CJK"),
    "ar": ("ARABIC",),
    "fa": ("ARABIC",),
    "he": ("HEBREW",),
    "el": ("GREEK",),
    "hi": ("DEVANAGARI",),
    "th": ("THAI",),
    "ka": ("GEORGIAN",),
    "hy": ("ARMENIAN",),
}


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
    return ("", "") if is_possible(url) else ("broken_url", "impossible_host")


def host_after(url: str, start: int) -> str:
    """The host name that begins at `start`, behind user name and password, without its port."""
    authority = re.split(r"[/?#\\]", url[start:], maxsplit=1)[0].rpartition("@")[2]
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0]


def is_private(url: str) -> bool:
    """True for an address on this machine or in a network of its own: by its spelling, no name is looked up."""
    match = _HTTP.match(url)
    host = one_form(host_after(url, match.end())) if match else ""
    if _NUMERIC.fullmatch(host):  # `127.1`, `0x7f000001`: as systems read it
        with suppress(OSError):
            host = socket.inet_ntoa(socket.inet_aton(host))
    try:
        return leads_inside(host)
    except ValueError:
        one_word = bool(host) and "." not in host  # such as `intranet`: the public internet has no such name
        return one_word or any(host == name or (name[0] == "." and host.endswith(name)) for name in _LOCAL_NAMES)


@dataclass(frozen=True)
class RuleSelection:
    """The rules to apply, and what some go by: lists of domains, the shortest side in pixels, the languages wanted."""

    rules: tuple[str, ...] = DEFAULT_RULES
    lists: DomainLists = field(default_factory=DomainLists)
    min_side: int = 0
    languages: tuple[str, ...] = ()

    def __contains__(self, rule: str) -> bool:
        return rule in self.rules


def make_plan(db: Database, selection: RuleSelection) -> RowPlan:
    """Finds what the rules would change now. Nothing is written."""
    plan, related = RowPlan(), any(rule in selection for rule in RELATED)
    store.prepare_for_plans(db)
    with meanwhile(db, store.mismatched_tables) if related else nullcontext(set) as mismatched:
        for find in (_malformed_addresses, _unwanted_addresses, _excluded_addresses):
            for change in find(db, selection):
                plan.add(change)
        for rule, image_ids in _unwanted_pictures(db, selection):
            plan_pictures(db, plan, rule, image_ids)
        _plan_unrelated(db, plan, selection, mismatched())
    return plan


def _removal(number: int, rule: str, reason: str, url: str) -> Change:
    return Change("image_variants", (number,), rule, reason, url)


def _malformed_addresses(db: Database, selection: RuleSelection) -> Iterator[Change]:
    """Finds what `broken_url`, `not_http` and `schemeless_url` take, in one pass over the addresses."""
    completed: set[tuple[int, str]] = set()
    if not any(rule in selection for rule in MALFORMED):
        return
    for number, image_id, url in store.doubtful_addresses(db):
        rule, reason = url_fault(url)
        if rule not in selection:
            continue
        if rule != "schemeless_url":
            yield _removal(number, rule, reason, url)
            continue
        whole = "https:" + url
        if url_fault(whole)[0]:
            yield _removal(number, rule, "no_host", url)
        elif (image_id, whole) in completed or store.has_address(db, image_id, whole):
            yield _removal(number, rule, "known_with_scheme", url)
        else:
            completed.add((image_id, whole))
            yield Change("image_variants", (number,), rule, "completed", url, whole)


def _unwanted_addresses(db: Database, selection: RuleSelection) -> Iterator[Change]:
    """Finds what `repeated_url`, `private_host` and `expired_url` take, in this order."""
    if "repeated_url" in selection:
        for number, _, url in store.repeated_addresses(db):
            yield _removal(number, "repeated_url", "listed_again", url)
    if "private_host" in selection:
        for number, _, url in store.all_addresses(db):
            if is_private(url):
                yield _removal(number, "private_host", "private_host", url)
    if "expired_url" in selection:
        for number, _, url in store.expired_addresses(db, utc_now()):
            yield _removal(number, "expired_url", "expired", url)


def _excluded_addresses(db: Database, selection: RuleSelection) -> Iterator[Change]:
    """Finds what `dead_host` and `blocked_domain` take."""
    dead = dead_hosts(db) if "dead_host" in selection else frozenset()
    block = DomainLists(selection.lists.block if "blocked_domain" in selection else frozenset())
    for number, _, url in store.all_addresses(db) if dead or block else ():
        host = host_of(url)
        if host in dead:
            yield _removal(number, "dead_host", "never_answered", url)
        elif reason := block.refusal(host):
            yield _removal(number, "blocked_domain", reason, url)


def _unwanted_pictures(db: Database, selection: RuleSelection) -> Iterator[tuple[str, list[int]]]:
    """(rule, pictures) of the rules that take whole pictures."""
    if "blocked_domain" in selection and selection.lists:
        yield "blocked_domain", store.images_of_hosts(db, _excluded_hosts(db, selection))
    if "small_claim" in selection:
        yield "small_claim", store.small_images(db, selection.min_side)
    if "advert" in selection:
        yield "advert", store.shop_images(db)
    if "wrong_language" in selection:
        wanted = frozenset(script for language in selection.languages for script in SCRIPTS[language])
        yield "wrong_language", [image_id for image_id, text in store.titles(db) if is_foreign(text, wanted)]


def _plan_unrelated(db: Database, plan: RowPlan, selection: RuleSelection, wrong: set[str]) -> None:
    """Adds rows without their picture and pictures without rows; `wrong` are the tables where there may be any."""
    if "orphan" in selection:
        children = [table for table in store.CHILDREN if table in wrong]
        for table, key, parent in store.orphans(db, [*children, "superseded", "responses"]):
            plan.take(Change(table, key, "orphan", f"not_in_{parent}", str(key[-1])))
    if "no_address" in selection:
        without = store.images_without_address(db) if "image_variants" in wrong else []
        plan_pictures(db, plan, "no_address", [*without, *_losing_last_address(db, plan)])
    if "no_result" in selection and "results" in wrong:
        plan_pictures(db, plan, "no_result", store.images_without_result(db))


def _losing_last_address(db: Database, plan: RowPlan) -> list[int]:
    """Pictures that lose their last address by this very plan."""
    leaving = [change.key for change in plan.changes.values() if change.table == "image_variants" and not change.url]
    losses: Counter[int] = Counter()
    for block in chunked(leaving, BLOCK):
        losses.update(row["image_id"] for row in store.read_rows(db, "image_variants", block))
    counts = store.address_counts(db, list(losses))
    return sorted(image_id for image_id, count in counts.items() if count == losses[image_id])


def kept_on_blocked_domains(db: Database, selection: RuleSelection) -> int:
    """Pictures that the lists exclude and that stay, because they are downloaded."""
    return store.count_kept(db, _excluded_hosts(db, selection))


def _excluded_hosts(db: Database, selection: RuleSelection) -> list[str]:
    if not selection.lists:
        return []
    return [host for host in store.hosts_of_images(db) if selection.lists.refusal(host)]


def dead_hosts(db: Database) -> frozenset[str]:
    """Hosts of which step 5 has tried several addresses and not one ever answered."""
    tried: Counter[str] = Counter()
    alive: set[str] = set()
    for url, reason, won in store.tried_addresses(db):
        host = host_of(url)
        tried[host] += 1
        if won or reason not in UNREACHABLE:
            alive.add(host)
    alive.update(host_of(url) for url in store.won_addresses(db))
    return frozenset(host for host, count in tried.items() if host and count >= DEAD_AFTER and host not in alive)


def is_foreign(text: str, wanted: frozenset[str]) -> bool:
    """True where most letters of a text belong to none of the wanted scripts. A text with few letters is not judged."""
    letters = [c for c in text[:500] if c.isalpha()]
    if len(letters) < LETTERS:
        return False
    return sum(script_of(c) in wanted for c in letters) * 2 < len(letters)


@lru_cache(maxsize=4096)
def script_of(letter: str) -> str:
    """The first word of a letter's Unicode name: LATIN, CYRILLIC, CJK …; empty where it has none."""
    return unicodedata.name(letter, "").partition(" ")[0]
