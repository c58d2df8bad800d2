"""`--limit` of the steps that work on files: so many pictures and no more, the same ones each time."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import as_rows, drawing, flat, load_step


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, the first two alike, the last two alike."""
    made = tmp_path / "photos"
    made.mkdir()
    for number in range(4):
        drawing(number // 2).save(made / f"{number}.png", compress_level=1 + number)
    return made


def run(step: str, folder: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    words = [*map(str, arguments), "--json", "--workspace", str(folder.parent / "ws"), "--workers", "1"]
    assert load_step(step).main(words) == 0
    return flat(capsys.readouterr().out)


def test_step_6_compares_the_first_pictures_only(folder: Path, capsys: pytest.CaptureFixture[str]):
    for _ in range(2):
        found = run("dedup", folder, capsys, "similar", folder, "--limit", 3, "--remove", "none")
        assert found["summary"]["files"] == 3
        assert [Path(m["path"]).name for g in found["groups"] for m in g["members"]] == ["1.png"] or [
            Path(g["keeper"]).name for g in found["groups"]
        ] == ["1.png"]
    cached = as_rows(folder.parent / "ws" / "gleaner.db", "SELECT count(*) FROM hashes WHERE kind = 'phash'")
    assert cached == [(3,)], "what lies behind was read"
    assert run("dedup", folder, capsys, "similar", folder, "--dry-run")["summary"]["groups"] == 2


def test_references_do_not_count(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    asked = tmp_path / "asked"
    asked.mkdir()
    for number in (2, 9):
        drawing(1 if number == 2 else 9).save(asked / f"{number}.jpg")
    found = run("dedup", folder, capsys, "similar", asked, "--reference", folder, "--limit", 1, "--dry-run")
    assert (found["summary"]["files"], found["summary"]["compared_against"]) == (1, 4)
    assert found["summary"]["to_remove"] == 1


def test_step_7_sorts_the_first_pictures_and_leaves_the_others_where_they_are(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    everything = folder.parent / "ws" / "sorted"
    run("sort", folder, capsys, "orientation", folder, "--limit", 2)
    assert sorted(p.name for p in everything.rglob("*.png")) == ["0.png", "1.png"]
    run("sort", folder, capsys, "orientation", folder, "--mode", "move")
    assert sorted(p.name for p in everything.rglob("*.png")) == ["0.png", "1.png", "2.png", "3.png"]
    before = {p: p.read_bytes() for p in everything.rglob("*") if p.is_file()}
    run("sort", folder, capsys, "orientation", folder, "--limit", 1)
    assert {p: p.read_bytes() for p in everything.rglob("*") if p.is_file()} == before
