"""Names that people's files have: 255 bytes of any script, devices, colons, line breaks, clashes."""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import drawing, flat, load_step, snapshot

from lib.files.names import LONGEST, fitting_name, portable_name
from lib.journal.moves import free_target, temporary_name
from lib.temporary import becoming, dead_files, fitting, is_temporary, temporary_beside

dedup, sort = load_step("dedup"), load_step("sort")
needs_bytes = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="the system refuses such names itself")
LONG = {
    "ASCII": "x" * 251 + ".png",
    "Cyrillic": "ж" * 125 + "x.png",
    "Chinese": "水" * 83 + "ab.png",
    "emoji": "🌊" * 62 + "abc.png",
    "combining": "e\u0301" * 83 + "ab.png",
    "no suffix worth keeping": "a." + "б" * 124 + ".png",
}
ODD = [
    "a::b.png", "a\\b.png", " first.png", "last .png", "..dots.png", "new\nline.png", "tab\t.png", "CON.png",
    "aux.v2.png", "lpt1 .png", "what?.png", "a|b<c>.png", '"quoted".png', "100%.png", "[1].png", "a.b.c.png",
    ".hidden.png", "#1.png", "-n.png", "\x7f.png", "\u202egnp.png", "a:b.png",
]  # fmt: skip


def put(path: Path, number: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    made = io.BytesIO()
    drawing(number).save(made, "PNG")
    path.write_bytes(made.getvalue())
    return path


def run(step: Any, capsys: Any, *arguments: object) -> tuple[int, dict[str, Any]]:
    code = step.main([*map(str, arguments), "--json"])
    said = capsys.readouterr().out
    return code, flat(said) if said.strip() else {}


def sorted_names(workspace: Path) -> list[str]:
    """The names below sorted/, each as its metadata.jsonl has it."""
    found = []
    for listed in workspace.glob("sorted/*/*/metadata.jsonl"):
        names = [json.loads(line)["file_name"] for line in listed.read_text("utf-8").splitlines()]
        assert sorted(names) == sorted(path.name for path in listed.parent.iterdir() if path != listed)
        found += names
    return found


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
@pytest.mark.parametrize("mode", ["copy", "hardlink", "symlink", "move"])
def test_names_of_255_bytes_are_sorted_twice_over_and_brought_back(
    tmp_path: Path, name: str, mode: str, capsys: Any
) -> None:
    assert len(name.encode()) <= LONGEST
    for number, folder in enumerate("abc"):
        put(tmp_path / "photos" / folder / name, number)
    before = snapshot(tmp_path / "photos")
    arguments = ("orientation", tmp_path / "photos", "--workspace", tmp_path / "w", "--mode", mode)
    assert run(sort, capsys, *arguments)[0] == 0
    names = sorted_names(tmp_path / "w")
    assert len({one.casefold() for one in names}) == 3 and name in names
    assert all(len(one.encode()) <= LONGEST and one.endswith(".png") for one in names)
    assert run(sort, capsys, *arguments)[0] == 0
    assert run(sort, capsys, "--undo", "1", "--workspace", tmp_path / "w")[0] == 0
    assert snapshot(tmp_path / "photos") == before and not sorted_names(tmp_path / "w")


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_names_of_255_bytes_go_to_the_quarantine_and_come_back(tmp_path: Path, name: str, capsys: Any) -> None:
    for folder in "abc":
        put(tmp_path / "photos" / folder / name, 1)
    before = snapshot(tmp_path / "photos")
    arguments = ("all", tmp_path / "photos", "--workspace", tmp_path / "w")
    code, said = run(dedup, capsys, *arguments)
    assert code == 0 and said["summary"]["removed"] == 2
    assert run(dedup, capsys, "--undo", "last", "--workspace", tmp_path / "w")[0] == 0
    assert snapshot(tmp_path / "photos") == before


@pytest.mark.parametrize("mode", ["copy", "move"])
def test_odd_names_get_names_that_every_reader_takes(tmp_path: Path, mode: str, capsys: Any) -> None:
    for number, name in enumerate(ODD):
        put(tmp_path / "photos" / name, number)
    before = snapshot(tmp_path / "photos")
    arguments = ("orientation", tmp_path / "photos", "--workspace", tmp_path / "w", "--mode", mode)
    assert run(sort, capsys, *arguments)[0] == 0
    names = sorted_names(tmp_path / "w")
    assert len(names) == len(ODD) and all(portable_name(name) == name for name in names)
    assert {"a.b.c.png", "100%.png", "[1].png", "#1.png", "-n.png"} <= set(names)  # nothing is wrong with these
    assert run(sort, capsys, "--undo", "last", "--workspace", tmp_path / "w")[0] == 0
    assert snapshot(tmp_path / "photos") == before


@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "parquet"])
def test_odd_and_long_names_are_exported(tmp_path: Path, form: str, capsys: Any) -> None:
    names = [*ODD, *LONG.values()]
    for number, name in enumerate(names):
        put(tmp_path / "photos" / name, number)
    arguments = ("export", tmp_path / "photos", "--workspace", tmp_path / "w", "--as", form, "--to", tmp_path / "out")
    code, said = run(sort, capsys, *arguments)
    assert code == 0 and said["counts"]["pictures"] == len(names)
    if form == "webdataset":
        keys = []
        for path in (tmp_path / "out").rglob("*.tar"):
            with tarfile.open(path) as shard:
                keys += shard.getnames()
        assert len(keys) == 3 * len(names) and all(key.count(".") == 1 for key in keys)


CLASHES = [("a/photo.png", "b/PHOTO.png"), ("a/café.png", "b/cafe\u0301.png"), ("a/ÉTÉ.png", "b/e\u0301te\u0301.png"),
           ("a/straße.png", "b/STRASSE.png"), ("a/x?.png", "b/x*.png"), ("a/ﬁ.png", "b/fi.png")]  # fmt: skip


@pytest.mark.parametrize("pair", CLASHES)
def test_names_that_some_file_system_takes_for_one_stay_apart(
    tmp_path: Path, pair: tuple[str, str], capsys: Any
) -> None:
    for number, name in enumerate(pair):
        put(tmp_path / "photos" / name, number)
    arguments = ("orientation", tmp_path / "photos", "--workspace", tmp_path / "w")
    assert run(sort, capsys, *arguments)[0] == 0
    names = sorted_names(tmp_path / "w")
    assert len(names) == 2 and len({normalize("NFC", normalize("NFC", name).casefold()) for name in names}) == 2


@needs_bytes
def test_a_name_that_is_no_utf_8_is_left_with_its_reason_and_stops_nothing(tmp_path: Path, capsys: Any) -> None:
    put(tmp_path / "photos" / "good.png", 1)
    put(tmp_path / "photos" / "again.png", 1)
    put(tmp_path / "photos" / os.fsdecode(b"caf\xe9.png"), 1)
    before = snapshot(tmp_path / "photos")
    place = ("--workspace", tmp_path / "w")
    assert run(sort, capsys, "orientation", tmp_path / "photos", *place)[0] == 0
    assert len(sorted_names(tmp_path / "w")) == 2
    code, said = run(dedup, capsys, "all", tmp_path / "photos", *place)
    assert code == 0 and said["summary"]["name_not_utf8"] == 1
    assert run(dedup, capsys, "--undo", "last", *place)[0] == 0
    assert run(sort, capsys, "--undo", "last", *place)[0] == 0
    assert snapshot(tmp_path / "photos") == before


@needs_bytes
def test_a_path_that_is_too_long_in_the_quarantine_costs_that_file_only(tmp_path: Path, capsys: Any) -> None:
    photos = tmp_path / "p"
    for name in ("a.png", "b.png", "c.png"):
        put(photos / name, 1)
    deep = photos
    while len(os.fsencode(deep)) < 4096 - 250:
        deep = deep / ("d" * min(200, 4096 - 45 - len(os.fsencode(deep))))
    put(deep / ("z" * (4096 - 12 - len(os.fsencode(deep))) + ".png"), 1)
    before = snapshot(photos)
    place = ("--workspace", tmp_path / "w")
    for _ in range(2):
        code, said = run(dedup, capsys, "all", photos, *place)
        assert code in (0, 3) and said, said
    assert run(dedup, capsys, "--undo", "1", *place)[0] == 0
    assert snapshot(photos) == before


anything = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/\0"), min_size=1, max_size=300)


@given(anything)
def test_a_portable_name_is_one_and_stays_as_it_is(name: str) -> None:
    made = portable_name(name)
    assert 0 < len(made.encode()) <= LONGEST and made == portable_name(made)
    assert made not in (".", "..") and made[0] not in ". " and made[-1] not in ". "
    assert not set(made) & set('<>:"/\\|?*\n\r\t\0') and made.split(".")[0].strip().upper() not in (
        "CON",
        "AUX",
        "COM1",
    )


@given(anything, st.sampled_from(["", "_2", "_1000000"]))
def test_a_name_is_cut_at_a_letter_and_keeps_its_suffix(name: str, number: str) -> None:
    made = fitting_name(f"{name}.png", number)
    assert len(made.encode()) <= LONGEST and made.endswith(f"{number}.png")
    if len(f"{name}{number}.png".encode()) <= LONGEST:
        assert made == f"{name}{number}.png"


@given(anything, anything)
def test_cut_names_stay_apart(one: str, other: str) -> None:
    ends = "я" * 200
    assert (fitting(ends + one, 100) == fitting(ends + other, 100)) is (one == other)


@pytest.mark.parametrize("name", LONG.values(), ids=LONG)
def test_temporary_names_fit_and_are_known_again(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    for made in (temporary_name(target), temporary_beside(target)):
        assert len(made.name.encode()) <= LONGEST
        made.write_bytes(b"x")
        made.unlink()
    assert is_temporary(temporary_beside(target).name)
    with becoming(target) as part:
        part.write_bytes(b"whole")
    assert target.read_bytes() == b"whole" and not list(dead_files(tmp_path))


def test_a_free_target_is_free_however_often_it_is_asked_for(tmp_path: Path) -> None:
    taken: set[str] = set()
    for name in LONG.values():
        made = {free_target(tmp_path / name, taken).name for _ in range(12)}
        assert len(made) == 12 and all(len(one.encode()) <= LONGEST for one in made)
