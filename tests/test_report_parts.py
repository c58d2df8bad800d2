"""Step 3 beyond the table: families, comparisons, a database of its own, lists of domains, and the indexes it uses."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from pathlib import Path

import pytest
from support import as_rows, load_step, snapshot
from yandex_answers import entity, key_of, make_workspace, xhr

from lib.db import open_database
from lib.db import report as counts
from lib.db.journal import start_run
from lib.domains import DomainLists, covers, read_list, read_lists
from lib.errors import UsageError
from lib.report.run import _sampled, make_report

step = load_step("report")
ingest = load_step("ingest")


def at(number: int, host: str) -> dict:
    found = entity(number)
    found["snippet"] = {**found["snippet"], "url": f"https://{host}/{number}", "domain": host}
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two searches of two runs: VK under two domains, one shared picture, and a private suffix."""
    first = [at(1, "vk.com"), at(2, "sun9.userapi.com"), at(3, "www.example.org"), at(4, "example.org")]
    second = [at(1, "vk.com"), at(5, "shop.example.org"), at(6, "b.example.net")]
    answers = {("bridge", 0, "xhr"): xhr(first), ("tower", 0, "xhr"): xhr(second)}
    database = make_workspace(tmp_path_factory.mktemp("report") / "ws", answers)
    assert ingest.main(["--workspace", str(database.parent), "-q"]) == 0
    with open_database(database) as db:
        other = start_run(db, "collect", {})
        db.execute("UPDATE responses SET run_id = ? WHERE path LIKE '%tower%'", (other,))
        db.execute("INSERT INTO files (sha256, path, bytes, format, width, height, added_at) VALUES"
                   " ('aa', 'images/a.jpg', 9, 'jpeg', 30, 20, '2026')")  # fmt: skip
        chosen = "(SELECT id FROM images WHERE key IN (?, ?))"
        done = f"UPDATE downloads SET state = 'done', sha256 = 'aa' WHERE image_id IN {chosen}"
        db.execute(done, (f"yandex:{key_of(3)}", f"yandex:{key_of(4)}"))
        db.execute(
            "UPDATE downloads SET state = 'failed' WHERE image_id = (SELECT id FROM images WHERE key = ?)",
            (f"yandex:{key_of(5)}",),
        )
    return database.parent


def run(root: Path, *arguments: object) -> int:
    return step.main([*map(str, arguments), "--workspace", str(root), "-q"])


def test_by_family_joins_the_domains_of_a_service(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(root, "--by", "family", "--json", "--dry-run")
    rows = json.loads(capsys.readouterr().out)["result"]["rows"]
    assert [(row["key"], row["pictures"], row["done"], row["failed"]) for row in rows] == [
        ("(no family)", 4, 2, 1),
        ("VK", 2, 0, 0),
    ]


def test_one_content_counts_once_and_success_is_of_what_was_tried(root: Path, capsys) -> None:
    run(root, "--json", "--dry-run")
    row = next(row for row in json.loads(capsys.readouterr().out)["result"]["rows"] if row["key"] == "example.org")
    assert (row["pictures"], row["unique"], row["files"]) == (3, 2, 1)
    assert row["success"] == pytest.approx(2 / 3) and row["median_size"] == "30 × 20"
    run(root, "--dry-run")
    assert "30 × 20" in capsys.readouterr().out


@pytest.mark.parametrize("sides", [("bridge", "tower"), ("run:1", "run:3"), ("1", "2")])
def test_two_sides_are_compared(root: Path, sides: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    if sides[0].startswith("run"):
        runs = as_rows(root / "gleaner.db", "SELECT DISTINCT run_id FROM responses ORDER BY id")
        sides = (f"run:{runs[0][0]}", f"run:{runs[1][0]}")
    assert run(root, "--compare", *sides, "--json") == 0
    found = json.loads(capsys.readouterr().out)["result"]
    assert (found["total"]["only_a"], found["total"]["both"], found["total"]["only_b"]) == (3, 1, 2)
    assert {row["key"]: row["both"] for row in found["rows"]}["vk.com"] == 1
    for form in ("text", "csv", "markdown"):
        assert run(root, "--compare", *sides, "--format", form, "--top", 2) == 0
        assert "vk.com" in capsys.readouterr().out or form


@pytest.mark.parametrize("by", counts.KEYS)
def test_two_sides_are_compared_by_every_key(root: Path, by: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root, "--compare", "bridge", "tower", "--by", by, "--json") == 0
    found = json.loads(capsys.readouterr().out)["result"]
    assert (found["total"]["only_a"], found["total"]["both"], found["total"]["only_b"]) == (3, 1, 2)
    rows = {row["key"]: (row["only_a"], row["both"], row["only_b"]) for row in found["rows"]}
    if by == "query":  # what both found stands under both
        assert rows == {"yandex: bridge": (3, 1, 0), "yandex: tower": (0, 1, 2)}
    if by == "family":
        assert rows == {"(no family)": (2, 0, 2), "VK": (1, 1, 0)}


def test_a_picture_that_two_names_choose_counts_once(root: Path, tmp_path: Path, capsys) -> None:
    names = ["example.org", "www.example.org", "a.www.example.org"]
    for more in ([], ["--dry-run"]):
        capsys.readouterr()
        assert step.main(["--extract", *names, "--to", str(tmp_path / "x.db"), "--workspace", str(root), *more]) == 0
        assert ": 3 pictures in" in capsys.readouterr().err


def test_an_extract_is_a_database_of_its_own(root: Path, tmp_path: Path) -> None:
    target = tmp_path / "vk_images.db"
    before = snapshot(root / "xhr")
    assert run(root, "--extract", "VK", "www.example.org", "--to", target) == 0
    assert as_rows(target, "SELECT registrable_domain, count(*) FROM images GROUP BY 1 ORDER BY 1") == [
        ("example.org", 1),
        ("userapi.com", 1),
        ("vk.com", 1),
    ]
    assert as_rows(target, "SELECT count(*) FROM results") == [(4,)]
    assert as_rows(target, "SELECT path FROM files") == [("images/a.jpg",)]
    assert as_rows(target, "PRAGMA foreign_key_check") == []
    assert [path.name for path in tmp_path.iterdir()] == ["vk_images.db"]
    with open_database(target) as db:  # it opens as any other
        assert counts.totals(db).pictures == 3
    first = as_rows(target, "SELECT * FROM image_variants")
    run(root, "--extract", "VK", "www.example.org", "--to", target)
    assert as_rows(target, "SELECT * FROM image_variants") == first and snapshot(root / "xhr") == before


def test_a_dry_extract_and_dry_lists_write_nothing(root: Path, tmp_path: Path) -> None:
    before = snapshot(root)
    assert run(root, "--extract", "VK", "--to", tmp_path / "x.db", "--dry-run") == 0
    assert run(root, "--blocklist", tmp_path / "b.txt", "--dry-run") == 0
    assert list(tmp_path.iterdir()) == [] and snapshot(root) == before


def test_what_was_written_is_named(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: object) -> str:
        assert step.main([*map(str, arguments), "--workspace", str(root)]) == 0
        return capsys.readouterr().err

    listed, part = tmp_path / "block.txt", tmp_path / "part.db"
    told = said("--of", "example.org", "--blocklist", listed)
    assert f"blocklist: {listed}" in told and "1 blocklist name" in told
    assert f"would be written: {part}" in said("--extract", "example.org", "--to", part, "--dry-run")
    assert "no picture comes from nowhere.example" in said("--extract", "nowhere.example", "--to", part)
    assert not part.exists()
    assert f"written: {part}" in said("--extract", "example.org", "--to", part) and part.exists()


def test_lists_are_written_and_read(root: Path, tmp_path: Path) -> None:
    run(root, "--of", "VK", "Example.org", "--blocklist", tmp_path / "b.txt", "--allowlist", tmp_path / "a.txt")
    assert {"vk.com", "userapi.com", "example.org"} <= read_list(tmp_path / "b.txt")
    assert read_list(tmp_path / "a.txt") == read_list(tmp_path / "b.txt")
    run(root, "--top", 1, "--allowlist", tmp_path / "top.txt")
    assert read_list(tmp_path / "top.txt") == {"example.org"}
    written = (tmp_path / "top.txt").read_bytes()
    run(root, "--top", 1, "--allowlist", tmp_path / "top.txt")
    assert (tmp_path / "top.txt").read_bytes() == written


def test_what_a_list_says(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# about\n*.Example.org  # and below\n\nfamily:vk\n", encoding="utf-8")
    lists = read_lists(path, None)
    assert lists.refusal("img.example.org") == "blocked_domain" == lists.refusal("sun1.userapi.com")
    assert lists.refusal("myexample.org") == "" == lists.refusal("")
    assert DomainLists(allow=frozenset({"a.org"})).refusal("b.org") == "not_allowed_domain"
    assert not DomainLists() and covers(frozenset({"a.org"}), "X.A.org.")


@pytest.mark.parametrize("text", ["https://example.org/a\n", "family:nobody\n", "a b\n"])
def test_a_list_of_something_else_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError):
        read_list(tmp_path / "list.txt")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--extract", "VK"], "--to"),
        (["--extract", "nobody", "--to", "x.db"], "neither a domain nor a family"),
        (["--of", "VK"], "--blocklist"),
        (["--by", "engine", "--blocklist", "b.txt"], "--of"),
        (["--compare", "nowhere", "tower"], "no search"),
        (["--compare", "run:99", "tower"], "run 99"),
        (["--compare", "bridge", "tower", "--format", "html"], "no page"),
    ],
)
def test_what_makes_no_sense_is_one_sentence(root: Path, arguments: list[str], words: str, capsys) -> None:
    assert step.main([*arguments, "--workspace", str(root)]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


@pytest.mark.parametrize("victim", ["itself", "another workspace", "another program's"])
def test_no_other_database_is_overwritten(root: Path, tmp_path: Path, victim: str, capsys) -> None:
    """Only what an earlier --extract has written may be written anew."""
    target = tmp_path / "it.db"
    if victim == "itself":
        target = root / "gleaner.db"
    elif victim == "another workspace":
        assert ingest.main(["--import", str(urls(tmp_path)), "--workspace", str(tmp_path / "ws"), "-q"]) == 0
        target = tmp_path / "ws" / "gleaner.db"
    else:
        sqlite3.connect(target).executescript("CREATE TABLE precious (a); INSERT INTO precious VALUES (1)")
    before = target.read_bytes()
    assert step.main(["--extract", "example.org", "--to", str(target), "--workspace", str(root)]) == 2
    said = capsys.readouterr().err
    assert "give another name" in said and str(target) in said
    if victim != "itself":  # this run has a row there
        assert target.read_bytes() == before
    assert as_rows(root / "gleaner.db", "SELECT count(*) > 0 FROM images") == [(1,)]


def urls(folder: Path) -> Path:
    (folder / "urls.txt").write_text("https://a.example/1.jpg\n")
    return folder / "urls.txt"


def test_another_programs_file_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("mine")
    assert run(root, "--extract", "VK", "--to", tmp_path / "x.db") == 2
    assert (tmp_path / "x.db").read_text() == "mine"


@pytest.mark.parametrize("by", counts.KEYS)
@pytest.mark.parametrize("alike", [False, True], ids=["names of their own", "one name"])
def test_contents_are_counted_once_however_they_are_spread(root: Path, tmp_path: Path, by: str, alike: bool) -> None:
    """Beside a count by hand: contents of one picture and of many, within a group and across groups and searches."""
    shutil.copytree(root, tmp_path / "ws")
    chance = random.Random(7)
    with open_database(tmp_path / "ws/gleaner.db") as db:
        counts.prepare_for_reports(db)
        for name in "abcd":
            row = (name * 2, f"images/{name}.jpg")
            db.execute(
                "INSERT OR IGNORE INTO files (sha256, path, bytes, format, added_at) VALUES (?, ?, 9, '', '')", row
            )
        if alike:
            db.execute("UPDATE queries SET text = 'bridge', params = id")
        for (number,) in db.rows("SELECT id FROM images"):
            state = chance.choice(["done", "done", "done", "failed", "blocked", "pending"])
            content = chance.choice("abcd") * 2 if state == "done" else None
            db.execute("UPDATE downloads SET state = ?, sha256 = ? WHERE image_id = ?", (state, content, number))
        joined = " JOIN results r ON r.image_id = i.id JOIN queries q ON q.id = r.query_id" if by == "query" else ""
        rows = db.rows(
            f"SELECT {counts.KEYS[by]}, d.state, d.sha256 FROM images i JOIN downloads d ON d.image_id = i.id{joined}"
        )
        found = {group.key: (group.done, group.failed, group.files) for group in counts.groups(db, by)}
        assert found == {
            key: (
                sum(state == "done" for other, state, _ in rows if other == key),
                sum(state not in ("done", "pending") for other, state, _ in rows if other == key),
                len({content for other, _, content in rows if other == key and content}),
            )
            for key in {row[0] for row in rows}
        }  # fmt: skip


def test_samples_are_files_that_are_there_of_the_groups_that_are_asked_for(root: Path) -> None:
    with open_database(root / "gleaner.db") as db:
        assert counts.sample_paths(db, "domain", 4, {"example.org": 1, "vk.com": 2}) == {
            "example.org": ["images/a.jpg"],
            "vk.com": [],
        }
        assert counts.sample_paths(db, "domain", 4, {}) == {}


def test_no_file_is_looked_for_of_what_is_summed_up(root: Path) -> None:
    with open_database(root / "gleaner.db") as db:
        assert _sampled(make_report(db, "host", None)) == {"example.org": 1, "www.example.org": 1}
        assert _sampled(make_report(db, "host", 1)) == {}


def plan(db, sql: str) -> str:
    return "\n".join(row["detail"] for row in db.execute(f"EXPLAIN QUERY PLAN {sql}"))


def test_the_indexes_that_reports_use(root: Path) -> None:
    with open_database(root / "gleaner.db") as db:
        counts.prepare_for_reports(db)
        domains = plan(db, counts.pictures_sql("domain"))
        assert "COVERING INDEX images_by_registrable_domain" in domains and "TEMP B-TREE" not in domains
        for by in counts.KEYS:
            # Pending downloads are not even looked at, and no table is walked through for each row of another.
            outcomes = plan(db, counts.outcomes_sql(by))
            assert "SEARCH d USING INDEX downloads_by_state" in outcomes
            assert "SEARCH i USING INTEGER PRIMARY KEY" in outcomes
            assert "SCAN" not in outcomes.replace("USE TEMP B-TREE", ""), (by, outcomes)
            assert "count(DISTINCT)" not in outcomes  # it sorts all contents: most of the time of a report
            repeats = plan(db, counts.repeats_sql(by))
            assert "SEARCH downloads USING COVERING INDEX downloads_by_sha256" in repeats
            assert "SEARCH d USING INDEX downloads_by_sha256" in repeats
