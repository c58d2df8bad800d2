"""Step 3: the counts are those of the rows, every format says the same, and the page needs nobody."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from support import drawing, dump, load_step, run_step, snapshot

from lib.db import open_database
from lib.domains import domains_of, family_by_domain, family_names, family_of
from lib.times import utc_now

PICTURES = [
    # (id, registrable domain, host, licence, width, height, download state)
    ("a", "vk.com", "m.vk.com", "", 2000, 1500, "done"),
    ("b", "vk.com", "vk.com", "", 800, 600, "failed"),
    ("c", "userapi.com", "sun9-1.userapi.com", "", 800, 600, "done"),
    ("d", "alpine.example", "photos.alpine.example", "CC BY 4.0", 4000, 3000, "done"),
    ("e", "alpine.example", "www.alpine.example", "CC0", 400, 300, "pending"),
    ("f", "alpine.example", "<script>alert(1)</script>", "CC0", None, None, "blocked"),
    ("g", "", "", "", 640, 480, "pending"),
]


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Seven pictures of three domains; `a` and `d` have the same file."""
    now = utc_now()
    (tmp_path / "images").mkdir()
    for name in ("x", "y"):
        drawing(ord(name)).save(tmp_path / "images" / f"{name}.png")
    with open_database(tmp_path / "gleaner.db") as db, db.transaction():
        for number, text in enumerate(("cats", "dogs"), start=1):
            db.execute(
                "INSERT INTO queries (id, engine, kind, text, created_at, updated_at) VALUES (?, 'yandex', 'keyword',"
                " ?, ?, ?)",
                (number, text, now, now),
            )
        for name in ("x", "y"):
            db.execute(
                "INSERT INTO files (sha256, path, bytes, format, width, height, added_at)"
                " VALUES (?, ?, 9, 'png', 320, 240, ?)",
                (name, f"images/{name}.png", now),
            )
        for rank, (key, domain, host, licence, width, height, state) in enumerate(PICTURES):
            image = db.execute(
                "INSERT INTO images (key, engine, registrable_domain, domain, license, width, height, first_seen_at)"
                " VALUES (?, 'yandex', ?, ?, ?, ?, ?, ?)",
                (key, domain, host, licence, width, height, now),
            ).lastrowid
            sha256 = {"a": "x", "d": "x", "c": "y"}.get(key)
            db.execute(
                "INSERT INTO downloads (image_id, state, sha256, updated_at) VALUES (?, ?, ?, ?)",
                (image, state, sha256, now),
            )
            for query in (1, 2) if key == "a" else (1,):
                db.execute("INSERT INTO results (query_id, image_id, rank) VALUES (?, ?, ?)", (query, image, rank))
    return tmp_path


def report(workspace: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert load_step("report").main(["--workspace", str(workspace), *arguments]) == 0
    return capsys.readouterr().out


def rows(workspace: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict]:
    return {row["key"]: row for row in json.loads(report(workspace, capsys, *arguments, "--json"))["result"]["rows"]}


EXPECTED = [
    ("domain", {"alpine.example": 3, "vk.com": 2, "userapi.com": 1, "(unknown)": 1}),
    ("engine", {"yandex": 7}),
    ("licence", {"(unknown)": 4, "CC0-1.0": 2, "CC-BY-4.0": 1}),
    ("size", {"2 to 8 MP": 1, "8 MP and more": 1, "below 0.5 MP": 4, "(unknown)": 1}),
    ("query", {"yandex: cats": 7, "yandex: dogs": 1}),
]


@pytest.mark.parametrize(("by", "expected"), EXPECTED, ids=[case[0] for case in EXPECTED])
def test_counts_are_those_of_the_rows(workspace, capsys, by, expected):
    assert {key: row["pictures"] for key, row in rows(workspace, capsys, "--by", by).items()} == expected


def test_downloads_files_and_shares_are_counted_by_domain(workspace, capsys):
    found = rows(workspace, capsys)
    assert (found["alpine.example"]["done"], found["alpine.example"]["failed"]) == (1, 1)
    assert found["vk.com"]["files"] == 1 and found["vk.com"]["median_size"] == "320 × 240"
    assert found["alpine.example"]["share"] == pytest.approx(3 / 7)
    assert list(found.values())[-1]["cumulative"] == pytest.approx(1.0)


def test_families_join_the_domains_of_one_service(workspace, capsys):
    families = json.loads(report(workspace, capsys, "--json"))["result"]["families"]
    assert [(f["family"], f["count"], f["domains"]) for f in families] == [("VK", 3, 2)]


def test_top_sums_up_the_rest(workspace, capsys):
    found = rows(workspace, capsys, "--top", "1")
    assert list(found) == ["alpine.example", "(2 others)", "(unknown)"] and found["(2 others)"]["pictures"] == 3
    assert [round(row["cumulative"] * 7) for row in found.values()] == [3, 6, 7]


def test_every_format_tells_the_same_numbers(workspace, capsys):
    table = list(csv.DictReader(io.StringIO(report(workspace, capsys, "--format", "csv"))))
    assert {row["key"]: int(row["pictures"]) for row in table} == dict(EXPECTED[0][1])
    text = report(workspace, capsys)
    assert re.search(r"^alpine\.example +3 +42\.9% +42\.9% ", text, re.MULTILINE) and "█" in text
    assert "| alpine.example |  | 3 | 42.9% |" in report(workspace, capsys, "--format", "markdown")
    assert json.loads(report(workspace, capsys, "--format", "json"))["totals"]["pictures"] == 7


def test_a_formula_is_no_formula_in_the_csv(workspace, capsys):
    with open_database(workspace / "gleaner.db") as db:
        db.execute("UPDATE images SET registrable_domain = '=cmd()' WHERE key = 'g'")
    assert "'=cmd()" in report(workspace, capsys, "--format", "csv")


def test_the_page_is_one_file_and_hostile_text_is_only_text(workspace, capsys):
    path = report(workspace, capsys, "--by", "host", "--format", "html").strip()
    html = Path(path).read_text(encoding="utf-8")
    assert Path(path) == workspace / "reports" / "by_host.html"
    assert "<script>alert(1)</script>" not in html and "&lt;script&gt;alert(1)" in html
    assert not re.search(r"""(src|href)=["']https?://""", html)
    assert "by_host.html" in (workspace / "reports" / "index.html").read_text(encoding="utf-8")


def test_a_second_run_changes_nothing(workspace, capsys):
    report(workspace, capsys)
    before, rows_before = snapshot(workspace / "reports"), dump(workspace / "gleaner.db")
    report(workspace, capsys)
    assert snapshot(workspace / "reports") == before and dump(workspace / "gleaner.db") == rows_before


def test_a_dry_run_writes_nothing(workspace, capsys):
    before = snapshot(workspace)
    assert "alpine.example" in report(workspace, capsys, "--dry-run")
    assert snapshot(workspace) == before


def test_too_early_names_the_step_to_run_first(tmp_path):
    none = run_step("report", "--workspace", tmp_path / "none")
    assert none.returncode == 2 and "run 1_collect.py" in none.stderr and not (tmp_path / "none").exists()
    open_database(tmp_path / "gleaner.db").close()
    empty = run_step("report", "--workspace", tmp_path)
    assert empty.returncode == 2 and "run 2_ingest_db.py first" in empty.stderr and "Traceback" not in empty.stderr


FAMILIES = [
    ("vk.com", "", "VK"),
    ("userapi.com", "sun9-1.userapi.com", "VK"),
    ("mycdn.me", "i.mycdn.me", "OK"),
    ("pinimg.com", "i.pinimg.com", "Pinterest"),
    ("googleusercontent.com", "lh3.googleusercontent.com", "Google"),
    ("notvk.com", "vk.com.notvk.com", ""),
    ("", "", ""),
]


@pytest.mark.parametrize(("domain", "host", "family"), FAMILIES)
def test_family_of(domain, host, family):
    assert family_of(domain, host) == family


def test_the_family_file_is_sound():
    assert len(family_names()) >= 20 and "vk.com" in domains_of("vk")
    for domain in family_by_domain():
        assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", domain), domain


@pytest.fixture
def engines(workspace: Path) -> Path:
    """Three pictures of another engine besides: the file of `c`, the original address of `b`, and one of its own."""
    now = utc_now()
    with open_database(workspace / "gleaner.db") as db, db.transaction():
        db.execute(
            "INSERT INTO queries (engine, kind, text, created_at, updated_at) VALUES ('bing', 'keyword', 'cats', ?, ?)",
            (now, now),
        )
        for key, sha256 in (("h", "y"), ("i", None), ("j", None)):
            image = db.execute(
                "INSERT INTO images (key, engine, registrable_domain, domain, first_seen_at)"
                " VALUES (?, 'bing', 'vk.com', 'vk.com', ?)",
                (key, now),
            ).lastrowid
            state = "done" if sha256 else "pending"
            columns = "image_id, state, sha256, updated_at"
            db.execute(f"INSERT INTO downloads ({columns}) VALUES (?, ?, ?, ?)", (image, state, sha256, now))
        for key in ("b", "i"):
            db.execute(
                "INSERT INTO image_variants (image_id, kind, url)"
                " SELECT id, 'original', 'https://img.example/one.jpg' FROM images WHERE key = ?",
                (key,),
            )
    return workspace


def test_a_picture_of_two_engines_counts_once_in_the_totals(engines, capsys):
    found = json.loads(report(engines, capsys, "--format", "json"))
    assert (found["totals"]["pictures"], found["totals"]["shared"]) == (8, 2)
    assert sum(row["pictures"] for row in found["rows"]) == 10, "a row counts what its engines found"
    assert "8 pictures (2 of several engines counted once)" in report(engines, capsys)
    html = (engines / "reports" / "domains.html").read_text(encoding="utf-8")
    assert re.search(r"<dt>Pictures</dt>\s*<dd>8<span[^>]*>2 of several engines counted once", html)


def test_one_engine_shares_nothing_with_itself(workspace, capsys):
    totals = json.loads(report(workspace, capsys, "--format", "json"))["totals"]
    assert (totals["pictures"], totals["shared"]) == (7, 0)  # `a` and `d` have one file


def test_engines_are_named_where_several_stand_in_one_row(engines, workspace, capsys):
    found = {row["key"]: row["engines"] for row in json.loads(report(engines, capsys, "--format", "json"))["rows"]}
    assert found["vk.com"] == "bing, yandex" and found["alpine.example"] == "yandex"
    assert re.search(r"^vk\.com .*bing, yandex", report(engines, capsys), re.MULTILINE)
    assert ">Engines</button>" in (engines / "reports" / "domains.html").read_text(encoding="utf-8")
    assert " engines" not in report(engines, capsys, "--by", "engine").splitlines()[2]


def test_a_single_row_has_no_bar(workspace, capsys):
    text = report(workspace, capsys, "--by", "engine")
    html = (workspace / "reports" / "by_engine.html").read_text(encoding="utf-8")
    assert "█" not in text and "100.0%" in text
    assert 'class="fill"' not in html and "<svg" not in html and "<th scope=" in html
    report(workspace, capsys)
    html = (workspace / "reports" / "domains.html").read_text(encoding="utf-8")
    families = re.search(r'id="family-title".*?</section>', html, re.DOTALL)
    assert families and 'class="fill"' not in families[0] and 'class="fill"' in html


def test_one_of_a_thing_is_no_things(workspace, capsys):
    report(workspace, capsys, "--by", "engine")
    html = (workspace / "reports" / "by_engine.html").read_text(encoding="utf-8")
    assert "<dt>Engine</dt>" in html and "<dt>Engines</dt>" not in html and "A few of the files." in html
