"""Step 4 on real databases: what each rule takes, what it leaves, and that everything comes back."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, STEPS, as_rows, dump, load_step, run_step, snapshot
from yandex_answers import entity, key_of, make_workspace, results_page

from lib.cleanup.rules import DEFAULT_RULES, RuleSelection, is_private, make_plan, url_fault
from lib.db import Context, open_database
from lib.db.journal import start_run
from lib.db.maintenance import list_backups, make_backup
from lib.journal import RULE_NAMES
from lib.journal.rows import apply_plan, plan_to_forget, undo
from lib.workspace import Workspace

STEP = load_step("cleanup")
INGEST = load_step("ingest")
GONE = 999  # a picture that is not there
CONTENT = ("runs", "actions")  # what a cleanup and its undo may add to
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits are POSIX here")


def picture(number: int) -> int:
    """The number that the database gave to the entity `number`."""
    return number + 1


def key(number: int) -> str:
    return f"yandex:{key_of(number)}"


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """A workspace of twelve pictures with nothing wrong; gives its database."""
    database = make_workspace(tmp_path, {("q", 0, "page"): results_page([entity(number) for number in range(12)])})
    assert INGEST.main(["--workspace", str(tmp_path), "-q"]) == 0
    return database


@pytest.fixture
def dirty(clean: Path) -> Path:
    """The same with something for every rule, put in behind the database's back (foreign keys off)."""
    connection = sqlite3.connect(clean)
    add = "INSERT INTO image_variants (image_id, kind, url) VALUES (?, ?, ?)"
    for kind, url in (("preview", ""), ("dup", "http:///x"), ("dup", "ftp://a/b"), ("dup", "http://a b/c")):
        connection.execute(add, (picture(0), kind, url))
    connection.execute(add, (picture(1), "dup", "//new.example/1.jpg"))
    connection.execute(add, (picture(2), "dup", "//site2.example.org/photos/2.jpg"))
    connection.execute(add, (picture(3), "preview", "https://site3.example.org/photos/3.jpg"))
    connection.execute(add, (picture(3), "dup", "https://site3.example.org/photos/3.jpg"))
    connection.execute("DELETE FROM image_variants WHERE image_id = ?", (picture(4),))
    connection.execute("UPDATE downloads SET state = 'opted_out' WHERE image_id = ?", (picture(4),))
    connection.execute("INSERT INTO superseded (image_id, sha256) VALUES (?, 'aa')", (picture(4),))
    connection.execute("UPDATE image_variants SET url = 'no url ' || id WHERE image_id = ?", (picture(5),))
    connection.execute("DELETE FROM results WHERE image_id = ?", (picture(6),))
    connection.execute("UPDATE results SET query_id = 999 WHERE image_id = ?", (picture(7),))
    connection.execute(add, (GONE, "dup", "https://ok.example/"))
    connection.execute("INSERT INTO downloads (image_id, updated_at) VALUES (?, '')", (GONE,))
    connection.commit()
    connection.close()
    return clean


def clean_up(database: Path, *arguments: object) -> int:
    return STEP.main(["--workspace", str(database.parent), *map(str, arguments)])


def plan_of(database: Path, *arguments: object, capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, str], int]:
    capsys.readouterr()
    assert clean_up(database, "--dry-run", "--json", *arguments) == 0
    return {(row["rule"], row["table"]): row["rows"] for row in json.loads(capsys.readouterr().out)["result"]["plan"]}


def test_every_rule_takes_its_rows(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plan_of(dirty, capsys=capsys) == {
        ("broken_url", "image_variants"): 6,
        ("not_http", "image_variants"): 1,
        ("schemeless_url", "image_variants"): 2,
        ("repeated_url", "image_variants"): 2,
        ("orphan", "image_variants"): 1,
        ("orphan", "results"): 1,
        ("orphan", "downloads"): 1,
        ("no_address", "images"): 2,
        ("no_address", "results"): 2,
        ("no_address", "downloads"): 2,
        ("no_address", "superseded"): 1,
        ("no_result", "images"): 2,
        ("no_result", "image_variants"): 6,
        ("no_result", "downloads"): 2,
    }


def test_the_plan_is_what_is_done(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = plan_of(dirty, capsys=capsys)
    assert clean_up(dirty) == 0
    done = as_rows(dirty, "SELECT reason, table_name, count(*) FROM actions WHERE state = 'done' GROUP BY 1, 2")
    assert {(rule, table): rows for rule, table, rows in done} == planned
    assert as_rows(dirty, "PRAGMA foreign_key_check") == []
    assert as_rows(dirty, "SELECT count(*) FROM images") == [(8,)]
    urls = as_rows(dirty, "SELECT url FROM image_variants WHERE image_id = ? AND kind = 'dup' ORDER BY 1", picture(1))
    assert ("https://new.example/1.jpg",) in urls
    kinds = as_rows(dirty, "SELECT kind FROM image_variants WHERE image_id = ? ORDER BY id", picture(3))
    assert kinds == [("original",), ("dup",), ("thumb",)]


def test_undo_brings_everything_back(dirty: Path) -> None:
    before = dump(dirty, without=CONTENT)
    assert clean_up(dirty) == 0
    assert dump(dirty, without=CONTENT) != before
    assert clean_up(dirty, "--undo", "last", "--dry-run") == 0
    assert dump(dirty, without=CONTENT) != before
    assert clean_up(dirty, "--undo", "last") == 0
    assert dump(dirty, without=CONTENT) == before
    assert as_rows(dirty, "SELECT DISTINCT state FROM actions") == [("undone",)]
    assert clean_up(dirty, "--undo", "last") == 0
    assert dump(dirty, without=CONTENT) == before


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_each_rule_alone_can_be_undone(dirty: Path, rule: str) -> None:
    connection = sqlite3.connect(dirty)
    connection.execute(
        "UPDATE image_variants SET expires_at = '2020-01-01T00:00:00.000Z' WHERE image_id = ?", (picture(8),)
    )
    connection.execute("UPDATE image_variants SET url = 'http://10.0.0.1/' || id WHERE image_id = ?", (picture(9),))
    connection.commit()
    connection.close()
    connection = sqlite3.connect(dirty)
    connection.execute(
        "UPDATE images SET title = 'Старый каменный мост', width = 9, is_shop = 1 WHERE id = ?", (picture(7),)
    )
    tried = "SELECT json_group_array(json_object('variant', id, 'reason', 'dns_error')) FROM image_variants"
    connection.execute(f"UPDATE downloads SET state = 'failed', log = ({tried} WHERE image_id = ?) WHERE image_id = ?",
                       (picture(7), picture(7)))  # fmt: skip
    connection.execute(
        "UPDATE image_variants SET url = 'https://gone.example/' || id WHERE image_id = ?", (picture(7),)
    )
    connection.commit()
    connection.close()
    (dirty.parent / "blocked.txt").write_text("site1.example.org", encoding="utf-8")
    options = {"blocked_domain": ["--blocklist", dirty.parent / "blocked.txt"], "small_claim": ["--min-side", 10],
               "wrong_language": ["--languages", "en"]}  # fmt: skip
    before = dump(dirty, without=CONTENT)
    assert clean_up(dirty, "--rule", rule, *options.get(rule, [])) == 0
    assert as_rows(dirty, "SELECT DISTINCT reason FROM actions") == [(rule,)]
    assert clean_up(dirty, "--undo", "last") == 0
    assert dump(dirty, without=CONTENT) == before


# One address for each rule about addresses, with the options that the rule goes by.
ADDRESSES = {
    "broken_url": "no url at all",
    "not_http": "ftp://a/b",
    "schemeless_url": "//new.example/1.jpg",
    "repeated_url": "https://twice.example/1.jpg",
    "private_host": "http://10.0.0.1/1.jpg",
    "expired_url": "https://signed.example/1.jpg",
    "dead_host": "https://gone.example/1.jpg",
    "blocked_domain": "https://blocked.example/1.jpg",
}
# What else is wrong with the row's picture, so that another rule hits the same row.
OWNERS = (
    "orphan", "no_address", "no_result", "lost_search", "small_claim", "advert", "wrong_language", "blocked_page",
    "dangling",
)  # fmt: skip


def doubly_wrong(database: Path) -> list[str]:
    """Puts a picture into the database for every pair of an address that is wrong and an owner that is; gives the
    options under which all rules take what is theirs."""
    connection = sqlite3.connect(database)
    add = "INSERT INTO image_variants (image_id, kind, url, expires_at) VALUES (?, ?, ?, ?)"
    number = 5000
    for rule, url in ADDRESSES.items():
        for owner in OWNERS:
            number += 1
            if owner != "orphan":
                connection.execute(
                    "INSERT INTO images (id, key, engine, title, width, height, is_shop, domain, first_seen_at)"
                    " VALUES (?, ?, 'yandex', ?, ?, ?, ?, ?, '')",
                    (
                        *(number, f"yandex:{number}", "Старый каменный мост" * (owner == "wrong_language")),
                        *((9, 9) if owner == "small_claim" else (900, 900)),
                        *(owner == "advert", "blocked.example" if owner == "blocked_page" else "x.example"),
                    ),
                )
            expires = "2020-01-01T00:00:00.000Z" if rule == "expired_url" else ""
            for kind in ("original", "dup"):
                connection.execute(add, (number, kind, url, expires))
            if owner not in ("no_address", "orphan"):
                connection.execute(add, (number, "preview", f"https://fine.example/{number}", ""))
            if owner != "no_result":
                connection.execute(
                    "INSERT INTO results VALUES (?, ?, NULL, 0)", (1 + 998 * (owner == "lost_search"), number)
                )
            log = json.dumps([
                {"variant": row[0], "reason": "dns_error"}
                for row in connection.execute("SELECT id FROM image_variants WHERE url = ?", (ADDRESSES["dead_host"],))
            ])  # fmt: skip
            connection.execute(
                "INSERT INTO downloads (image_id, state, log, variant_id, updated_at) VALUES (?, 'failed', ?, ?, '')",
                (number, log, 77_000 if owner == "dangling" else None),
            )
            connection.execute("INSERT INTO superseded (image_id, sha256) VALUES (?, 'aa')", (number,))
    connection.execute(
        "INSERT INTO responses (id, query_id, page, part, path, fetched_at) VALUES (700, 999, 0, 'xhr', 'x', '')"
    )
    connection.commit()
    connection.close()
    blocked = database.parent / "blocked.txt"
    blocked.write_text("blocked.example", encoding="utf-8")
    return ["--blocklist", str(blocked), "--min-side", "10", "--languages", "en", "--rule", *RULE_NAMES]


def test_a_row_that_two_rules_hit_comes_back(clean: Path) -> None:
    options = doubly_wrong(clean)
    before = dump(clean, without=CONTENT)
    assert clean_up(clean, *options) == 0
    after = dump(clean, without=CONTENT)
    taken = {reason for (reason,) in as_rows(clean, "SELECT DISTINCT reason FROM actions")}
    assert taken == set(RULE_NAMES)
    assert as_rows(clean, "SELECT count(*) - count(DISTINCT table_name || payload) FROM actions") == [(0,)]
    assert {parent for _, _, parent, _ in as_rows(clean, "PRAGMA foreign_key_check")} <= {"image_variants"}
    assert clean_up(clean, "--undo", "last") == 0
    assert dump(clean, without=CONTENT) == before
    assert clean_up(clean, *options) == 0
    assert dump(clean, without=CONTENT) == after  # and leaves again as it did


@pytest.mark.parametrize("rule", RULE_NAMES)
def test_what_one_rule_takes_of_rows_that_others_hit_too_comes_back(clean: Path, rule: str) -> None:
    options = doubly_wrong(clean)
    before = dump(clean, without=CONTENT)
    assert clean_up(clean, *options[: options.index("--rule")], "--rule", rule) == 0
    assert clean_up(clean, "--undo", "last") == 0
    assert dump(clean, without=CONTENT) == before


def test_rules_one_run_after_another_and_undone_backwards(clean: Path) -> None:
    options = doubly_wrong(clean)
    flags, runs = options[: options.index("--rule")], []
    before = dump(clean, without=CONTENT)
    for rule in RULE_NAMES:
        assert clean_up(clean, *flags, "--rule", rule) == 0
        runs.append(as_rows(clean, "SELECT max(id) FROM runs")[0][0])
    for run in reversed(runs):
        assert clean_up(clean, "--undo", run) == 0
    assert dump(clean, without=CONTENT) == before


def test_undone_in_the_wrong_order_and_again_everything_is_back(clean: Path) -> None:
    options = doubly_wrong(clean)
    flags, runs = options[: options.index("--rule")], []
    before = dump(clean, without=CONTENT)
    for rule in RULE_NAMES:
        assert clean_up(clean, *flags, "--rule", rule) == 0
        runs.append(as_rows(clean, "SELECT max(id) FROM runs")[0][0])
    for run in (*runs, *runs):
        assert clean_up(clean, "--undo", run) == 0
    assert dump(clean, without=CONTENT) == before


def test_a_forgotten_search_takes_along_what_came_to_it_after_the_plan(clean: Path) -> None:
    with open_database(clean) as db:
        plan = plan_to_forget(db, 1)
        db.execute("INSERT INTO responses (query_id, page, part, path, fetched_at) VALUES (1, 50, 'xhr', 'late', '')")
        db.execute("UPDATE downloads SET state = 'done' WHERE image_id = ?", (picture(3),))
    before = dump(clean, without=CONTENT)
    with open_database(clean) as db:
        run_id = start_run(db, "cleanup", {})
        apply_plan(Context(db, Workspace(clean.parent), run_id), plan)
    assert as_rows(clean, "SELECT count(*) FROM responses") == [(0,)]
    assert as_rows(clean, "SELECT count(*) FROM images") == [(1,)]  # what has been downloaded since stays
    assert clean_up(clean, "--undo", "last") == 0
    assert dump(clean, without=CONTENT) == before


def test_an_address_that_was_downloaded_from_after_the_plan_stays(dirty: Path) -> None:
    with open_database(dirty) as db:
        run_id = start_run(db, "cleanup", {})
        plan = make_plan(db, RuleSelection(("broken_url", "repeated_url")))
        taken = [key[0] for table, key in plan.changes if table == "image_variants"]
        owner = db.value("SELECT image_id FROM image_variants WHERE id = ?", (taken[0],))
        db.execute("UPDATE downloads SET state = 'done', variant_id = ? WHERE image_id = ?", (taken[0], owner))
        apply_plan(Context(db, Workspace(dirty.parent), run_id), plan)
        assert db.value("SELECT variant_id FROM downloads WHERE image_id = ?", (owner,)) == taken[0]
        assert db.value("SELECT count(*) FROM image_variants WHERE id = ?", (taken[0],)) == 1


def test_nothing_to_do_makes_no_backup(clean: Path) -> None:
    before = dump(clean)
    assert clean_up(clean) == 0
    assert dump(clean) == before
    assert not (clean.parent / "backups").exists()


def test_a_second_run_changes_nothing(dirty: Path) -> None:
    clean_up(dirty)
    before, files = dump(dirty), snapshot(clean_folder(dirty))
    clean_up(dirty)
    assert dump(dirty) == before
    assert snapshot(clean_folder(dirty)) == files


def clean_folder(database: Path) -> Path:
    return database.parent / "backups"


@pytest.mark.parametrize("arguments", [[], ["--rule", "no_result"], ["--undo", "last"], ["--keep", "1"]])
def test_a_dry_run_touches_nothing(dirty: Path, arguments: list[str]) -> None:
    clean_up(dirty, "--rule", "broken_url")
    before = snapshot(dirty.parent)
    assert clean_up(dirty, "--dry-run", *arguments) == 0
    assert snapshot(dirty.parent) == before


def test_a_downloaded_picture_stays_whatever_is_wrong(dirty: Path) -> None:
    connection = sqlite3.connect(dirty)
    connection.execute("UPDATE downloads SET state = 'done'")
    connection.execute(
        "UPDATE downloads SET variant_id = (SELECT id FROM image_variants WHERE url = '' LIMIT 1) WHERE image_id = ?",
        (picture(0),),
    )
    connection.commit()
    connection.close()
    clean_up(dirty)
    assert as_rows(dirty, "SELECT count(*) FROM images") == [(12,)]
    assert as_rows(dirty, "SELECT url FROM image_variants JOIN downloads ON variant_id = image_variants.id") == [("",)]


def test_a_picture_downloaded_after_the_plan_stays(dirty: Path) -> None:
    with open_database(dirty) as db:
        run_id = start_run(db, "cleanup", {})
        plan = make_plan(db, RuleSelection(DEFAULT_RULES))
        db.execute("UPDATE downloads SET state = 'done' WHERE image_id = ?", (picture(6),))
        db.execute(
            "INSERT INTO image_variants (image_id, kind, url) VALUES (?, 'dup', 'https://late.example/')", (picture(4),)
        )
        apply_plan(Context(db, Workspace(dirty.parent), run_id), plan)
    assert as_rows(dirty, "SELECT count(*) FROM images WHERE id IN (?, ?)", picture(6), picture(4)) == [(2,)]
    assert as_rows(dirty, "SELECT count(*) FROM image_variants WHERE image_id = ?", picture(6)) == [(3,)]


def test_undo_out_of_order_says_so_and_can_be_finished(dirty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dump(dirty, without=CONTENT)
    clean_up(dirty, "--rule", "repeated_url")
    first = as_rows(dirty, "SELECT max(run_id) FROM actions")[0][0]
    connection = sqlite3.connect(dirty)
    connection.execute("DELETE FROM results WHERE image_id = ?", (picture(3),))
    connection.commit()
    connection.close()
    lacking = dump(dirty, without=CONTENT)
    clean_up(dirty, "--rule", "no_result")
    capsys.readouterr()
    assert clean_up(dirty, "--undo", first) == 0
    assert "undo that run first" in capsys.readouterr().err
    clean_up(dirty, "--undo", "last")
    assert dump(dirty, without=CONTENT) == lacking
    clean_up(dirty, "--undo", first)
    restored = dump(dirty, without=CONTENT)
    assert {table: rows for table, rows in restored.items() if table != "results"} == {
        table: rows for table, rows in before.items() if table != "results"
    }


def test_undo_where_the_row_has_come_back_by_itself(dirty: Path) -> None:
    clean_up(dirty, "--rule", "no_result")
    connection = sqlite3.connect(dirty)
    connection.execute(
        "INSERT INTO images (id, key, engine, title, first_seen_at) VALUES (500, ?, 'yandex', 'found again', '')",
        (key(6),),
    )
    top = connection.execute("SELECT max(id) FROM image_variants").fetchone()[0]
    connection.execute(
        "INSERT INTO image_variants (id, image_id, kind, url) VALUES (?, 500, 'dup', 'https://n/')", (top + 1,)
    )
    connection.commit()
    connection.close()
    with open_database(dirty) as db:
        run_id = as_rows(dirty, "SELECT max(run_id) FROM actions")[0][0]
        assert undo(Context(db, Workspace(dirty.parent)), run_id)["there_again"] == 1
    assert as_rows(dirty, "SELECT id, title FROM images WHERE key = ?", key(6)) == [(500, "found again")]
    assert as_rows(dirty, "SELECT count(*) FROM image_variants WHERE image_id = 500") == [(4,)]


def test_the_number_of_a_row_may_have_been_given_away(dirty: Path) -> None:
    clean_up(dirty, "--rule", "not_http")
    (payload,) = as_rows(dirty, "SELECT payload FROM actions")[0]
    taken = json.loads(payload)["id"]
    connection = sqlite3.connect(dirty)
    connection.execute(
        "INSERT INTO image_variants (id, image_id, kind, url) VALUES (?, ?, 'dup', 'https://n/')", (taken, picture(8))
    )
    connection.commit()
    connection.close()
    clean_up(dirty, "--undo", "last")
    assert as_rows(dirty, "SELECT image_id FROM image_variants WHERE url = 'ftp://a/b'") == [(picture(0),)]
    assert as_rows(dirty, "SELECT image_id FROM image_variants WHERE url = 'https://n/'") == [(picture(8),)]


@pytest.mark.parametrize("wrong", ["7777", "1"])
def test_undo_of_another_steps_run_is_refused(dirty: Path, wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert clean_up(dirty, "--undo", wrong) == 2
    assert "is no run of this step" in capsys.readouterr().err


def test_the_backup_is_the_database_before(dirty: Path) -> None:
    before = dump(dirty, without=CONTENT)
    clean_up(dirty)
    (backup,) = list_backups(dirty.parent / "backups")
    assert as_rows(backup, "PRAGMA integrity_check") == [("ok",)]
    assert dump(backup, without=CONTENT) == before
    assert [path.name for path in backup.parent.iterdir()] == [backup.name]


def test_old_backups_make_room_for_new_ones(clean: Path) -> None:
    folder = clean.parent / "backups"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with open_database(clean) as db:
        made = [make_backup(db, folder, keep=3) for _ in range(5)]
    assert list_backups(folder) == list(reversed(made[2:]))
    assert (folder / "notes.txt").exists()


def test_too_early_names_the_step_to_run_first(tmp_path: Path) -> None:
    done = run_step("cleanup", "--workspace", tmp_path / "none")
    assert done.returncode == 2
    assert "run 1_collect.py first" in done.stderr
    assert not (tmp_path / "none").exists()


def test_the_rules_are_listed_without_a_workspace(tmp_path: Path) -> None:
    done = run_step("cleanup", "--list-rules", "--workspace", tmp_path / "none")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(RULE_NAMES)


@pytest.mark.parametrize("arguments", [["--list-rules", "--json"], ["--json", "--list-rules"]])
def test_the_rules_are_listed_as_json(tmp_path: Path, arguments: list[str]) -> None:
    done = run_step("cleanup", *arguments, "--workspace", tmp_path / "none")
    assert done.returncode == 0
    rules = json.loads(done.stdout)["result"]["rules"]
    assert [rule["name"] for rule in rules] == list(RULE_NAMES)
    assert {rule["name"] for rule in rules if rule["by_default"]} >= {"broken_url", "not_http"}
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments", [["--rule", "nonsense"], ["--keep", "0"], ["--undo", "first"], ["--rule"]])
def test_wrong_usage(clean: Path, arguments: list[str]) -> None:
    done = run_step("cleanup", "--workspace", clean.parent, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_damaged_database_is_one_sentence_and_stays_as_it_is(dirty: Path) -> None:
    as_rows(dirty, "PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(dirty.read_bytes())
    page = int.from_bytes(raw[16:18], "big")
    raw[page * 2 :] = b"\xa5" * (len(raw) - page * 2)
    dirty.write_bytes(raw)
    done = run_step("cleanup", "--workspace", dirty.parent)
    assert done.returncode == 1
    assert "damaged" in done.stderr
    assert "Traceback" not in done.stderr


def _fits(megabytes: float) -> Any:
    """No file of the child may grow beyond this: what a full disk is to SQLite."""
    import resource  # POSIX only

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 2**20),) * 2)


@POSIX
def test_no_room_for_the_backup_leaves_everything_as_it_was(dirty: Path) -> None:
    before = dump(dirty)
    done = subprocess.run(
        [sys.executable, str(ROOT / STEPS["cleanup"]), "--workspace", str(dirty.parent)],
        capture_output=True, text=True, preexec_fn=_fits(0.1),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert dump(dirty) == before
    assert list((dirty.parent / "backups").iterdir()) == []
    assert clean_up(dirty) == 0


@POSIX
@pytest.mark.parametrize("moment", ["backup", "journal", "end"])
def test_killed_it_leaves_all_or_nothing(tmp_path: Path, moment: str) -> None:
    entities = [entity(number) for number in range(2_000)]
    for number, found in enumerate(entities):
        found["viewerData"]["dups"] = [{"url": f"ftp://old.example/{number}/{n}"} for n in range(5)]
    database = make_workspace(tmp_path, {("q", 0, "page"): results_page(entities)})
    INGEST.main(["--workspace", str(tmp_path), "-q"])
    before = dump(database, without=CONTENT)
    command = [sys.executable, str(ROOT / STEPS["cleanup"]), "--workspace", str(tmp_path), "-q"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    reached = {
        "backup": lambda: any((tmp_path / "backups").glob(".*.part")),
        "journal": lambda: bool(list_backups(tmp_path / "backups")),
        "end": lambda: as_rows(database, "SELECT count(*) FROM actions")[0][0] > 0,
    }[moment]
    while process.poll() is None and not reached():
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert as_rows(database, "PRAGMA integrity_check") == [("ok",)]
    removed = as_rows(database, "SELECT count(*) FROM actions")[0][0]
    assert removed in (0, 10_000)
    if not removed:
        assert dump(database, without=CONTENT) == before
    assert clean_up(database, "-q") == 0
    assert as_rows(database, "SELECT count(*) FROM image_variants WHERE url LIKE 'ftp%'") == [(0,)]
    assert clean_up(database, "--undo", "last", "-q") == 0
    assert dump(database, without=CONTENT) == before


@pytest.mark.parametrize(
    ("url", "rule", "reason"),
    [
        ("https://example.org/a.jpg", "", ""),
        ("HTTP://EXAMPLE.ORG", "", ""),
        ("http://[::1]:80/x", "", ""),
        ("http://u:p@host/x", "", ""),
        ("https://кто.рф/ж", "", ""),
        ("https://a.example/ä,b%20c", "", ""),
        ("", "broken_url", "empty"),
        ("  ", "broken_url", "empty"),
        ("http://", "broken_url", "no_host"),
        ("http:///x", "broken_url", "no_host"),
        ("https://?q", "broken_url", "no_host"),
        ("http://:80/", "broken_url", "no_host"),
        ("http://user@/", "broken_url", "no_host"),
        ("http://a b/", "broken_url", "blank_or_control_character"),
        ("http://a/\x00", "broken_url", "blank_or_control_character"),
        ("http://a/\nb", "broken_url", "blank_or_control_character"),
        ("a.example/x.jpg", "broken_url", "no_scheme"),
        ("/images/x", "broken_url", "no_scheme"),
        ("http:/a/b", "not_http", "scheme_http"),
        ("data:image/png;base64,AA", "not_http", "scheme_data"),
        ("FTP://a/b", "not_http", "scheme_ftp"),
        ("javascript:alert(1)", "not_http", "scheme_javascript"),
        ("//a.example/b", "schemeless_url", "no_scheme"),
    ],
)
def test_what_is_wrong_with_an_address(url: str, rule: str, reason: str) -> None:
    assert url_fault(url) == (rule, reason)


def test_the_search_finds_every_faulty_address(clean: Path) -> None:
    faulty = [
        "",
        " ",
        "http://",
        "http:///x",
        "https://?q",
        "http://:80/",
        "http://a b/",
        "http://a/\x00b",
        "http://a/\n",
    ]
    faulty += ["x", "data:x", "//a/b", "http://a/\x7f", "http:/a"]
    fine = ["HTTP://A/", "https://кто.рф/", "http://[::1]/", "http://9.example/"]
    with open_database(clean) as db:
        for url in faulty + fine:
            db.execute("INSERT INTO image_variants (image_id, kind, url) VALUES (?, 'dup', ?)", (picture(1), url))
        found = {change.shown for change in make_plan(db, RuleSelection()).changes.values()}
    assert found == set(faulty)


def test_private_hosts() -> None:
    private = [
        "http://127.0.0.1/",
        "http://10.1.2.3:8/",
        "https://[fe80::1]/",
        "http://localhost/",
        "http://nas.local/x",
        "http://intranet/x",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f.0.0.1/",
        "http://017700000001/",
        "http://224.0.0.1/",
        "http://[::ffff:10.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
    ]
    public = [
        "https://example.org/",
        "http://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "http://134744072/",
        "https://0x.example/",
        "https://local.example.org/",
        "x",
    ]
    assert [is_private(url) for url in private + public] == [True] * len(private) + [False] * len(public)
