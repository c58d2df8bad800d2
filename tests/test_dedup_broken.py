"""Step 6 names what it could not compare: in its JSON, its CSV, its text and on its page, each file with its reason."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import struct
import sys
import zlib
from pathlib import Path

import pytest
from PIL import Image
from support import dedup, drawing, flat, result, run_step, snapshot

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.files.pictures import sha256_of
from lib.pages.model import BrokenReason, Heading
from lib.pages.reports import render_dedup_report
from lib.workspace import Workspace

PAGE = b"<html>not found</html>"


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def huge_png() -> bytes:
    """A PNG whose header claims 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def rotten_png() -> bytes:
    """A PNG of which one byte of the pixels is another one."""
    data = bytearray(encoded(drawing(5), "PNG"))
    data[data.index(b"IDAT") + 200] ^= 0xFF
    return bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A picture and its copy, and one file of each kind that cannot be compared."""
    made = tmp_path / "photos"
    (made / "sub").mkdir(parents=True)
    whole = encoded(drawing(1), "JPEG")
    (made / "a.jpg").write_bytes(whole)
    (made / "b.jpg").write_bytes(whole)
    (made / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (made / "page.jpg").write_bytes(PAGE)
    (made / "sub" / "page 2.png").write_bytes(PAGE)
    (made / "empty.webp").write_bytes(b"")
    (made / "huge.png").write_bytes(huge_png())
    (made / "rotten.png").write_bytes(rotten_png())
    (made / "layers.jpg").write_bytes(b"8BPS\0\1" + bytes(200))
    return made


def expected(folder: Path) -> dict[str, str]:
    """Path -> reason."""
    reasons = {
        "cut.jpg": "truncated",
        "page.jpg": "not_an_image",
        "sub/page 2.png": "not_an_image",
        "empty.webp": "not_an_image",
        "huge.png": "too_many_pixels",
        "rotten.png": "undecodable",
        "layers.jpg": "unsupported_format",
    }
    return {str(folder / name): reason for name, reason in reasons.items()}


def named(answer: dict) -> dict[str, str]:
    """Path -> reason of the files that an answer lists, none twice."""
    found = {entry["path"]: entry["reason"] for entry in answer["broken"]}
    assert len(found) == len(answer["broken"]) and all(set(e) == {"path", "reason"} for e in answer["broken"])
    return found


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def named_in_table(text: str) -> dict[str, str]:
    return {row["path"]: row["reason"] for row in rows(text) if row["decision"] == "broken"}


@pytest.mark.parametrize(("mode", "dry"), [("exact", True), ("similar", False), ("all", True)])
def test_json_lists_each_file_that_could_not_be_compared(folder: Path, capsys, mode: str, dry: bool):
    answer = result(folder, capsys, mode, folder, *["--dry-run"] * dry)
    assert named(answer) == expected(folder), "all files of one content too"
    assert [entry["path"] for entry in answer["broken"]] == sorted(expected(folder))
    assert len(answer["groups"]) == 1 and answer["summary"]["broken"] == 6, "contents: two files are the same page"
    reports = folder.parent / "ws" / "reports"
    if dry:
        assert not reports.exists()
    else:
        assert named(json.loads((reports / "dedup.json").read_text())) == expected(folder)
        assert named_in_table((reports / "dedup.csv").read_text()) == expected(folder)


@pytest.mark.parametrize("dry", [True, False])
def test_csv_has_a_row_for_each(folder: Path, capsys, dry: bool):
    capsys.readouterr()
    dedup(folder, folder, "--format", "csv", "--quiet", *["--dry-run"] * dry)
    table = rows(capsys.readouterr().out)
    broken = [row for row in table if row["decision"] == "broken"]
    assert {row["path"]: row["reason"] for row in broken} == expected(folder)
    assert {row["kind"] for row in broken} == {"broken"} and {row["group"] + row["keeper"] for row in broken} == {""}
    sizes = {row["path"]: (int(row["bytes"]), len(row["sha256"])) for row in broken}
    assert sizes == {path: (Path(path).stat().st_size, 64) for path in expected(folder)}
    assert [row["decision"] for row in table if row not in broken] == ["remove"]
    assert list(table[0])[:7] == ["group", "path", "keeper", "kind", "distance", "decision", "reason"]


def test_the_text_names_the_first_of_them_and_v_names_all(folder: Path, capsys):
    for number in range(20):
        (folder / f"more {number:02d}.jpg").write_bytes(PAGE + bytes([number]))
    dedup(folder, folder, "--dry-run", "--quiet")
    short = capsys.readouterr().out
    assert len(re.findall("not compared", short)) == 8, "the group has two of the ten lines"
    assert "… and 19 more that could not be compared" in short
    dedup(folder, folder, "--dry-run", "--quiet", "-v")
    told = capsys.readouterr().out
    assert all(f"{Path(path).name}  ({reason})" in told for path, reason in expected(folder).items())


def test_the_page_groups_them_by_reason(folder: Path, capsys):
    (folder / "<b>&.jpg").write_bytes(PAGE)
    dedup(folder, folder)
    html = (folder.parent / "ws" / "reports" / "dedup.html").read_text(encoding="utf-8")
    section = html.split('id="broken"', 1)[1].split("</section>", 1)[0]
    assert "8 files" in section and "<b>&" not in html and "&lt;b&gt;&amp;.jpg" in section
    parts = {re.search(r'class="badge">([^<]+)<', part)[1]: part for part in section.split("<details")[1:]}
    assert set(parts) == set(expected(folder).values())
    for path, reason in expected(folder).items():
        assert [one for one, part in parts.items() if f">{Path(path).name}<" in part] == [reason]
    assert parts["not_an_image"].count("<li>") == 4 and "Every picture is there once" not in html


def test_without_broken_files_the_list_is_empty_and_the_page_silent(tmp_path: Path, capsys):
    folder = tmp_path / "photos"
    folder.mkdir()
    drawing(1).save(folder / "a.png")
    drawing(2).save(folder / "b.png")
    assert result(folder, capsys, folder)["broken"] == []
    html = (tmp_path / "ws" / "reports" / "dedup.html").read_text()
    assert 'id="broken"' not in html and "Every picture is there once" in html


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux")
@pytest.mark.parametrize("place", ["looked at", "compared against"])
def test_a_name_that_is_no_text_is_named(tmp_path: Path, capsys, place: str):
    folder, other = tmp_path / "photos", tmp_path / "references"
    for number, made in enumerate((folder, other)):
        made.mkdir()
        drawing(number).save(made / "a.png")
    inside = folder if place == "looked at" else other
    Path(os.fsdecode(os.fsencode(inside) + b"/caf\xe9\n.png")).write_bytes(PAGE)
    (inside / "page.jpg").write_bytes(PAGE)
    words = ["similar", folder, "--reference", other]
    answer = result(folder, capsys, *words)
    wanted = {str(inside / "page.jpg"): "not_an_image", f"{inside}/caf\\xe9\n.png": "name_not_utf8"}
    assert named(answer) == wanted and answer["summary"]["broken"] == 2
    reports = tmp_path / "ws" / "reports"
    with (reports / "dedup.csv").open(newline="", encoding="utf-8") as table:
        assert {r["path"]: r["reason"] for r in csv.DictReader(table) if r["kind"] == "broken"} == wanted
    assert "caf\\xe9\\x0a.png" in (reports / "dedup.html").read_text(encoding="utf-8")
    written = snapshot(reports)
    result(folder, capsys, *words)
    assert snapshot(reports) == written, "nothing new: such a name too is found again"


def test_a_new_broken_file_is_told_of_and_an_old_one_writes_nothing(folder: Path, capsys):
    dedup(folder, folder)
    reports = folder.parent / "ws" / "reports"
    before = snapshot(reports)
    dedup(folder, folder)
    assert snapshot(reports) == before
    (folder / "later.gif").write_bytes(b"GIF89a")
    dedup(folder, folder)
    answer = json.loads((reports / "dedup.json").read_text())
    assert str(folder / "later.gif") in named(answer) and "later.gif" in (reports / "dedup.html").read_text()


def test_a_plan_with_broken_files_can_be_applied(folder: Path, capsys):
    plan = folder.parent / "plan.json"
    dedup(folder, folder, "--plan", plan)
    assert named(json.loads(plan.read_text())) == expected(folder)
    answer = result(folder, capsys, folder, "--apply", plan)
    assert answer["summary"]["removed"] == 1 and named(answer) == expected(folder)
    assert all(Path(path).is_file() for path in expected(folder)), "they stay where they are"


def test_files_of_the_workspace_are_named_by_their_path(tmp_path: Path):
    workspace = Workspace(tmp_path / "ws")
    workspace.images.mkdir(parents=True)
    contents = {"1_original_640x480_aaaaaaaa.jpg": encoded(drawing(1), "JPEG"), "2_original_9x9_bbbbbbbb.jpg": PAGE}
    contents["3_original_640x480_cccccccc.jpg"] = contents["1_original_640x480_aaaaaaaa.jpg"][:4000]
    with open_database(workspace.database) as db, db.transaction():
        for name, data in contents.items():
            path = workspace.images / name
            path.write_bytes(data)
            add_file(db, FileRow(sha256_of(path), workspace.to_text(path), len(data), "jpg", 640, 480))
    done = run_step("dedup", "--json", "--dry-run", "--workspace", workspace.root)
    assert done.returncode == 0, done.stderr
    wanted = {"2_original_9x9_bbbbbbbb.jpg": "not_an_image", "3_original_640x480_cccccccc.jpg": "truncated"}
    assert named(flat(done.stdout)) == {str(workspace.images / name): r for name, r in wanted.items()}


def test_the_page_stays_small_with_very_many_and_says_where_all_are(tmp_path: Path):
    page = tmp_path / "page.html"
    many = [tmp_path / f"{n:06d}.jpg" for n in range(50_000)]
    broken = [BrokenReason("not_an_image", many), BrokenReason("truncated", [tmp_path / "one.jpg"])]
    html = render_dedup_report(page, Heading("Repeats"), [], broken=broken, broken_limit=300)
    assert html.count("<li>") == 300 and ">one.jpg<" in html and "50,000 files" in html
    assert "The first 299 of 50,000" in html and html.count("<details open") == 0
    few = render_dedup_report(page, Heading("Repeats"), [], broken=[BrokenReason("truncated", many[:3])])
    assert few.count("<details open") == 1 and few.count("<li>") == 3
