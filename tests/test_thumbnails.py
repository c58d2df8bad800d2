"""The thumbnails of pages with many pictures: files beside the page, made once, whole, and cleared with care."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import left_by_a_dead_process, touched

from lib.pages import thumbnails as module
from lib.pages.model import Bucket, Heading, SheetItem
from lib.pages.render import write_page
from lib.pages.reports import render_contact_sheet
from lib.pages.thumbnails import are_all_there, clear_stale, folder_of, thumbnails


def draw(folder: Path, number: int) -> list[Path]:
    """So many small pictures of different colours, named in a way that a URL has to quote."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{n} a#b?.png" for n in range(number)]
    for n, file in enumerate(files):
        Image.new("RGB", (8, 6), (n % 256, n // 256, 90)).save(file)
    return files


def sheet(page: Path, files: list[Path], limit: int = 2) -> str:
    items = [SheetItem(file, file.name, "all") for file in files]
    html = render_contact_sheet(page, Heading("Sheet"), [Bucket("all")], items, embed_limit=limit)
    write_page(page, html)
    return html


def made(page: Path) -> dict[str, tuple[int, int]]:
    """Every file beside the page with its inode and time: what is made anew has others."""
    found = sorted(path for path in folder_of(page).rglob("*") if path.is_file())
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def test_files_are_beside_the_page_and_reused_where_the_picture_has_not_changed(tmp_path: Path) -> None:
    files, page = draw(tmp_path / "images", 5), tmp_path / "reports" / "page.html"
    html = sheet(page, files)
    shown = re.findall(r'<img src="\./page_thumbnails/([^"]+)"', html)
    assert len(shown) == len(files) == len(set(shown)) and "data:image/jpeg" not in html
    for file, name in zip(files, shown, strict=True):
        with Image.open(folder_of(page) / name) as small, Image.open(file) as large:
            assert small.format == "JPEG" and small.size == large.size
            assert all(abs(a - b) < 9 for a, b in zip(small.getpixel((4, 3)), large.getpixel((4, 3)), strict=True))
    before = made(page)
    assert sheet(page, files) == html and made(page) == before
    Image.new("RGB", (8, 6), (250, 10, 10)).save(files[2])
    os.utime(files[2], ns=(1, 1))
    again = sheet(page, files)
    after = made(page)
    assert len(set(after) & set(before)) == 4 and len(after) == 5, "one is new, and the one it replaces has gone"
    assert {name: after[name] for name in set(after) & set(before)} == {n: before[n] for n in set(after) & set(before)}
    assert again != html


def test_a_picture_with_the_size_and_time_of_another_has_its_own_thumbnail(tmp_path: Path) -> None:
    """A tool that keeps times must not leave the thumbnail of what was there before."""
    files, page = draw(tmp_path, 3), tmp_path / "page.html"
    for file in files:
        Image.new("RGB", (8, 6), (200, 0, 0)).save(file.with_suffix(".bmp"))
    files = [file.with_suffix(".bmp") for file in files]
    before, status = sheet(page, files), files[0].stat()
    Image.new("RGB", (8, 6), (0, 0, 200)).save(files[0])
    os.utime(files[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert files[0].stat().st_size == status.st_size and sheet(page, files) != before


def test_a_moved_workspace_keeps_its_thumbnails(tmp_path: Path) -> None:
    page = tmp_path / "one" / "reports" / "page.html"
    html, before = sheet(page, draw(tmp_path / "one" / "images", 4)), made(page)
    (tmp_path / "one").rename(tmp_path / "other")
    moved = tmp_path / "other" / "reports" / "page.html"
    assert sheet(moved, sorted((tmp_path / "other" / "images").iterdir())) == html and made(moved) == before


def test_what_is_shown_no_more_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    files, page, other = draw(tmp_path / "images", 6), tmp_path / "page.html", tmp_path / "other.html"
    sheet(page, files)
    sheet(other, files)
    folder, beside = folder_of(page), made(other)
    some = next(folder.glob("*/*.jpg"))
    foreign = [folder / "notes.txt", some.parent / "holiday.jpg", some.parent / f"{some.parent.name}{'0' * 30}.jpg"]
    for path in foreign:
        path.write_bytes(b"\xff\xd8 mine")
    (folder / "own").mkdir()
    dead = left_by_a_dead_process(some)
    sheet(page, files[:3])
    assert len([path for path in folder.glob("*/*.jpg") if path not in foreign]) == 3
    assert all(path.read_bytes() == b"\xff\xd8 mine" for path in foreign) and not dead.exists()
    assert made(other) == beside
    sheet(page, files, limit=100)  # few again: they stand in the page
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(foreign)
    for path in foreign:
        path.unlink()
    sheet(page, files[:1])
    assert not folder.exists(), "an empty folder is none"


def test_two_pages_of_one_stem_have_folders_of_their_own(tmp_path: Path) -> None:
    files = draw(tmp_path / "images", 4)
    one, other = tmp_path / "page.html", tmp_path / "page.htm"
    sheet(one, files)
    sheet(other, files[:3])
    assert are_all_there(one) and are_all_there(other) and len(made(one)) == 4


def test_a_kill_leaves_the_old_page_with_all_its_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, page = draw(tmp_path / "images", 8), tmp_path / "page.html"
    sheet(page, files[:4])
    before, real, written = page.read_text(), module.write_whole, []

    def killed(path: Path, content: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        real(path, content)

    monkeypatch.setattr(module, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        sheet(page, files[4:])
    monkeypatch.undo()
    assert page.read_text() == before and are_all_there(page)
    sheet(page, files[4:])
    assert are_all_there(page) and len(made(page)) == 4, "what was half done is done, what is old has gone"
    for path in written:
        assert path.name in made(page)


def test_a_full_disk_is_raised_and_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, page = draw(tmp_path / "images", 5), tmp_path / "page.html"

    def full(source: Any, target: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        sheet(page, files)
    assert not list(tmp_path.rglob("*.part")) and not page.exists()
    monkeypatch.undo()
    sheet(page, files)
    assert are_all_there(page)


def test_what_is_missing_or_empty_is_made_again(tmp_path: Path) -> None:
    files, page = draw(tmp_path / "images", 4), tmp_path / "page.html"
    html = sheet(page, files)
    first, second = sorted(folder_of(page).glob("*/*.jpg"))[:2]
    first.unlink()
    second.write_bytes(b"")
    assert not are_all_there(page)
    assert sheet(page, files) == html and are_all_there(page) and second.stat().st_size
    shutil.rmtree(folder_of(page))
    assert not are_all_there(page) and sheet(page, files) == html and are_all_there(page)


def test_what_cannot_be_decoded_is_not_linked(tmp_path: Path) -> None:
    files, page = draw(tmp_path / "images", 3), tmp_path / "page.html"
    files[1].write_bytes(files[1].read_bytes()[:40])
    found = thumbnails([*files, tmp_path / "gone.png", None], page, limit=2)
    assert [bool(found[file]) for file in files] == [True, False, True] and found[tmp_path / "gone.png"] == ""
    html = sheet(page, files)
    assert html.count("no preview") == 1 and are_all_there(page)


@pytest.mark.skipif(os.name != "posix", reason="links to folders need a right of their own on Windows")
def test_a_link_in_place_of_the_folder_is_not_cleared(tmp_path: Path) -> None:
    files, page, elsewhere = draw(tmp_path / "images", 4), tmp_path / "page.html", tmp_path / "elsewhere"
    sheet(page, files)
    folder_of(page).rename(elsewhere)
    folder_of(page).symlink_to(elsewhere, target_is_directory=True)
    clear_stale(page)
    assert len(list(elsewhere.glob("*/*.jpg"))) == 4


def test_the_second_run_touches_nothing_beside_the_page(tmp_path: Path) -> None:
    files, page = draw(tmp_path / "images", 4), tmp_path / "reports" / "page.html"
    sheet(page, files)
    page.unlink()
    before = touched(tmp_path / "reports")
    assert before
    thumbnails(files, page, limit=2)
    assert touched(tmp_path / "reports") == before
