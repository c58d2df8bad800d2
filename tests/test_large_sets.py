"""What step 7 does for a million pictures: pages of a temporary database, JSON in parts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from lib.cli.output import json_parts
from lib.db import worklist
from lib.db.worklist import Worklist


@pytest.mark.parametrize(
    "value",
    [None, 3, "a", [], {}, [1, 2], {"a": 1}, {"a": {"b": [1]}, "c": "é\n"}, {"n": float("inf")}],
)
def test_parts_of_json_are_the_json(value: Any) -> None:
    assert "".join(json_parts(value)) == json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize("entries", [[], [1], [{"a": "ü"}, {"b": [2]}]])
def test_an_iterator_is_an_array(entries: list[Any]) -> None:
    text = "".join(json_parts({"before": 1, "entries": iter(entries), "after": 2}))
    assert text == json.dumps({"before": 1, "entries": entries, "after": 2}, ensure_ascii=False)


def test_entries_are_written_before_the_next_is_asked_for() -> None:
    asked: list[int] = []

    def entries() -> Iterator[int]:
        for number in range(3):
            asked.append(number)
            yield number

    parts = json_parts({"entries": entries()})
    assert next(part for part in parts if part.endswith("0")) == "[0" and asked == [0]
    assert "".join(parts) == ", 1, 2]}" and asked == [0, 1, 2]


def test_pages_of_the_worklist_are_read_in_order_and_never_sorted() -> None:
    """A page that had to be sorted would make a run of a million pictures a matter of days."""
    db = worklist.temporary()
    files = Worklist(db)
    for number in range(2000):
        files.add(f"{number}.jpg", f"{number:04}", 1)
    files.set_labels([("labelled", "a", 1.0, "", f"{number:04}") for number in range(0, 2000, 2)])
    asked: list[str] = []
    db.connection.set_trace_callback(asked.append)
    assert [item.id for item in files.items()] == list(range(1, 2001, 2))
    assert [item.id for item in files.misplaced()] == list(range(1, 2001, 2))
    assert not list(files.planned()) and not list(files.removals())
    assert sum(len(page) for page in files.contents()) == 2000
    db.connection.set_trace_callback(None)
    assert [place for place, _, _ in files.reasons("listed")] == sorted(f"{n}.jpg" for n in range(1, 2000, 2))
    for sql in {text for text in asked if text.startswith("SELECT")}:
        plan = " ".join(row[3] for row in db.connection.execute(f"EXPLAIN QUERY PLAN {sql}"))
        assert "TEMP B-TREE" not in plan, (sql, plan)
