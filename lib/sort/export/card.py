"""README.md and the attribution file of a dataset: what is in it, where it is from, and under which terms."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from lib.db.where import without_paths
from lib.domains import host_of, shown_host
from lib.sort.export.options import ExportOptions
from lib.sort.output import cell
from lib.text import counted, file_name_of
from lib.times import utc_now

SHOWN = 25  # rows of a table; the attribution file has every picture
LONGEST = 2_000  # characters of a line or a cell; a longer text ends after a word, and says how much is left out
DIGITS = 16  # of a digest on the card: the record and the manifest have the whole
CARD, ATTRIBUTION = "README.md", "attribution.csv"
COLUMNS = ("file_name", "split", "title", "creator", "license", "license_url", "attribution", "page_url", "image_url")
# As the Hugging Face hub names sizes and licences; what it has no name for is `other`.
SIZES = (
    (1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"), (1_000_000_000, "100M<n<1B"),
)  # fmt: skip
HUB_LICENSES = frozenset(
    "cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0"
    " cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 gfdl unknown".split()
)


@dataclass
class DatasetCard:
    """Counts what goes into the dataset, and writes one line of attribution for each picture on the way."""

    folder: Path
    criteria: Sequence[str]
    splits: Counter[str] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    engines: Counter[str] = field(default_factory=Counter)
    hosts: Counter[str] = field(default_factory=Counter)
    licenses: Counter[str] = field(default_factory=Counter)
    queries: Counter[str] = field(default_factory=Counter)
    file: TextIO | None = None

    def add(self, split: str, name: str, record: Mapping[str, Any]) -> None:
        self.splits[split] += 1
        for criterion in self.criteria:
            self.labels.setdefault(criterion, Counter())[record[f"label_{criterion}"] or "none"] += 1
        self.engines[record["engine"] or "not from a search"] += 1
        self.hosts[shown_host(host_of(record["page_url"] or record["image_url"])) or "unknown"] += 1
        self.licenses[record["license"] or "unknown"] += 1
        self.queries[_query(record)] += 1
        self._writer().writerow([cell(str({**record, "file_name": name, "split": split}[key])) for key in COLUMNS])

    def write(
        self,
        *,
        title: str,
        filters: Sequence[str],
        history: Sequence[str],
        unhashed: int = 0,
        notes: Sequence[str] = (),
        files: Mapping[str, str] | None = None,
        digest: str = "",
    ) -> None:
        """Writes README.md and closes the attribution file; `unhashed` pictures were never compared with others.

        `notes` say what is left out and what was converted; `files` are a pattern for each side, as
        Hugging Face reads it, and `digest` tells what is in them.
        """
        if self.file:
            self.file.close()
        parts = [
            self._front(title, files or {}, digest),
            f"# {_plain(title)}\n",
            f"{counted(self.splits.total(), 'picture')}, made with Gleaner. Each file keeps the bytes that were"
            " downloaded, unless it was converted; its SHA-256, real size, labels, scores and origin stand"
            " beside it.\n",
            *(["## Left out and converted\n\n" + _list(notes)] if notes else []),
            _table("Splits", "split", self.splits),
            "The split goes by content: it is the same in every export, and pictures that are known to repeat each"
            f" other are on one side.{_not_compared(unhashed)}\n",
            "## Filters\n\n" + _list(filters or ["none: all downloaded pictures that are not in quarantine"]),
            "## How it was made\n\n" + _list(history or ["from folders; no search is recorded"]),
            *(_table(f"Labels: {name}", "label", counts) for name, counts in sorted(self.labels.items())),
            _table("Searches", "query", self.queries),
            _table("Engines", "engine", self.engines),
            _table("Sites", "site", self.hosts),
            _table("Licences", "licence", self.licenses),
            "Licences are what the sources state, by their SPDX identifiers where they have one; unknown means that"
            " none was stated, not that there is none. Clear the rights before you pass pictures on."
            " `attribution.csv` names title, creator, licence and page of every picture.\n",
        ]
        (self.folder / CARD).write_text("\n".join(parts), encoding="utf-8")

    def _writer(self) -> Any:
        if self.file is None:
            self.file = (self.folder / ATTRIBUTION).open("w", encoding="utf-8", newline="")
            csv.writer(self.file, lineterminator="\n").writerow(COLUMNS)
        return csv.writer(self.file, lineterminator="\n")

    def _front(self, title: str, files: Mapping[str, str], digest: str) -> str:
        """The card's head as Hugging Face reads it."""
        size = next((name for bound, name in SIZES if self.splits.total() < bound), "n>1B")
        lines = [
            "---",
            f"pretty_name: {_quoted(title)}",
            f"license: {hub_license(self.licenses)}",
            f"size_categories:\n- {size}",
            *(["task_categories:\n- image-classification"] if self.labels else []),
            "tags:\n- image",
        ]
        if files:
            listed = "\n".join(
                f"  - split: {'validation' if split == 'val' else split}\n    path: {json.dumps(path)}"
                for split, path in files.items()
            )
            lines.append(f"configs:\n- config_name: default\n{_contents(digest)}\n  data_files:\n{listed}")
        return "\n".join([*lines, "---", ""])


def _contents(digest: str) -> str:
    """A line of the head that differs where the contents differ.

    `datasets` knows what it has prepared by the folder's name and this head alone: without the line it would give the
    older dataset of that place again.
    """
    return f"  description: contents {digest[:DIGITS] or 'unknown'}"


def hub_license(licenses: Counter[str]) -> str:
    """The hub's name for the licence of all pictures; `other` where there are several, or where it has none."""
    (name, *more) = [name.lower() for name in licenses] or ["unknown"]
    return name if not more and name in HUB_LICENSES else "other"


def filters_of(options: ExportOptions) -> list[str]:
    """The choice of pictures that an export was asked for, in words and without a path."""
    found = []
    if options.folders:
        found.append("the pictures below " + ", ".join(file_name_of(str(folder)) for folder in options.folders))
    if options.where:
        found.append(f"--where {without_paths(options.where.text)}")
    if options.limit:
        found.append(f"--limit {options.limit}")
    if options.take:
        balanced = f", balanced over the labels of {options.label}" if options.balance else ""
        found.append(f"--take {options.take}{balanced}, seed {options.seed}")
    return found


def referring(options: ExportOptions) -> list[str]:
    """A sentence on pictures that lie elsewhere, where that was asked for."""
    if options.form == "parquet" and options.parquet_pictures == "reference":
        return ["The pictures are not in it: `image` names their files on the machine where it was made."]
    if options.form == "imagefolder" and options.mode == "symlink":
        return ["The pictures are not in it: they are links to files on the machine where it was made."]
    return []


def amend_card(place: Path, to: Path, names: Set[str], count: int) -> list[Path]:
    """Writes below `to` the card and the attribution file of a dataset that lost pictures; gives the older files.

    `names` are those of the pictures, without endings.
    """
    older = []
    if (card := place / CARD).is_file():
        head, middle, tail = card.read_text(encoding="utf-8").partition("\n## ")
        told = f"{utc_now()[:10]}: {counted(count, 'picture')} whose owners have opted out since. The other counts are"
        digest = hashlib.sha256("\n".join([head, *sorted(names)]).encode()).hexdigest()
        head = re.sub(r"^  description: contents .*$", _contents(digest), head, count=1, flags=re.MULTILINE)
        text = f"{head}\n## Taken out\n\n- {told} those of before.\n{middle}{tail}"
        (to / CARD).write_text(text, encoding="utf-8")
        older.append(card)
    if (listed := place / ATTRIBUTION).is_file():
        with listed.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if not row or row[0].partition(".")[0] not in names]
        with (to / ATTRIBUTION).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows(rows)
        older.append(listed)
    return older


def _not_compared(count: int) -> str:
    if not count:
        return ""
    return f" {counted(count, 'picture')} had not been compared with the others: repeats among them are not known."


def _table(title: str, column: str, counts: Counter[str]) -> str:
    rows = [f"| {_plain(name)} | {count:,} |" for name, count in counts.most_common(SHOWN)]
    if len(counts) > SHOWN:
        rows.append(f"| {len(counts) - SHOWN:,} more | {sum(sorted(counts.values())[:-SHOWN]):,} |")
    return "\n".join([f"## {title}", "", f"| {column} | pictures |", "| --- | ---: |", *rows, ""])


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines) + "\n"


def _query(record: Mapping[str, Any]) -> str:
    """A search as the card names it: its words, or the picture's name and the first digits of its digest."""
    digest = str(record.get("query_sha256") or "")[:DIGITS]
    return " ".join(filter(None, (record["query"], digest and f"(picture {digest})"))) or "none"


def _plain(text: str) -> str:
    """Text from the web in a table: no markup, no new lines, and no word that is cut."""
    flat = " ".join(text.split())
    if len(flat) > LONGEST:
        kept = flat[: LONGEST + 1].rpartition(" ")[0] or flat[:LONGEST]
        flat = f"{kept} … ({len(flat) - len(kept):,} more characters)"
    for sign in ("\\", "|", "<", "`", "[", "*", "_"):
        flat = flat.replace(sign, "\\" + sign)
    return flat


def _quoted(text: str) -> str:
    """A text as YAML takes it in double quotes, without control characters."""
    flat = "".join(sign for sign in " ".join(text.split()) if sign.isprintable())
    return '"' + flat.replace("\\", "\\\\").replace('"', '\\"') + '"'
