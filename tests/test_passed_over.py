"""Files of a folder that are no pictures: every step that reads a folder counts them by reason, printed and as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support import drawing, load_step

REASONS = {"not_a_picture": 3, "camera_raw": 1, "hidden_file": 1, "no_plain_file": 2, "unfinished_file": 1}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two pictures, one of them under no picture's ending, a broken one, notes, and what is no picture."""
    made = tmp_path / "photos"
    (made / "sub").mkdir(parents=True)
    drawing(1).save(made / "a.png")
    drawing(2).save(made / "b.bin", "JPEG")
    (made / "cut.png").write_bytes((made / "a.png").read_bytes()[:500])
    (made / "page.html").write_text("<html></html>")
    (made / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (made / "sub" / "fits.dat").write_bytes(b"SIMPLE  =                    T".ljust(2880))
    (made / "sub" / "raw.dng").write_bytes((made / "a.png").read_bytes())
    (made / "._a.png").write_bytes(b"\0\5\x16\7")
    (made / "c.jpg.crdownload").write_bytes(b"\xff\xd8\xff")
    (made / "link.png").symlink_to(made / "a.png")
    os.mkfifo(made / "pipe")
    for note in ("a.json", "a.txt", "list.csv"):
        (made / note).write_text("{}")
    return made


STEPS = [
    pytest.param("dedup", ["similar"], id="6"),
    pytest.param("sort", ["orientation"], id="7-orientation"),
    pytest.param("sort", ["quality"], id="7-quality"),
    pytest.param("sort", ["export"], id="7-export"),
]


def counts_of(step: str, words: list[str], photos: Path, capsys: pytest.CaptureFixture[str], *more: str) -> dict:
    capsys.readouterr()
    workspace = str(photos.parent / "ws")
    assert load_step(step).main([*words, str(photos), *more, "--workspace", workspace, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["counts"]


def by_reason(counts: dict[str, int], what: str = "passed_over_") -> dict[str, int]:
    return {name.removeprefix(what): count for name, count in counts.items() if name.startswith(what)}


@pytest.mark.parametrize("dry_run", [["-n"], []])
@pytest.mark.parametrize(("step", "words"), STEPS)
def test_what_is_passed_over_is_counted_by_reason(
    step: str, words: list[str], dry_run: list[str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = counts_of(step, words, photos, capsys, *dry_run)
    assert by_reason(counts) == REASONS and counts["passed_over"] == sum(REASONS.values())


@pytest.mark.parametrize(("step", "words"), STEPS)
def test_the_summary_says_it_in_words(
    step: str, words: list[str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load_step(step).main([*words, str(photos), "--workspace", str(photos.parent / "ws"), "-n"]) == 0
    said = capsys.readouterr().err
    told = "1 camera raw, 1 hidden file, 2 no plain file, 3 not a picture, 1 unfinished file"
    assert f"8 passed over ({told})" in said


def test_the_folder_that_is_only_compared_against_counts_too(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    drawing(3).save(other / "c.png")
    counts = counts_of("dedup", ["similar"], other, capsys, "--reference", str(photos))
    assert by_reason(counts) == REASONS
    # With --leak the first of two folders is read once more; its files are the same ones.
    counts = counts_of("dedup", ["exact", str(photos)], other, capsys, "--leak", "-n")
    assert by_reason(counts) == REASONS


@pytest.mark.parametrize(("step", "words"), STEPS)
def test_a_folder_of_pictures_alone_has_no_such_count(
    step: str, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    drawing(1).save(photos / "a.png")
    (photos / "a.txt").write_text("a drawing")
    assert not [name for name in counts_of(step, words, photos, capsys) if "passed_over" in name]


@pytest.mark.parametrize(("step", "words"), STEPS)
def test_the_files_of_the_workspace_are_nobodys_pictures(
    step: str, words: list[str], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The workspace may lie in the folder that is named; its database and its reports are not passed over."""
    words = [*words, str(photos), "--workspace", str(photos / "ws"), "--json"]
    more = ["--to", str(photos.parent / "set")] if "export" in words else []
    for _ in range(2):
        assert load_step(step).main([*words, *more]) == 0
        found = json.loads(capsys.readouterr().out)
        assert by_reason(found["counts"]) == REASONS


def test_what_cannot_be_read_is_counted_by_reason_in_step_7(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "page.jpg").write_text("<html></html>")
    (photos / "layers.png").write_bytes(b"8BPS\0\1" + bytes(200))
    counts = counts_of("sort", ["quality"], photos, capsys)
    assert counts["unreadable"] == 3
    assert by_reason(counts, "unreadable_") == {"not_an_image": 1, "truncated": 1, "unsupported_format": 1}
    assert load_step("sort").main(["quality", str(photos), "--workspace", str(photos.parent / "ws")]) == 0
    assert "3 unreadable (1 not an image, 1 truncated, 1 unsupported format)" in capsys.readouterr().err
