"""Columns of a dataset that lists have brought along, one type each, and the caption and the label of a picture.

A list keeps its columns as they are; a reader of a dataset wants one type for a column, in every row of every shard.
Whole numbers beside others are numbers, a text that is a number is one where all others of its column are, and else all
are texts. What is nested otherwise than a list of one type is JSON in a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lib.db.scores import kept_columns
from lib.errors import UsageError

if TYPE_CHECKING:
    from lib.db import Database

TITLE, LABEL, CAPTION = "title", "label", "caption"
TITLE_NAMES = frozenset({"caption", "text", "alt"})  # by which lists call what is the title here
UNLABELLED = "unlabelled"
MOST = 500  # columns of a dataset
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_DEVICE = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)  # names that Windows gives to no file
# Names that a record has, in whichever form; a list's column of such a name is exported as `list_<name>`.
RESERVED = frozenset({
    "file_name", "image", "split", "width", "height", "format", "source_name", "query_sha256", "query", "engine",
    "image_url", "page_url", "title", "license", "license_url", "creator", "attribution", "caption", "url", "key",
    "status", "error_message", "original_width", "original_height", "original_format", "original_sha256",
    "original_frames", "exif", "sha256", "label", "txt", "json", "jpg", "png", "webp",
})  # fmt: skip


@dataclass
class ListColumns:
    """The columns that are exported: `kinds` by their names in lists, `names` in the dataset."""

    kinds: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    surplus: int = 0  # columns beyond those that a dataset has room for

    def scan(self, db: Database, pages: Iterator[Sequence[str]]) -> None:
        """Finds the columns of all contents, and one type for each."""
        for contents in pages:
            for columns in kept_columns(db, contents).values():
                self.note(columns)
        plain = {"": "string", "number-like": "string"}
        self.kinds = {name: plain.get(kind, kind) for name, kind in sorted(self.kinds.items())}
        for name in list(self.kinds)[MOST:]:
            del self.kinds[name]
            self.surplus += 1
        taken = set[str]()
        for name in self.kinds:
            shown = f"list_{name}" if _is_reserved(name) else name
            while shown.casefold() in taken:  # such as `NSFW` beside `nsfw`, which some readers take for one
                shown += "_"
            taken.add(shown.casefold())
            self.names[name] = shown

    def note(self, columns: Mapping[str, Any]) -> None:
        for name, value in columns.items():
            self.kinds[name] = united(self.kinds.get(name, ""), kind_of(value))

    def of(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the columns of one picture, all of them, under the names and in the types of the dataset."""
        return {self.names[name]: as_kind(columns.get(name), kind) for name, kind in self.kinds.items()}

    @property
    def shown_kinds(self) -> dict[str, str]:
        return {self.names[name]: kind for name, kind in self.kinds.items()}


def _is_reserved(name: str) -> bool:
    return name.casefold() in RESERVED or name.startswith(("label_", "score_"))


def kind_of(value: Any) -> str:
    """Returns the type of a value; empty for one that says nothing. A text that is a number is `number-like`."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64"
    if isinstance(value, float):
        return "float64"
    if isinstance(value, str):
        return "number-like" if len(value) <= 40 and _NUMBER.fullmatch(value) else "string"
    if isinstance(value, list):
        inner = ""
        for one in value:
            kind = kind_of(one)
            inner = _united_in_list(inner, "string" if kind == "number-like" or one == "" else kind)
        return "json" if inner == "json" else f"list:{inner}"
    return "json"


def _united_in_list(one: str, other: str) -> str:
    if one == other or not other:
        return one
    if not one:
        return other
    return "float64" if {one, other} == {"int64", "float64"} else "json"


def united(one: str, other: str) -> str:
    """Returns the type that holds values of both; `` is that of nothing."""
    if one == other or not other:
        return one
    if not one:
        return other
    if one.startswith("list:") and other.startswith("list:"):
        inner = _united_in_list(one[5:], other[5:])
        return "json" if inner == "json" else f"list:{inner}"
    if "json" in (one, other) or one.startswith("list:") or other.startswith("list:"):
        return "json"
    kinds = {one, other}
    if kinds <= {"int64", "float64", "number-like"}:
        return "float64"
    return "string"


def as_kind(value: Any, kind: str) -> Any:
    """Returns a value in its column's type."""
    if value is None or (value == "" and kind != "string"):
        return None
    if kind == "float64":
        return float(value)
    if kind == "json":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if kind == "list:float64":
        return [None if one is None else float(one) for one in value]
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return value


def own_kind(name: str) -> str:
    """Returns the type of a column that records have by themselves."""
    if name in ("width", "height", "original_width", "original_height", "original_frames"):
        return "int32"
    return "float64" if name.startswith("score_") else "string"


def feature_of(kind: str) -> Any:
    """Returns a type as `datasets` writes it."""
    if kind.startswith("list:"):
        return {"feature": feature_of(kind[5:] or "string"), "_type": "List"}
    return {"dtype": "string" if kind == "json" else kind, "_type": "Value"}


def as_text(value: Any) -> str:
    """Returns a value as a caption: of a list its parts, joined by commas."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(as_text(one) for one in value if one is not None)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def folder_name(label: str) -> str:
    """Returns a label as the name of a folder on every system."""
    name = re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", label).rstrip(". ") or UNLABELLED
    return f"{name}_" if _DEVICE.fullmatch(name.partition(".")[0]) else name


def arrow_kind(kind: str) -> Any:
    """Returns pyarrow's type of a column."""
    import pyarrow

    if kind.startswith("list:"):
        return pyarrow.list_(arrow_kind(kind[5:] or "string"))
    return {
        "bool": pyarrow.bool_(),
        "int64": pyarrow.int64(),
        "int32": pyarrow.int32(),
        "float64": pyarrow.float64(),
    }.get(kind, pyarrow.string())


def caption_column(
    wanted: str, label: str | None, columns: ListColumns, criteria: Sequence[str], own: Sequence[str]
) -> str:
    """Returns the column of a record that `--caption` names. Raises UsageError where there is none of that name."""
    if wanted == LABEL:
        chosen = label or (criteria[0] if len(criteria) == 1 else "")
        if not chosen:
            known = ", ".join(criteria) or "nothing yet"
            raise UsageError(f"--caption label: say which label with --label; pictures are labelled by {known}.")
        return f"label_{chosen}"
    if wanted in columns.names:
        return columns.names[wanted]
    if wanted in own or wanted in columns.names.values():
        return wanted
    folded = {name.casefold(): name for name in columns.names}
    if wanted.casefold() in folded:
        return columns.names[folded[wanted.casefold()]]
    if wanted.casefold() in TITLE_NAMES:
        return TITLE
    there = ", ".join([*columns.names, *own][:20])
    raise UsageError(f"--caption {wanted}: no picture has such a column; there are {there}.")
