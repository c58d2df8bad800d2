"""Host names, registrable domains, service families, and the lists of domains that steps 3, 4 and 5 share.

A registrable domain follows the public suffix list that ships with tldextract. A family is one name for a service's
many domains (`lib/data/families.toml`). A list is plain text, one name a line: a registrable domain or a host, which
covers every host below it, or `family:NAME`. After a `#` stands a comment.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lib.errors import GleanerError, UsageError, broken_installation
from lib.temporary import clear_dead, write_whole
from lib.text import did_you_mean

_HOST = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://(?:[^/?#]*@)?(\[[^\]/?#]*\]|[^/?#:]*)")
_TYPED = re.compile(r"(?:https?://)?(\[[^\]/?#@]*\]|[^\s/?#@:\[\]\\]+)(?::\d{1,5})?/?", re.IGNORECASE)
_PLAIN_HOST = re.compile(r"(?!.*(?:xn--|\.\.|\.-))[a-z0-9_][a-z0-9_.-]*")  # the usual ones, which need no look
_LABEL = re.compile(r"[a-z0-9_][a-z0-9_-]*")
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
LONGEST_HOST, LONGEST_LABEL = 253, 63  # bytes
KEPT = 65_536  # answers remembered; a crawl meets the same hosts again and again

DATA = Path(__file__).parent / "data" / "families.toml"

BLOCKED, NOT_ALLOWED = "blocked_domain", "not_allowed_domain"
_FAMILY = "family:"


def host_of(url: str) -> str:
    """The host name of a URL in lower case, without port and final dot; empty where there is none."""
    if url[:8] == "https://" or url[:7] == "http://":
        end = url.find("/", 8)
        return _known_host(url if end < 0 else url[:end])
    return _read_host(url)


def _read_host(url: str) -> str:
    match = _HOST.match(url)
    return one_form(match[1].strip("[]")) if match else ""


def one_form(host: str) -> str:
    """A host as it is known everywhere: `ascii_host`, or in lower case what can be no host."""
    plain = host.rstrip(".").lower()
    if _PLAIN_HOST.fullmatch(plain):
        return plain
    return ascii_host(host) or unicodedata.normalize("NFKC", plain).replace("\N{IDEOGRAPHIC FULL STOP}", ".")


@lru_cache(maxsize=KEPT)
def ascii_host(host: str) -> str:
    """Returns a host name in ASCII (punycode, lower case, without a final dot); empty for an impossible one.

    Names are mapped as browsers do it (UTS 46): full stops and letters of other widths, upper case. Underscores are
    allowed, since many servers have them. An IP address stays as it is.
    """
    name = unquote(host, errors="replace") if "%" in host and ":" not in host else host
    if is_address(name):
        return name.lower()
    try:
        if not name.isascii():
            name = _idna().uts46_remap(name, std3_rules=False, transitional=False)
        labels = [_ascii_label(label) for label in name.lower().removesuffix(".").split(".")]
    except (UnicodeError, IndexError):
        return ""
    found = ".".join(labels)
    # A name whose last part is a number is an IPv4 address in one of its old spellings, or nothing.
    if not all(labels) or len(found) > LONGEST_HOST or _NUMBER.fullmatch(labels[-1]):
        return found if is_address(found) else ""
    return "" if found in ("http", "https") else found  # `http://http://…`


@lru_cache(maxsize=1)
def _idna() -> Any:
    import idna  # its errors are UnicodeErrors

    return idna


def _ascii_label(label: str) -> str:
    """One part of a host name in ASCII; empty for one that cannot be."""
    if not label.isascii():
        try:
            found = _idna().alabel(label).decode()
        except _idna().InvalidCodepoint:  # symbols such as emoji, which UTS 46 has let pass and browsers ask for
            found = "xn--" + label.encode("punycode").decode()
    else:
        found = label
        if label.startswith("xn--"):
            shown = label[4:].encode().decode("punycode")
            if shown.isascii() or _idna().uts46_remap(shown, std3_rules=False, transitional=False) != shown:
                return ""
            return label if len(label) <= LONGEST_LABEL and _ascii_label(shown) == label else ""
    return found if len(found) <= LONGEST_LABEL and _LABEL.fullmatch(found) else ""


def typed_host(word: str) -> str:
    """The host that a person names, also with a scheme or a port; empty for what names none, or more than a host."""
    match = _TYPED.fullmatch(word.strip())
    return one_form(match[1].strip("[].")) if match else ""


def is_possible(url: str) -> bool:
    """Tells if step 5 can ask an address's host, by its spelling; true also where the address has none."""
    host = host_of(url)
    return not host or bool(ascii_host(host))


def host_pattern(text: str) -> str:
    """A pattern of hosts, with `%` and `_`, in the letters that `shown_host` gives."""
    try:
        found = text if text.isascii() else _idna().uts46_remap(text, std3_rules=False, transitional=False)
    except (UnicodeError, IndexError):
        found = unicodedata.normalize("NFC", text)
    return str(found).lower() if "%" in text else str(found).lower().removesuffix(".")


@lru_cache(maxsize=KEPT)
def shown_host(host: str) -> str:
    """Returns a host for a person: in its own script where that leads back to the same name and mixes no scripts."""
    return ".".join(map(_shown_label, host.split("."))) if "xn--" in host else host


def _shown_label(label: str) -> str:
    if not label.startswith("xn--"):
        return label
    try:
        shown = label[4:].encode().decode("punycode")
        same = _ascii_label(shown) == label
    except (UnicodeError, IndexError):
        return label
    scripts = {unicodedata.name(c, "?").split()[0] for c in shown if c.isalpha()}
    mixed = len(scripts & {"LATIN", "CYRILLIC", "GREEK", "ARMENIAN", "CHEROKEE"}) > 1
    return shown if same and shown.isprintable() and not mixed else label


_known_host = lru_cache(maxsize=KEPT)(_read_host)


@lru_cache(maxsize=KEPT)
def registrable_domain(host: str) -> str:
    """The domain that somebody registered: `example.co.uk` for `img.example.co.uk`.

    An IP address, `localhost` and a bare public suffix stand for themselves; below an unknown top-level domain the
    last two labels count, as the public suffix list has it. Private suffixes (`github.io`) are not split off.
    """
    host = one_form(host.strip("[]"))
    if not host or is_address(host) or "." not in host:
        return host
    parts = _extractor().extract_str(host)
    if parts.suffix:
        return f"{parts.domain}.{parts.suffix}" if parts.domain else host
    return ".".join([label for label in host.split(".") if label][-2:])


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.split("%")[0])
    except ValueError:
        return False
    return True


@lru_cache(maxsize=1)
def _extractor() -> Any:
    import tldextract

    # No addresses and no folder: the bundled list only, neither network nor cache files.
    return tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None, fallback_to_snapshot=True)


@cache
def _families() -> list[dict[str, Any]]:
    try:
        families: list[dict[str, Any]] = tomllib.loads(DATA.read_text(encoding="utf-8"))["family"]
    except (OSError, ValueError, KeyError) as error:
        raise GleanerError(broken_installation(f"{DATA.name}: {error}")) from error
    return families


@cache
def family_by_domain() -> Mapping[str, str]:
    """Registrable domain (or single host) to the name of its family."""
    return {domain: one["name"] for one in _families() for domain in [*one["domains"], *one.get("hosts", [])]}


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
    return frozenset(registrable_domain(host) for family in _families() for host in family.get("hosts", []))


def domains_of(family: str) -> list[str]:
    """The domains of a family by its name, whatever the case; empty when there is no such family."""
    return [domain for domain, name in family_by_domain().items() if name.casefold() == family.casefold()]


def family_names() -> list[str]:
    return list(dict.fromkeys(family_by_domain().values()))


@dataclass(frozen=True)
class DomainLists:
    """Domains that are left out (`block`), and those that are kept to (`allow`; None for no such limit)."""

    block: frozenset[str] = frozenset()
    allow: frozenset[str] | None = None

    def __bool__(self) -> bool:
        return bool(self.block) or self.allow is not None

    def refusal(self, host: str) -> str:
        """The reason to refuse a host: `blocked_domain`, `not_allowed_domain`, or empty when it may."""
        if covers(self.block, host):
            return BLOCKED
        return NOT_ALLOWED if self.allow is not None and not covers(self.allow, host) else ""


def read_lists(block: Path | None, allow: Path | None) -> DomainLists:
    """Both lists from their files. Raises UsageError for a file that cannot be read or holds no names."""
    return DomainLists(read_list(block) if block else frozenset(), read_list(allow) if allow else None)


def read_list(path: Path) -> frozenset[str]:
    """The names of a list in lower case, families resolved. Raises UsageError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); give a text file with one domain a line.") from None
    names = [name for line in lines if (name := line.partition("#")[0].strip())]
    return frozenset(name for line in names for name in _resolve(line, path))


def write_list(path: Path, names: Iterable[str], about: str) -> int:
    """Writes a list, sorted, with a line that says what it is; gives the number of names."""
    found = sorted({one_form(name) for name in names if name})
    clear_dead(path.parent, target=path.name)
    write_whole(path, ("\n".join([f"# {about}", *found]) + "\n").encode())
    return len(found)


def covers(names: frozenset[str], host: str) -> bool:
    """True where a host or a domain above it is among the names."""
    host = one_form(host)
    while host:
        if host in names:
            return True
        host = host.partition(".")[2]
    return False


def _resolve(name: str, path: Path) -> list[str]:
    if not name.lower().startswith(_FAMILY):
        plain = typed_host(name.removeprefix("*."))
        if not plain:
            raise UsageError(f"{path}: {name!r} is no domain; write names such as example.org, one a line.")
        return [plain]
    if not (domains := domains_of(name[len(_FAMILY) :].strip())):
        raise UsageError(f"{path}: there is no family {name[len(_FAMILY) :]!r}; see lib/data/families.toml.")
    return domains


def chosen_domains(words: Sequence[str]) -> list[tuple[str, str]]:
    """(registrable domain, host) of every word; no host where the whole domain is meant. Raises UsageError.

    What another word covers is left out: no picture is chosen by two of them.
    """
    found: list[tuple[str, str]] = []
    for word in words:
        for name in domains_of(word) or [typed_host(word)]:
            if "." not in name:
                known = ", ".join(family_names())
                meant = did_you_mean(word, family_names())
                raise UsageError(f"{word!r} is neither a domain nor a family; families are {known}.{meant}")
            domain = registrable_domain(name)
            found.append((domain, "" if domain == name else name))
    names = frozenset(names_of(found))
    return [pair for pair in dict.fromkeys(found) if not covers(names, (pair[1] or pair[0]).partition(".")[2])]


def names_of(chosen: Sequence[tuple[str, str]]) -> list[str]:
    return [host or domain for domain, host in chosen]
