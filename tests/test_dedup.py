"""Step 6 from the command line: what is found, what goes, and everything that must never be lost."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo
from support import PATIENCE, ROOT, as_rows, drawing, dump, flat, load_step, run_step, snapshot

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.db.journal import Action, start_run
from lib.db.queries import NewQuery, add_query
from lib.dedup.groups import DuplicateGroup, Member
from lib.dedup.keep import Traits
from lib.dedup.plan import QuarantinePlan
from lib.files.names import read_any_name
from lib.files.pictures import PictureFile, sha256_of
from lib.workspace import Workspace

PHOTOGRAPHS = Path(str(find_spec("sklearn").submodule_search_locations[0])) / "datasets" / "images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    return made


def dedup(folder: Path, *arguments: object, expect: int = 0) -> int:
    """Runs the step in this process on a folder, its workspace beside it."""
    words = [*map(str, arguments), "--workspace", str(folder.parent / "ws"), "--workers", "1"]
    code = load_step("dedup").main(words)
    assert code == expect, (words, code)
    return code


def result(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    capsys.readouterr()
    dedup(folder, *arguments, "--json")
    return flat(capsys.readouterr().out)


def verdicts(found: dict) -> dict[str, tuple[str, str, str]]:
    """File name -> (keeper's name, kind, decision)."""
    return {
        Path(member["path"]).name: (Path(group["keeper"]).name, member["kind"], member["decision"])
        for group in found["groups"]
        for member in group["members"]
    }


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def quarantined(folder: Path) -> dict[str, bytes]:
    base = folder.parent / "ws" / "quarantine"
    return {p.relative_to(base).as_posix(): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


def contents(*folders: Path) -> Counter[bytes]:
    return Counter(path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file())


def family(folder: Path, seed: int = 1, name: str = "a") -> Image.Image:
    """An original and one copy of every kind."""
    with Image.open(PHOTOGRAPHS / ("china.jpg", "flower.jpg")[seed - 1]) as photograph:
        picture = photograph.convert("RGB")
    width, height = picture.size
    picture.save(folder / f"{name}.png", compress_level=1)
    (folder / f"{name}-bytes.png").write_bytes((folder / f"{name}.png").read_bytes())
    picture.save(folder / f"{name}-pixels.png", compress_level=9)
    picture.save(folder / f"{name}-same.jpg", quality=70)
    picture.resize((width // 2, height // 2)).save(folder / f"{name}-half.jpg", quality=85)
    picture.convert("L").save(folder / f"{name}-grey.jpg", quality=90)
    captioned = picture.copy()
    captioned.paste((255, 255, 255), (0, height * 88 // 100, width, height))
    captioned.save(folder / f"{name}-caption.jpg", quality=90)
    return picture


FAMILY = {
    "a-pixels.png": ("a.png", "pixels", "remove"),
    "a-same.jpg": ("a.png", "same", "remove"),
    "a-half.jpg": ("a.png", "same", "remove"),
    "a-grey.jpg": ("a.png", "same", "remove"),
    "a-caption.jpg": ("a.png", "edited", "review"),
}


def test_every_kind_is_told_apart(folder, capsys):
    family(folder)
    drawing(2, 640, 480).save(folder / "other.png")
    found = result(folder, capsys, "all", folder, "--keep", "first")
    assert verdicts(found) == {
        **{name: ("a-bytes.png", *rest) for name, (_, *rest) in FAMILY.items()},
        "a.png": ("a-bytes.png", "bytes", "remove"),
    }
    assert names(folder) == {"a-bytes.png", "a-caption.jpg", "other.png"}


def test_the_best_copy_stays(folder, capsys):
    family(folder)
    assert verdicts(result(folder, capsys, folder, "--dry-run")) == {
        **FAMILY,
        "a-bytes.png": ("a.png", "bytes", "remove"),  # the shorter path
    }


@pytest.mark.parametrize(
    ("mode", "kinds"),
    [
        ("exact", {"bytes", "pixels"}),
        ("similar", {"bytes", "pixels", "same", "edited"}),
        ("filename", set()),
        ("all", {"bytes", "pixels", "same", "edited"}),
    ],
)
def test_modes(folder, capsys, mode, kinds):
    family(folder)
    found = result(folder, capsys, mode, folder, "--dry-run")
    assert {kind for _, kind, _ in verdicts(found).values()} == kinds
    assert found == result(folder, capsys, folder, "--mode", mode, "--dry-run")


@pytest.mark.parametrize(
    ("kinds", "gone"),
    [
        (["none"], set()),
        (["bytes"], {"a-bytes.png"}),
        (["bytes", "pixels"], {"a-bytes.png", "a-pixels.png"}),
        (["edited"], {"a-caption.jpg"}),
    ],
)
def test_only_the_kinds_asked_for_go(folder, kinds, gone):
    family(folder)
    before = names(folder)
    dedup(folder, folder, "--remove", *kinds)
    assert before - names(folder) == gone


def test_the_json_has_the_agreed_shape(folder, capsys):
    family(folder)
    capsys.readouterr()
    dedup(folder, folder, "--json")
    found = json.loads(capsys.readouterr().out)
    assert list(found) == [*"step run dry_run exit_code counts result groups summary".split()]
    assert found["result"] == {"groups": found["groups"], "broken": [], "summary": found["summary"]}
    for group in found["groups"]:
        assert isinstance(group["keeper"], str)
        for member in group["members"]:
            assert {"path", "kind", "distance", "decision"} <= set(member)
            assert member["kind"] in {"bytes", "pixels", "same", "edited", "semantic", "filename"}
            assert member["decision"] in {"remove", "review", "keep"}
            assert isinstance(member["distance"], int | float)
    assert found["summary"]["removed"] == 5


def test_csv_has_one_line_a_member(folder, capsys):
    family(folder)
    capsys.readouterr()
    dedup(folder, folder, "--dry-run", "--format", "csv")
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("group,path,keeper,kind,distance,decision") and len(lines) == 7


def test_a_bar_of_the_same_caption_is_no_repeat(folder, capsys):
    for seed in range(6):
        picture = drawing(seed, 400, 300)
        picture.paste((255, 255, 255), (0, 250, 400, 300))
        ImageDraw.Draw(picture).text((20, 265), "the same words on every picture", fill=(0, 0, 0))
        picture.save(folder / f"{seed}.png")
    assert all(decision != "remove" for *_, decision in verdicts(result(folder, capsys, folder)).values())


def test_a_dry_run_writes_nothing_and_shows_the_same_plan(folder, capsys):
    family(folder)
    before = snapshot(folder.parent)
    dedup(folder, folder, "--dry-run")
    shown = capsys.readouterr()
    assert snapshot(folder.parent) == before
    assert "5 to remove" in shown.err
    dedup(folder, folder)
    assert capsys.readouterr().out == shown.out
    after = snapshot(folder.parent)
    dedup(folder, folder, "--dry-run")
    dedup(folder, "--undo", "last", "--dry-run")
    assert snapshot(folder.parent) == after


def test_a_second_run_changes_nothing_and_decodes_nothing(folder, capsys):
    family(folder)
    for number in range(3):
        Image.new("RGB", (50, 50), (number * 80, 0, 0)).save(folder / f"flat{number}.png")
    (folder / "broken.jpg").write_bytes(b"no picture")
    dedup(folder, folder)
    ws = folder.parent / "ws"
    first, rows = snapshot(folder.parent), dump(ws / "gleaner.db")
    assert result(folder, capsys, folder)["summary"]["decoded"] == 0
    again = snapshot(folder.parent)
    assert {name for name in first.keys() | again.keys() if first.get(name) != again.get(name)} <= {"ws/gleaner.db"}
    assert dump(ws / "gleaner.db") == rows


def test_undo_restores_every_byte(folder):
    family(folder)
    (folder / "a-same.txt").write_text("a note")
    before = snapshot(folder)
    dedup(folder, folder)
    assert len(names(folder)) == 2
    dedup(folder, "--undo", "last")
    assert snapshot(folder) == before
    assert quarantined(folder) == {}
    dedup(folder, "--undo", "last")  # nothing left to undo: nothing done
    dedup(folder, folder)  # and it can be done again
    assert len(names(folder)) == 2


def test_an_undone_run_leaves_no_report_of_itself(folder):
    family(folder)
    dedup(folder, folder)
    reports = folder.parent / "ws" / "reports"
    assert "In quarantine" in (reports / "dedup.html").read_text(encoding="utf-8")
    dedup(folder, "--undo", "last")
    assert not list(reports.glob("dedup.*"))
    assert "dedup.html" not in (reports / "index.html").read_text(encoding="utf-8")


def test_undo_never_overwrites(folder):
    family(folder)
    dedup(folder, folder)
    (folder / "a-same.jpg").write_bytes(b"something new")
    dedup(folder, "--undo", "last")
    assert (folder / "a-same.jpg").read_bytes() == b"something new"
    assert len(quarantined(folder)) == 1


@pytest.mark.parametrize("mode", ["exact", "similar", "filename", "all"])
def test_numbered_photographs_are_no_repeats(folder, capsys, mode):
    for number in range(6):
        drawing(number).save(folder / f"IMG_000{number}.jpg")
    assert (
        result(folder, capsys, mode, folder, "--remove", "bytes", "pixels", "same", "edited", "filename")["groups"]
        == []
    )


@pytest.mark.parametrize(
    "levels", [[(100,) * 3, (116,) * 3, (228,) * 3], [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)]]
)
def test_solid_colours_are_no_repeats(folder, capsys, levels):
    for number, level in enumerate(levels):
        Image.new("RGB", (200, 200), level).save(folder / f"{number}.png")
    assert result(folder, capsys, folder)["groups"] == []


def test_equal_solid_colours_are(folder, capsys):
    Image.new("RGB", (200, 200), (9, 9, 9)).save(folder / "a.png", compress_level=1)
    Image.new("RGB", (200, 200), (9, 9, 9)).save(folder / "ab.png", compress_level=9)
    Image.new("RGB", (100, 200), (9, 9, 9)).save(folder / "c.png")
    assert verdicts(result(folder, capsys, folder)) == {"ab.png": ("a.png", "pixels", "remove")}


@pytest.mark.parametrize("photograph", ["china.jpg", "flower.jpg"])
def test_an_original_stays_before_its_upscaled_and_grey_copies(folder, photograph):
    with Image.open(PHOTOGRAPHS / photograph) as opened:
        picture = opened.convert("RGB")
    picture.save(folder / "z-original.png")
    picture.convert("L").save(folder / "a-grey.png")
    picture.resize((picture.width * 2, picture.height * 2)).save(folder / "b-upscaled.jpg", quality=30)
    dedup(folder, folder)
    assert names(folder) == {"z-original.png"}


def test_a_grey_version_never_takes_the_place_of_the_coloured_one(folder, capsys):
    picture = drawing(4, 640, 480)
    picture.convert("L").save(folder / "large-grey.png")
    picture.resize((400, 300)).save(folder / "small-colour.jpg", quality=60)
    found = verdicts(result(folder, capsys, folder, "--keep", "largest"))
    assert found == {"small-colour.jpg": ("large-grey.png", "same", "keep")}


def test_pages_of_text_are_no_repeats(folder, capsys):
    words = np.random.default_rng(1)
    for number in range(8):
        page = Image.new("L", (600, 800), 255)
        for line in range(44):
            length = words.integers(3, 11, 9)
            text = " ".join("".join(chr(97 + c) for c in words.integers(0, 26, n)) for n in length)
            ImageDraw.Draw(page).text((40, 30 + 17 * line), text[:80], fill=0)
        page.save(folder / f"{number}.png")
    assert all(decision != "remove" for *_, decision in verdicts(result(folder, capsys, folder)).values())


def test_equal_names_in_two_folders_both_survive(folder):
    for place, seed in (("A", 1), ("B", 2)):
        (folder / place).mkdir()
        drawing(seed).save(folder / place / "1.png")
        drawing(seed).save(folder / f"keep{place}.png")
    everything = contents(folder)
    dedup(
        folder, folder / "A", folder / "B", folder, "--protect", folder / "keepA.png", "--protect", folder / "keepB.png"
    )
    assert names(folder) == {"keepA.png", "keepB.png"}
    assert sorted(quarantined(folder)) == ["1/A/1.png", "1/B/1.png"]
    assert contents(folder, folder.parent / "ws" / "quarantine") == everything


def test_one_file_reached_twice_is_no_repeat_of_itself(folder, capsys):
    drawing(1).save(folder / "a.png")
    (folder / "link").symlink_to(folder, target_is_directory=True)
    (folder / "b.png").symlink_to(folder / "a.png")
    elsewhere = folder.parent / "other-name"
    elsewhere.symlink_to(folder, target_is_directory=True)
    before = snapshot(folder)
    assert result(folder, capsys, folder, elsewhere, folder / "link", folder)["groups"] == []
    assert snapshot(folder) == before


def test_hard_links_stay(folder, capsys):
    drawing(1).save(folder / "a.png")
    os.link(folder / "a.png", folder / "b.png")
    assert verdicts(result(folder, capsys, folder)) == {"b.png": ("a.png", "bytes", "keep")}
    assert names(folder) == {"a.png", "b.png"}


def test_palettes_and_shapes_count(folder, capsys):
    for name, level in (("one", 1), ("other", -1)):
        picture = Image.frombytes("P", (256, 40), bytes(range(256)) * 40)
        picture.putpalette([v for n in range(256)[::level] for v in (n, n, n)])
        picture.save(folder / f"{name}.png")
    stripes = np.arange(60000, dtype=np.uint32).astype(np.uint8)
    Image.fromarray(stripes.reshape(200, 300)).save(folder / "wide.png")
    Image.fromarray(stripes.reshape(300, 200)).save(folder / "high.png")
    assert all(decision != "remove" for *_, decision in verdicts(result(folder, capsys, folder)).values())


def test_broken_pictures_are_counted_and_in_no_group(folder, capsys):
    family(folder)
    (folder / "page.jpg").write_bytes(b"<html>not found</html>")
    (folder / "page2.jpg").write_bytes(b"<html>not found</html>")
    (folder / "empty.png").write_bytes(b"")
    whole = (folder / "a-same.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    found = result(folder, capsys, folder)
    assert not {"page.jpg", "page2.jpg", "empty.png", "cut.jpg"} & set(verdicts(found))
    assert found["summary"]["not_an_image"] == 2 and found["summary"]["truncated"] == 1
    assert found["summary"]["broken"] == 3  # three contents: the two pages are the same bytes
    assert {"page.jpg", "page2.jpg", "empty.png", "cut.jpg"} <= names(folder)


def test_a_single_one_of_a_reason_is_told_in_words(folder, capsys):
    (folder / "bomb.gif").write_bytes(b"GIF89a\xff\xff\xff\xff\0\0\0,\0\0\0\0\xff\xff\xff\xff\0\2\2D\1\0;")
    drawing(1).save(folder / "a.png")
    assert load_step("dedup").main(["all", str(folder), "--dry-run", "--workspace", str(folder / "ws")]) == 0
    assert "1 too many pixels," in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes, and pipes lie in folders, on Linux")
def test_odd_names_and_pipes_neither_stop_nor_block(folder, capsys):
    drawing(1).save(folder / "a.png")
    (folder / "sub [x]").mkdir()
    (folder / "sub [x]" / "новый 日本.png").write_bytes((folder / "a.png").read_bytes())
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).write_bytes((folder / "a.png").read_bytes())
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    found = result(folder, capsys, folder)
    assert verdicts(found) == {"новый 日本.png": ("a.png", "bytes", "remove")}
    assert found["summary"]["name_not_utf8"] == 1


def test_the_quarantine_and_sorted_copies_are_no_repeats(folder, capsys):
    family(folder)
    dedup(folder, folder)
    sorted_copy = folder.parent / "ws" / "sorted" / "quality" / "a.png"
    sorted_copy.parent.mkdir(parents=True)
    sorted_copy.write_bytes((folder / "a.png").read_bytes())
    found = result(folder, capsys, folder.parent)
    assert found["summary"]["removed"] == 0 and sorted_copy.exists()


def two_folders(folder: Path) -> tuple[Path, Path]:
    first, second = folder / "first", folder / "second"
    first.mkdir()
    second.mkdir()
    drawing(1, 300, 200).save(first / "small.jpg", quality=60)
    drawing(1, 300, 200).resize((900, 600)).resize((600, 400)).save(second / "large.png")
    return first, second


def test_protected_files_stay_whatever_they_repeat(folder, capsys):
    first, second = two_folders(folder)
    (first / "again.jpg").write_bytes((first / "small.jpg").read_bytes())
    found = verdicts(result(folder, capsys, second, first, "--protect", first))
    assert names(first) == {"small.jpg", "again.jpg"} and names(second) == set()
    assert sorted(v[1:] for v in found.values()) == [("bytes", "keep"), ("same", "remove")]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_folder_named_first_wins(folder, order):
    both = two_folders(folder)
    dedup(folder, "similar", *(both[i] for i in order))
    assert names(both[order[0]]) and not names(both[order[1]])


@pytest.mark.parametrize(
    ("keep", "stays"),
    [("largest", "large.png"), ("oldest", "small.jpg"), ("newest", "middle.jpg"), ("first", "large.png")],
)
def test_keep_chooses(folder, keep, stays):
    for name, size, day in (("small.jpg", 200, 1), ("middle.jpg", 300, 3), ("large.png", 400, 2)):
        drawing(1, 400, 400).resize((size, size)).save(folder / name)
        os.utime(folder / name, (86400 * day, 86400 * day))
    dedup(folder, folder, "--keep", keep)
    assert names(folder) == {stays}


def test_notes_travel_with_their_picture_and_come_back(folder):
    picture = drawing(1, 400, 300)
    picture.save(folder / "a.png")
    picture.save(folder / "b.jpg")
    picture.resize((200, 150)).save(folder / "c.jpg")
    drawing(2).save(folder / "c.png")  # another picture of that name: the note is its note, too
    for name in ("b.txt", "b.json", "b.jpg.xmp", "c.txt", "c.jpg.json"):
        (folder / name).write_text(name)
    before = snapshot(folder)
    dedup(folder, folder)
    assert names(folder) == {"a.png", "c.png", "c.txt"}
    assert {name[2:] for name in quarantined(folder)} == {
        "b.jpg",
        "b.txt",
        "b.json",
        "b.jpg.xmp",
        "c.jpg",
        "c.jpg.json",
    }
    dedup(folder, "--undo", "last")
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("yandex_ab12_original_1200x800_deadbeef.jpg", "yandex_ab12"),
        ("yandex_ab12_thumb_120x80_00000000.webp", "yandex_ab12"),
        ("yandex_ab12_original_1200x800_deadbeef_2.jpg", "yandex_ab12"),
        ("IMG_0001.jpg", None),
        ("photo_original_1200x800.jpg", None),
        ("photo_large_1200x800_deadbeef.jpg", None),
        ("photo_original_1200x800_DEADBEEF.jpg", None),
        ("_original_1200x800_deadbeef.jpg", None),
    ],
)
def test_only_our_own_names_say_anything(name, image):
    read = read_any_name(name)
    assert (read.image if read else None) == image


def test_rungs_of_one_picture_are_found_by_name(folder, capsys):
    for number, (image, rung, size) in enumerate(
        [("e-1", "original", 400), ("e-1", "thumb", 100), ("e-1", "preview", 200), ("e-2", "thumb", 100)]
    ):
        drawing(number, size, size).save(folder / f"{image}_{rung}_{size}x{size}_0000000{number}.png")
    found = verdicts(result(folder, capsys, "filename", folder))
    keeper = "e-1_original_400x400_00000000.png"
    assert found == {
        "e-1_thumb_100x100_00000001.png": (keeper, "filename", "review"),
        "e-1_preview_200x200_00000002.png": (keeper, "filename", "review"),
    }
    dedup(folder, "filename", folder, "--remove", "filename")
    assert names(folder) == {keeper, "e-2_thumb_100x100_00000003.png"}


def file_of(path: Path) -> PictureFile:
    status = path.stat()
    return PictureFile(path, sha256_of(path), status.st_size, status.st_mtime_ns, path.parent)


def replaced(path: Path) -> None:
    path.write_bytes(b"another picture")


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def forged(path: Path) -> None:
    """Other bytes of the same length under the same time."""
    status, data = path.stat(), bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("whose", "change", "reason"),
    [
        ("keeper", Path.unlink, "keeper_changed"),
        ("keeper", replaced, "keeper_changed"),
        ("keeper", linked, "keeper_is_a_link"),
        ("keeper", forged, "bytes_differ"),
        ("victim", Path.unlink, "file_changed"),
        ("victim", replaced, "file_changed"),
        ("victim", linked, "file_is_a_link"),
        ("victim", lambda path: None, ""),
    ],
)
def test_both_files_are_checked_right_before_the_move(folder, whose, change, reason):
    paths = {"keeper": folder / "a.png", "victim": folder / "b.png"}
    for path in paths.values():
        drawing(1).save(path)
    keeper, victim = file_of(paths["keeper"]), file_of(paths["victim"])
    group = DuplicateGroup(1, keeper, Traits(), (Member(victim, Traits(), "bytes", 0, "remove", ""),))
    plan = QuarantinePlan(Workspace(folder.parent / "ws"), 1, [group], sidecars=True)
    change(paths[whose])
    assert plan.check(plan.actions[0]) == reason


def test_a_keeper_that_became_a_hard_link_of_the_victim_is_noticed(folder):
    drawing(1).save(folder / "a.png")
    (folder / "b.png").write_bytes((folder / "a.png").read_bytes())
    os.utime(folder / "b.png", ns=(file_of(folder / "a.png").mtime_ns,) * 2)
    keeper, victim = file_of(folder / "a.png"), file_of(folder / "b.png")
    group = DuplicateGroup(1, keeper, Traits(), (Member(victim, Traits(), "bytes", 0, "remove", ""),))
    plan = QuarantinePlan(Workspace(folder.parent / "ws"), 1, [group], sidecars=False)
    (folder / "b.png").unlink()
    os.link(folder / "a.png", folder / "b.png")
    assert plan.check(plan.actions[0]) == "one_file"
    assert plan.check(Action("move", "/elsewhere.png")) == "not_planned"


def test_the_brake_holds_and_can_be_released(folder, capsys):
    for number in range(14):
        drawing(1).save(folder / f"{number}.png", compress_level=1)
    before = snapshot(folder)
    dedup(folder, folder, expect=1)
    assert "13 of 14 files (92.9%) would go, more than 50%" in capsys.readouterr().err
    assert snapshot(folder) == before and quarantined(folder) == {}
    assert (folder.parent / "ws" / "reports" / "dedup.html").exists()
    dedup(folder, folder, "--dry-run")
    assert "this would be refused" in capsys.readouterr().err
    dedup(folder, folder, "--max-share", "95%")
    assert len(names(folder)) == 1


def test_the_refusal_names_the_share_that_lets_it_through(folder, capsys):
    for number in range(14):
        drawing(1).save(folder / f"{number}.png", compress_level=1)
    dedup(folder, folder, expect=1)
    asked = re.search(r"--max-share (\d+%)", capsys.readouterr().err)
    assert asked and asked[1] == "93%"  # 13 of 14, rounded up
    dedup(folder, folder, "--max-share", asked[1])
    assert len(names(folder)) == 1


@pytest.mark.parametrize(
    ("copies_of_one", "flags", "expected"),
    [
        (14, [], 0),  # 13 of 18 would go: 72 %
        (40, [], 1),  # 39 of 44: 89 %
        (14, ["--threshold", "40"], 1),
        (14, ["--near-query", "20"], 1),
        (14, ["--remove", "bytes", "pixels", "same", "edited"], 0),  # asked for, and none of that kind is there
    ],
)
def test_a_search_may_repeat_itself_more_than_a_folder(tmp_path, copies_of_one, flags, expected, capsys):
    workspace = searched(tmp_path / "ws", copies_of_one, others=4)
    words = [*flags, "--workspace", str(workspace), "--workers", "1"]
    assert load_step("dedup").main(words) == expected, capsys.readouterr().err


def searched(workspace, copies_of_one, others):
    """A workspace that has fetched so many copies of one picture, and others, beside the query picture."""
    for seed in range(others + 1):
        picture = drawing(seed)
        for number in range(copies_of_one if seed == 0 else 1):
            path = workspace / "images" / "ab" / f"{seed}-{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noted = PngInfo()
            noted.add_text("Comment", f"copy {number}")
            picture.save(path, pnginfo=noted)
    drawing(0).save(workspace / "query.png")
    with open_database(workspace / "gleaner.db") as db:
        run = start_run(db, "collect", {})
        with db.transaction():
            add_query(db, NewQuery("yandex", "image", "", "0" * 64, "query.png"), run)
            for path in sorted((workspace / "images").rglob("*.png")):
                content = path.read_bytes()
                digest = hashlib.sha256(content).hexdigest()
                name = path.relative_to(workspace).as_posix()
                add_file(db, FileRow(digest, name, len(content), "png", 320, 240))
    return workspace


def test_a_share_that_was_asked_for_is_strict(folder):
    family(folder)
    dedup(folder, folder, "--max-share", "0.2", expect=1)
    assert len(names(folder)) == 7


@pytest.mark.parametrize(
    ("answers", "gone"),
    [
        ("y\ny\n", {"a-same.jpg", "b-same.jpg"}),
        ("n\nyes\n", {"b-same.jpg"}),
        ("what?\nY\ns\n", {"a-same.jpg"}),
        ("y\nq\n", set()),
        ("y\n", set()),  # the answers end: nothing is done
    ],
)
def test_interactive(folder, monkeypatch, answers, gone):
    for seed, name in enumerate("ab"):
        drawing(seed, 400, 300).save(folder / f"{name}.png")
        drawing(seed, 400, 300).save(folder / f"{name}-same.jpg")
    before = names(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answers))
    dedup(folder, folder, "--interactive")
    assert before - names(folder) == gone


def test_a_plan_can_be_edited_and_applied(folder):
    family(folder)
    plan = folder.parent / "plan.json"
    dedup(folder, folder, "--plan", plan)
    assert len(names(folder)) == 7
    data = json.loads(plan.read_text())
    for member in data["groups"][0]["members"]:
        chosen = {"a-same.jpg": "keep", "a-caption.jpg": "remove"}
        member["decision"] = chosen.get(Path(member["path"]).name, member["decision"])
    data["groups"][0]["members"] = [m for m in data["groups"][0]["members"] if "half" not in m["path"]]
    plan.write_text(json.dumps(data))
    dedup(folder, folder, "--apply", plan)
    assert names(folder) == {"a.png", "a-same.jpg", "a-half.jpg"}


def test_decisions_from_the_page_are_followed(folder):
    family(folder)
    decisions = folder.parent / "decisions.json"
    chosen = [{"group": "1", "keeper": str(folder / "a.png"), "path": str(folder / "a-grey.jpg"), "decision": "keep"}]
    decisions.write_text(json.dumps({"version": 1, "run": "1", "decisions": chosen}))
    dedup(folder, folder, "--decisions", decisions)
    assert names(folder) == {"a.png", "a-grey.jpg", "a-caption.jpg"}


KILLER = """
import os, signal, sys
sys.path.insert(0, {root!r})
call, where, after, nth = {call!r}, {where!r}, {after!r}, {nth}
real, seen = getattr(os, call), [0]
def counted(source, *rest, **more):
    if ".part" in str(source) or where not in str([source, *rest]):
        return real(source, *rest, **more)
    seen[0] += 1
    if seen[0] == nth and not after:
        os.kill(os.getpid(), signal.SIGKILL)
    done = real(source, *rest, **more)
    if seen[0] == nth:
        os.kill(os.getpid(), signal.SIGKILL)
    return done
import runpy
sys.argv = [{step!r}, *{arguments!r}]
setattr(os, call, counted)
runpy.run_path({step!r}, run_name="__main__")
"""


def killed(folder: Path, call: str, where: str, after: bool, nth: int, *arguments: object) -> None:
    """Runs the step and kills it with SIGKILL at its n-th call of a function of `os` on such a path."""
    words = [*map(str, arguments), "--workspace", str(folder.parent / "ws"), "--workers", "1"]
    step = str(ROOT / "6_dedup.py")
    script = KILLER.format(root=str(ROOT), call=call, where=where, after=after, nth=nth, step=step, arguments=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize(
    ("call", "after", "nth"),
    [("link", False, 1), ("link", True, 1), ("link", True, 4), ("unlink", False, 3), ("unlink", True, 5)],
)
def test_a_kill_while_moving_loses_nothing(folder, call, after, nth):
    family(folder, 1, "a")
    (folder / "a-same.txt").write_text("a note")
    undisturbed = folder.parent / "undisturbed"
    undisturbed.mkdir()
    for path in folder.iterdir():
        (undisturbed / path.name).write_bytes(path.read_bytes())
        os.utime(undisturbed / path.name, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    everything = contents(folder)
    killed(folder, call, "photos/", after, nth, folder)
    quarantine = folder.parent / "ws" / "quarantine"
    assert set(contents(folder, quarantine)) == set(everything), "a picture is gone"
    dedup(folder, folder)
    assert contents(folder, quarantine) == everything
    states = as_rows(folder.parent / "ws" / "gleaner.db", "SELECT DISTINCT state FROM actions")
    assert {state for (state,) in states} <= {"done", "dropped"}
    dedup(undisturbed, undisturbed, "--workspace", folder.parent / "ws2")
    assert snapshot(folder) == snapshot(undisturbed)


def test_a_kill_while_undoing_loses_nothing(folder):
    family(folder)
    before, everything = snapshot(folder), contents(folder)
    dedup(folder, folder)
    killed(folder, "unlink", "quarantine/", False, 3, "--undo", "last")
    assert set(contents(folder, folder.parent / "ws" / "quarantine")) == set(everything)
    dedup(folder, "--undo", "last")
    assert snapshot(folder) == before
    assert quarantined(folder) == {}


@pytest.mark.skipif(
    not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == Path("/tmp").stat().st_dev,
    reason="needs a second file system at /dev/shm",
)
def test_the_quarantine_may_lie_on_another_file_system(folder, tmp_path_factory):
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        family(folder)
        before, everything = snapshot(folder), contents(folder)
        ws = Path(memory) / "ws"
        step = load_step("dedup")
        assert step.main([str(folder), "--workspace", str(ws), "--workers", "1"]) == 0
        assert len(names(folder)) == 2 and contents(folder, ws / "quarantine") == everything
        assert step.main(["--undo", "last", "--workspace", str(ws)]) == 0
        assert snapshot(folder) == before


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace as step 5 leaves it: a family of one picture and another one."""
    ws = Workspace(tmp_path / "ws")
    (ws.images / "ab").mkdir(parents=True)
    family(ws.images / "ab")
    (ws.images / "ab" / "a-bytes.png").unlink()  # step 5 keeps each content once
    drawing(2).save(ws.images / "ab" / "other.png")
    with open_database(ws.database) as db, db.transaction():
        for path in sorted(ws.images.rglob("*.*")):
            sha256 = sha256_of(path)
            add_file(db, FileRow(sha256, ws.to_text(path), path.stat().st_size, path.suffix[1:], 640, 480))
            db.execute(
                "INSERT INTO images (key, engine, page_url, first_seen_at) VALUES (?, 'yandex', ?, '2026')",
                (path.stem, f"https://example.org/{path.stem}"),
            )
            db.execute(
                "INSERT INTO downloads (image_id, state, sha256, updated_at)"
                " VALUES (last_insert_rowid(), 'done', ?, '2026')",
                (sha256,),
            )
    return ws.root


def test_rows_follow_the_files(workspace):
    caches = ("runs", "hashes", "duplicates", "actions", "contents", "near_hashes", "near_pairs", "relations")
    before = dump(workspace / "gleaner.db", without=caches)
    assert run_step("dedup", "--workspace", workspace).returncode == 0
    database = workspace / "gleaner.db"
    rows = dict(as_rows(database, "SELECT path, state FROM files"))
    assert Counter(rows.values()) == {"quarantined": 4, "present": 3}
    assert all((workspace / path).is_file() for path in rows)
    assert {path for path, state in rows.items() if state == "quarantined"} == {
        f"quarantine/1/images/ab/{name}" for name in ("a-pixels.png", "a-same.jpg", "a-half.jpg", "a-grey.jpg")
    } or len([p for p in rows if p.startswith("quarantine/1/images/ab/")]) == 4
    assert as_rows(database, "SELECT DISTINCT state FROM downloads") == [("done",)]
    kinds = as_rows(database, "SELECT kind, decision, count(*) FROM duplicates GROUP BY 1, 2 ORDER BY 1")
    assert kinds == [("edited", "review", 1), ("pixels", "remove", 1), ("same", "remove", 3)]
    page = (workspace / "reports" / "dedup.html").read_text(encoding="utf-8")
    assert "../quarantine/1/images/ab/" in page and "https://example.org/" in page
    assert run_step("dedup", "--workspace", workspace, "--undo", "last").returncode == 0
    assert dump(database, without=caches) == before


def test_a_folder_of_the_workspace_is_still_the_workspace(workspace):
    assert run_step("dedup", workspace / "images" / ".." / "images", "--workspace", workspace).returncode == 0
    states = dict(as_rows(workspace / "gleaner.db", "SELECT state, count(*) FROM files GROUP BY 1"))
    assert states == {"quarantined": 4, "present": 3}


def test_two_workers_find_what_one_finds(workspace):
    shown = [run_step("dedup", "--workspace", workspace, "--dry-run", "--json", "--workers", n).stdout for n in (1, 2)]
    assert json.loads(shown[0])["groups"] == json.loads(shown[1])["groups"] != []


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "there is no database in .*; run 5_download.py first"),
        (["--dry-run"], "there is no database in .*; run 5_download.py first"),
        (["nowhere"], "nowhere does not exist; modes are exact, similar, filename, semantic, all"),
        (["exact", "--mode", "similar", "."], "the modes exact and --mode similar contradict each other"),
        ([".", "--plan", "plan.json", "--dry-run"], "--plan writes a file and a dry run writes nothing"),
        ([".", "--apply", "missing.json"], "missing.json holds no decisions"),
        ([".", "--protect", "nowhere"], "nowhere does not exist"),
        ([".", "--undo", "77"], "so there is nothing to undo"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert load_step("dedup").main([*arguments, "--workspace", str(tmp_path / "ws")]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_an_empty_workspace_names_the_step_to_run_first(tmp_path, capsys):
    open_database(tmp_path / "gleaner.db").close()
    assert load_step("dedup").main(["--workspace", str(tmp_path)]) == 2
    assert "run 5_download.py first" in capsys.readouterr().err


def test_an_empty_folder_is_nothing_to_do(folder, capsys):
    assert result(folder, capsys, folder)["groups"] == []
