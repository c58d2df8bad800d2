"""What is known of a picture, as one flat record: the columns are the same for every picture of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.db import Database
from lib.db import scores as store
from lib.decode import DecodeError, read_header
from lib.workspace import Workspace

ORIGIN = (
    "query", "engine", "image_url", "page_url", "title", "license", "license_url", "creator", "attribution",
)  # fmt: skip


def records(
    db: Database, workspace: Workspace, page: Sequence[tuple[str, str]], criteria: Sequence[str]
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(file, record) of (sha256, path as the workspace writes it); what cannot be read has no `width`.

    That is what has no readable header, and what the technical score found broken behind a good one.

    `label_<criterion>` and `score_<criterion>` are there for all criteria, empty where one does not know the picture.
    """
    contents = [sha256 for sha256, _ in page]
    labels = {criterion: store.known_labels(db, criterion, contents) for criterion in criteria}
    sizes, origins = store.known_sizes(db, contents), store.provenance(db, contents)
    broken = store.known_unreadable(db, contents)
    for sha256, text in page:
        path = workspace.to_path(text)
        width, height, form = (0, 0, "") if sha256 in broken else sizes.get(sha256) or _size(path)
        record: dict[str, Any] = {
            "sha256": sha256,
            "width": width,
            "height": height,
            "format": form,
            "source_name": text.rpartition("/")[2],
        }
        for criterion in criteria:
            label = labels[criterion].get(sha256)
            record[f"label_{criterion}"] = label.label if label else ""
            record[f"score_{criterion}"] = label.score if label else None
        origin: Mapping[str, str] = origins.get(sha256, {})
        yield path, record | {name: origin.get(name, "") for name in ORIGIN}


def file_name(record: Mapping[str, Any], path: Path) -> str:
    """The file's name in a dataset: by its content, so that it is the same in every export and clashes with none."""
    suffix = path.suffix.lower() or f".{record['format']}"
    return f"{record['sha256'][:24]}{suffix}"


def _size(path: Path) -> tuple[int, int, str]:
    try:
        header = read_header(path)
    except DecodeError:
        return 0, 0, ""
    return (*header.upright_size, header.format)
