"""Text: counted nouns, words that were meant, names of licences and of files, commands for a shell, what UTF-8 and the
database can hold, secrets left out, control characters made visible."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from itertools import islice
from pathlib import PurePath
from typing import Any

HIDDEN = "***"
LONGEST_NO_VALUE = 24  # characters of a word for nothing, with what stands around it
SPELLINGS = (("licence", "license"), ("colour", "color"), ("grey", "gray"), ("centre", "center"))
LIKENESS = 0.6  # of a mistyped word to the one that was meant: the share of letters in common that difflib goes by
SHORTEST = 6  # characters of a password that is looked for by itself
# A `Path` made of an address has one slash only.
_USER = re.compile(r"(?P<head>\b[A-Za-z][A-Za-z0-9+.-]*:/{1,3})(?P<secret>[^/?#\s\"'<>]+)@")
_NO_VALUE = frozenset(
    {"", "?", "??", "???", "-", "--", "---", "\u2013", "\u2014", "_", "/", "*", "n/a", "n.a", "#n/a", "none", "null"}
    | {"nil", "nan", "unknown", "undefined", "not available", "not specified", "unspecified", "not provided", "no data"}
    | {f"unknown {what}" for what in "author artist creator photographer uploader date source title owner".split()}
    | {"0", "na", "not known", "no value", "unknown license", "unknown licence"}
)  # in small letters
_BARE_ON_WINDOWS = re.compile(r"[\w.:/\\=+-]+")  # `,`, `@` and `%` mean something to one of the two shells
_HALF = re.compile("[\ud800-\udfff]")
_BARE = re.compile(r"[^\s:/@'\"]+:[^\s/@'\"]+@(?=[\w.-])")
_SECRET_NAME = (
    r"[\w.%-]*(?:token|secret|passw|passphrase|pwd|signature|credential|api-?key|access-?key|auth)[\w.%-]*"
    r"|(?:[\w.%-]*[_.-])?(?:key|sig|pass)"
)
_PARAMETER = re.compile(rf"(?P<head>[?&;#](?:{_SECRET_NAME})=)(?P<secret>[^&;#\s\"'<>]+)", re.IGNORECASE)

# Addresses that name a licence of Creative Commons: the code, the version and, of a ported one, where it holds.
_CC_ADDRESS = re.compile(
    r"(?:https?:)?(?://)?(?:www\.)?creativecommons\.org/(?:licen[sc]es|publicdomain)/(?P<code>[a-z+-]+)/(?P<version>\d\.\d)"
    r"(?:/(?P<port>(?!deed|legalcode)[a-z]{2,8}(?:-[a-z]+)?))?(?:/(?:deed|legalcode)?[\w.-]*)?/?(?:[?#].*)?",
    re.IGNORECASE,
)
_CC_NAME = re.compile(
    r"(?P<cc>cc )?(?P<code>(?:by|nc|nd|sa)(?: (?:nc|nd|sa))*)(?: v?(?P<version>\d\.\d))?(?: (?P<port>[a-z]{2,11}))?"
)
_CC_ZERO = re.compile(
    r"(?:cc ?(?:0|zero)(?: v?1\.0)?(?: universal)?(?: cc ?0(?: v?1\.0)?)?(?: public domain dedication)?"
    r"|public domain dedication cc ?(?:0|zero)(?: v?1\.0)?)"
)
_CC_WORDS = (
    (re.compile(r"[\s_/(),;:\u2010-\u2015-]+"), " "),
    (re.compile(r"\bcreative ?commons\b"), "cc"),
    (re.compile(r"\bcc cc ?0\b"), "cc0"),
    (re.compile(r"\battribution\b"), "by"),
    (re.compile(r"\bnon ?commercial\b"), "nc"),
    (re.compile(r"\bno ?deriv(?:ative)?s?(?: works)?\b"), "nd"),
    (re.compile(r"\bshare ?alike\b"), "sa"),
    (re.compile(r"\bpublic licen[sc]e\b"), ""),
    (re.compile(r"\b(?:the|licen[sc]ed?|international|unported|generic|deed|intl)\b"), ""),
)
_CC_PLACES = {
    "germany": "DE", "austria": "AT", "switzerland": "CH", "france": "FR", "japan": "JP", "australia": "AU",
    "netherlands": "NL", "poland": "PL", "spain": "ES", "italy": "IT", "brazil": "BR", "canada": "CA", "sweden": "SE",
    "scotland": "SCOTLAND", "igo": "IGO",
}  # fmt: skip
_CC_ORDER = ("by", "nc", "nd", "sa")
LONGEST_LICENSE = 120  # characters; a longer text is terms of somebody's own


def counted(number: int, noun: str) -> str:
    """`1 file`, `2,000 files`, `3 addresses`, `4 queries`."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{number:,} {noun}es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}s"


def first_lines(lines: Iterable[str], most: int | None, more: str = "more (-v prints all)") -> Iterator[str]:
    """Yields the first lines, all where `most` is None; then a line with the number of the others and `more`."""
    source = iter(lines)
    yield from islice(source, most)
    if left := sum(1 for _ in source):
        yield f"… and {left:,} {more}"


def command_line(words: Sequence[str], platform: str = sys.platform) -> str:
    """Words as they are typed into a shell: one of Windows (`cmd`, PowerShell), or one of POSIX."""
    return " ".join(map(_quoted_for_windows, words)) if platform == "win32" else shlex.join(words)


def _quoted_for_windows(word: str) -> str:
    """A word in double quotes where a shell of Windows would take a letter of it for something else."""
    if _BARE_ON_WINDOWS.fullmatch(word):
        return word
    inside = subprocess.list2cmdline([f"{word} "])[1:-2]  # the blank brings quotes, and what they ask of the rest
    before_quote = "\\" * (len(word) - len(word.rstrip("\\")))
    return f'"{inside}{before_quote}"'


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """` Did you mean 'quality'?` for a word that is nearly one of those known; empty where none is near."""
    names = {name.casefold(): name for name in known}
    near = get_close_matches(word.casefold(), names, n=1, cutoff=LIKENESS)
    return f" Did you mean {names[near[0]]!r}?" if near else ""


def other_spelling(word: str) -> str:
    """The word in the other English, as `license` for `licence`; the word itself where it has one spelling."""
    for pair in SPELLINGS:
        for one, other in (pair, pair[::-1]):
            if one in word:
                return word.replace(one, other)
    return word


def known(value: str) -> str:
    """Returns the text, empty where it is a word for nothing: `?`, `-`, `N/A`, `unknown`."""
    return "" if len(value) < LONGEST_NO_VALUE and value.strip(" .()[]<>").casefold() in _NO_VALUE else value


@lru_cache(maxsize=4096)
def license_id(name: str, address: str = "") -> str:
    """Returns the identifier of a licence by its name, or by its address where the name does not tell.

    `CC0`, `cc0 1.0` and Creative Commons' address of it are one: `CC0-1.0`, as SPDX has it; `CC BY-SA 3.0 de` is
    `CC-BY-SA-3.0-DE`. A name without its version gets that of the address. All other names stay as they are.
    """
    name = name.strip()
    if not name:
        return _by_address(address) or ""
    if len(name) > LONGEST_LICENSE:
        return name
    if found := _by_address(name):
        return found
    words = name.casefold()
    for pattern, replacement in _CC_WORDS:
        words = pattern.sub(replacement, words)
    words = " ".join(words.split()).rstrip(" .")
    if _CC_ZERO.fullmatch(words):
        return "CC0-1.0"
    match = _CC_NAME.fullmatch(words)
    if not match:
        return name
    code, version, port = _cc_code(match["code"]), match["version"], match["port"] or ""
    if len(port) > 2 and port not in _CC_PLACES:
        return name
    if version:
        return "-".join(filter(None, ("CC", code, version, _CC_PLACES.get(port, port.upper()))))
    known_by_address = _by_address(address)
    if known_by_address and known_by_address.startswith(f"CC-{code}-") and known_by_address[len(code) + 4].isdigit():
        return known_by_address
    return f"CC {code}" if match["cc"] and not port else name  # "Attribution" alone may be any licence


def _by_address(address: str) -> str:
    """The identifier of a licence that Creative Commons' address names; empty for any other text."""
    match = _CC_ADDRESS.fullmatch(address.strip())
    if not match:
        return ""
    code, version, port = match["code"].lower(), match["version"], (match["port"] or "").upper()
    if code == "zero":
        return f"CC0-{version}"
    if code == "mark":
        return f"Public Domain Mark {version}"
    if not set(code.split("-")) <= set(_CC_ORDER):
        return ""
    return "-".join(filter(None, ("CC", _cc_code(code.replace("-", " ")), version, port)))


def _cc_code(words: str) -> str:
    """The parts of a licence's code in their usual order: `nc by` is `BY-NC`."""
    return "-".join(part for part in _CC_ORDER if part in words.split()).upper()


def file_name_of(path: str) -> str:
    """The last part of a path of any system: what may be told to others of where a file lay."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def places(folders: Iterable[os.PathLike[str] | str]) -> re.Pattern[str]:
    """Returns the pattern of paths in folders of this machine, for `without_places`; a file system's root is none."""
    names = {os.path.abspath(folder) for folder in folders}
    names |= {os.path.realpath(name) for name in names}
    written = {form for name in names if len(name) > 3 for form in (name, name.replace("\\", "/"))}
    below = "|".join(re.escape(name) for name in sorted(written, key=len, reverse=True)) or r"(?!)"
    return re.compile(rf"(?:file:(?://)?|(?<![\w.:/\\-]))(?:{below})(?P<rest>[/\\][^\s'\"<>|]*)?(?![\w-])")


def without_places(text: str, pattern: re.Pattern[str]) -> str:
    """A text that others may read: of a path below one of the folders the last part stays."""
    return pattern.sub(lambda match: file_name_of(match["rest"] or ""), text)


def storable(text: str) -> str:
    """The text with half an emoji or a byte that is no UTF-8 as U+FFFD, and without NULs."""
    if "\x00" in text:
        text = text.replace("\x00", "")
    return text if is_storable(text) else _HALF.sub("\ufffd", text)


def is_storable(text: str) -> bool:
    """True for a text that UTF-8 can write. Arguments and file names carry bytes that are none as half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def path_as_text(path: os.PathLike[str] | str) -> str:
    r"""A path for a person and the database: bytes that are no UTF-8 are written as \xff."""
    return os.fsencode(path).decode(errors="backslashreplace")


def redact(text: str) -> str:
    """A text without the passwords and keys of the addresses in it: `https://***@host/?token=***`."""
    if ":/" in text:
        text = _USER.sub(rf"\g<head>{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\g<head>{HIDDEN}", text) if "=" in text else text


def redact_any(text: str) -> str:
    """Redacts an address too that was typed without its scheme: `user:password@host`."""
    return _BARE.sub(f"{HIDDEN}@", redact(text))


def redacted(value: Any) -> Any:
    """Redacts every text within a value: a list, an option, a path."""
    if isinstance(value, str | PurePath):
        return redact(str(value))
    if isinstance(value, Mapping):
        return {name: redacted(one) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redacted(one) for one in value]
    return value


def without_user(address: str) -> str:
    """An address without user and password, as rows hold it."""
    return _USER.sub(r"\g<head>", address)


def replacements(values: Iterable[Any]) -> dict[str, str]:
    """Secrets among the values of options, each with the text that replaces it in whatever a run gives out.

    These are whole addresses, and the words themselves unless they are so short that other text holds them too.
    """
    found: dict[str, str] = {}
    for value in values:
        if isinstance(value, list | tuple):
            found |= replacements(value)
        elif isinstance(value, str | PurePath) and (text := str(value)) != redact(text):
            found[text] = redact(text)
            users = [match["secret"] for match in _USER.finditer(text)]
            words = [*users, *(user.partition(":")[2] for user in users)]
            words += [match["secret"] for match in _PARAMETER.finditer(text)]
            found |= {word: HIDDEN for word in words if len(word) >= SHORTEST}
    return found


def hide(text: str, found: Mapping[str, str]) -> str:
    """A text with the replacements made, the longest first, since one may be part of another."""
    for secret in sorted(found, key=len, reverse=True):
        text = text.replace(secret, found[secret])
    return text


def escape_controls(text: str) -> str:
    """Text without control characters: what a server sent must not steer somebody's terminal."""

    def escaped(character: str) -> str:
        return f"\\x{ord(character):02x}" if ord(character) < 256 else f"\\u{ord(character):04x}"

    return "".join(c if c in "\n\t" or c.isprintable() else escaped(c) for c in text)
