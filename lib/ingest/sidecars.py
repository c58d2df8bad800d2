"""Facts that lie beside pictures on disk, found by the names that tools give such files.

A picture's own file comes first: `photo.jpg.json` or `photo.json` as gallery-dl, SceneImg and other downloaders write
them, and Google Takeout's names, which are cut, numbered and shared by an edited copy. Then the list of its folder or
of one above, `metadata.jsonl` or `metadata.csv`, as Hugging Face reads them: `file_name` is relative to the list. Then
`photo.xmp`, and `photo.txt` for a caption. Names are compared as NFC, since macOS writes them in another form.
"""

from __future__ import annotations

import logging
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unicodedata import normalize

from lib.engines.parsing import load_exact, load_xml, mapping, text
from lib.errors import GleanerError
from lib.ingest.columns import WANTED
from lib.ingest.tables import (
    Layout,
    Rows,
    marked_encoding,
    read_jsonl,
    read_table,
    table_by,
    unmarked_encoding,
)
from lib.records import ParseError

log = logging.getLogger("gleaner")

LARGEST = 4 * 2**20  # bytes; sidecars have a few kilobytes
LARGEST_CAPTION = 64 * 1024
METADATA = ("metadata.jsonl", "metadata.csv")
_ENDINGS = (".json", ".xmp", ".txt")
_TAKEOUT = ".supplemental-metadata"
# Google's names end after this many characters, `.json` not counted; which one depends on the year of the export.
_CUTS = (46, 47, 51)
_NUMBER = re.compile(r"(?P<stem>.+)(?P<number>\(\d{1,4}\))", re.DOTALL)
_EDITED = ("-edited", "-bearbeitet", "-modifié", "-editado", "-modificato", "-bewerkt", "-edytowane", "-redigerad")
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_XMP = {
    "{http://purl.org/dc/elements/1.1/}title": "title",
    "{http://purl.org/dc/elements/1.1/}description": "description",
    "{http://purl.org/dc/elements/1.1/}creator": "creator",
    "{http://purl.org/dc/elements/1.1/}subject": "keywords",
    "{http://ns.adobe.com/xap/1.0/rights/}WebStatement": "license_url",
    "{http://creativecommons.org/ns#}license": "license_url",
    "{http://creativecommons.org/ns#}attributionName": "attribution",
    "{http://ns.adobe.com/photoshop/1.0/}Headline": "caption",
}


class Sidecars:
    """Finds what is written beside pictures; a folder's list is read once and kept while its pictures come.

    `broken` counts the files and lines that could not be read or are none; `encoding` is for those without a mark that
    are not UTF-8.
    """

    def __init__(self, encoding: str = "") -> None:
        self.encoding = encoding
        self.broken = 0
        self._folder: Path | None = None
        self._beside: dict[str, str] = {}  # names of the folder that may be sidecars, by their NFC
        self._lists: dict[Path, dict[str, Mapping[str, Any]]] = {}

    def of(self, picture: Path, root: Path | None = None) -> Mapping[str, Any]:
        """Returns the facts of a picture under the keys of its sidecar; empty where there is none or it cannot be read.

        Lists are looked for in its folder and in those above, up to `root`.
        """
        if picture.parent != self._folder:
            self._enter(picture.parent, root or picture.parent)
        name = normalize("NFC", picture.name)
        for candidate, is_certain in dict(_names_beside(name)).items():
            if candidate not in self._beside:
                continue
            facts = self._read_json(picture.with_name(self._beside[candidate]))
            if facts and (is_certain or _is_of(facts, name)):
                return facts
        for folder, listed in self._lists.items():
            inside = posixpath.normpath(normalize("NFC", picture.relative_to(folder).as_posix()))
            if found := listed.get(inside):
                return found
        return self._read_xmp(picture, name) or self._read_caption(picture, name)

    def _enter(self, folder: Path, root: Path) -> None:
        """Looks at a folder: which of its files may be sidecars, and the lists there and above, the nearest first."""
        self._folder = folder
        try:
            names = os.listdir(folder)
        except OSError:
            names = []
        self._beside = {normalize("NFC", name): name for name in names if name.lower().endswith(_ENDINGS)}
        above = [folder, *(parent for parent in folder.parents if root == parent or root in parent.parents)]
        self._lists = {place: self._lists.get(place) or self._read_lists(place) for place in above}

    def _read(self, path: Path, largest: int = LARGEST) -> str | None:
        """Returns the text of a file; None, and counted, where it cannot be read or is none."""
        try:
            if not path.is_file():
                return None
            if path.stat().st_size > largest:
                raise ValueError
            return self._decoded(path.read_bytes())
        except (OSError, ValueError):
            self.broken += 1
            return None

    def _decoded(self, body: bytes) -> str:
        """Returns text by the rules of lists. Raises UnicodeDecodeError for what is in another encoding."""
        unmarked = unmarked_encoding(body[:4096]) if b"\0" in body[:4] else ""
        return body.decode(marked_encoding(body) or unmarked or self.encoding or "utf-8")

    def _read_json(self, path: Path) -> Mapping[str, Any]:
        found = self._read(path)
        if found is None:
            return {}
        try:
            value = load_exact(found.encode("utf-8", "replace"))
        except ParseError:
            self.broken += 1
            return {}
        if isinstance(value, list):  # gallery-dl's --dump-json: the facts stand last
            value = next((entry for entry in reversed(value) if isinstance(entry, dict)), None)
        return mapping(value)

    def _read_lists(self, folder: Path) -> dict[str, Mapping[str, Any]]:
        """Returns the rows of a folder's lists by the path of their picture, without what has no use here."""
        found: dict[str, Mapping[str, Any]] = {}
        for name in METADATA:
            path = folder / name
            if not path.is_file():
                continue
            try:
                with path.open("rb") as handle:
                    encoding = self._encoding_of(handle.read(4096))
                for row in (self._csv_rows if name.endswith(".csv") else self._json_rows)(path, encoding):
                    if row is None:
                        self.broken += 1
                    elif file_name := text(row.get("filename")):
                        place = posixpath.normpath(normalize("NFC", file_name).replace("\\", "/"))
                        found[place] = {key: row[key] for key in row if key in WANTED}
            except (OSError, GleanerError):
                self.broken += 1
        return found

    def _encoding_of(self, head: bytes) -> str:
        unmarked = unmarked_encoding(head) if b"\0" in head[:4] else ""
        return marked_encoding(head) or unmarked or self.encoding or "utf-8"

    def _json_rows(self, path: Path, encoding: str) -> Rows:
        return read_jsonl(path, Layout("jsonl", encoding), Counter())

    def _csv_rows(self, path: Path, encoding: str) -> Rows:
        layout = table_by(path, encoding, "file_name")
        return read_table(path, layout, Counter()) if layout else iter(())

    def _read_xmp(self, picture: Path, name: str) -> Mapping[str, Any]:
        for candidate in (f"{name}.xmp", f"{posixpath.splitext(name)[0]}.xmp"):
            if (
                candidate not in self._beside
                or (found := self._read(picture.with_name(self._beside[candidate]))) is None
            ):
                continue
            try:
                return _xmp_facts(found)
            except ParseError:
                self.broken += 1
        return {}

    def _read_caption(self, picture: Path, name: str) -> Mapping[str, Any]:
        """Returns the caption of `photo.txt`, as img2dataset and trainers write it; a file of other bytes is none."""
        candidate = f"{posixpath.splitext(name)[0]}.txt"
        if candidate not in self._beside:
            return {}
        path = picture.with_name(self._beside[candidate])
        try:
            with path.open("rb") as handle:
                body = handle.read(LARGEST_CAPTION + 1)
            found = self._decoded(body).strip() if len(body) <= LARGEST_CAPTION else ""
        except (OSError, ValueError):  # it may be a picture itself, or belong to something else
            return {}
        is_text = found and not any(ord(letter) < 32 and letter not in "\t\r\n" for letter in found)
        return {"caption": found} if is_text else {}


def _names_beside(name: str) -> Iterator[tuple[str, bool]]:
    """Yields the names that a picture's JSON may have, and False for one that is too short to be certain."""
    stem, suffix = posixpath.splitext(name)
    yield f"{name}.json", True
    yield f"{stem}.json", True
    match = _NUMBER.fullmatch(stem)
    whole, number = (match["stem"], match["number"]) if match else (stem, "")
    edited = next((whole[: -len(word)] for word in _EDITED if whole.endswith(word)), "")
    for base in filter(None, (stem, edited and edited + number)):
        yield from _takeout_names(base + suffix)


def _takeout_names(name: str) -> Iterator[tuple[str, bool]]:
    """Yields Google Takeout's names: `a.jpg.supplemental-metadata.json` cut anywhere, a number at the end."""
    stem, suffix = posixpath.splitext(name)
    match = _NUMBER.fullmatch(stem)
    bases = [(match["stem"] + suffix, match["number"]), (name, "")] if match else [(name, "")]
    for base, number in bases:
        for length in range(len(_TAKEOUT), -1, -1):
            yield f"{base}{_TAKEOUT[:length]}{number}.json", True
        whole = base + _TAKEOUT
        yield from ((f"{whole[:cut]}{number}.json", False) for cut in _CUTS if cut < len(base))


def _is_of(facts: Mapping[str, Any], name: str) -> bool:
    """True where a sidecar whose name was cut names the picture: its title is the file's name before any was cut."""
    title, stem = normalize("NFC", text(facts.get("title"))), posixpath.splitext(name)[0]
    match = _NUMBER.fullmatch(stem)
    stems = {stem, match["stem"] if match else stem}
    stems |= {one[: -len(word)] for one in stems for word in _EDITED if one.endswith(word)}
    exact = title in {one + posixpath.splitext(name)[1] for one in stems}
    return exact or (len(name) >= min(_CUTS) and any(len(one) > 40 and title.startswith(one) for one in stems))


def _xmp_facts(found: str) -> dict[str, Any]:
    """Returns the facts of an XMP packet. Raises ParseError for what is none."""
    start = found.find("<")
    root = load_xml(found[max(0, start) :].encode())
    facts: dict[str, Any] = {}
    for description in root.iter(f"{_RDF}Description"):
        for key, value in description.attrib.items():
            if key in _XMP and value.strip():
                facts.setdefault(_XMP[key], value)
        for element in description:
            if element.tag in _XMP:
                items = [item.text or "" for item in element.iter(f"{_RDF}li")] or [element.text or ""]
                items += [element.attrib.get(f"{_RDF}resource", "")]
                values = [item.strip() for item in items if item.strip()]
                if values:
                    facts.setdefault(_XMP[element.tag], values if _XMP[element.tag] == "keywords" else values[0])
    return facts
