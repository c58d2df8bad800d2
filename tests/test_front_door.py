"""The front door, `reports/index.html`: what it says of the steps, who refreshes it, and who links to it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from support import ROOT, drawing, load_step, snapshot
from yandex_answers import entity, make_workspace, xhr

from lib.db import open_database
from lib.db.journal import finish_run, start_run
from lib.db.overview import overview
from lib.pages import index as front_door
from lib.pages.model import Bucket, Heading
from lib.pages.render import write_page
from lib.pages.reports import render_contact_sheet

ingest, report, cleanup, dedup, sort = map(load_step, ("ingest", "report", "cleanup", "dedup", "sort"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_workspace(tmp_path / "ws", {("boat", 0, "xhr"): xhr([entity(n) for n in range(4)])}).parent


def run(step: object, root: Path, *arguments: str) -> int:
    return step.main([*arguments, "--workspace", str(root), "-q"])  # type: ignore[attr-defined]


def shown(root: Path) -> str:
    html = (root / "reports" / "index.html").read_text(encoding="utf-8")
    body = html[html.index("<main") :].partition("<script>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body))


def states(root: Path) -> dict[str, tuple[str, int]]:
    with open_database(root / "gleaner.db") as db:
        return {step.step: (step.state, step.due) for step in overview(db).steps}


def test_every_step_brings_it_up_to_date(root: Path) -> None:
    assert run(ingest, root) == 0
    text = shown(root)
    assert (
        "2 Ingest done 4 different results" in text
        and "5 Download never run, 4 pictures due python 5_download.py" in text
    )
    assert "Next python 3_domain_report.py" in text, "the first step behind those that were done"
    assert f"--workspace {root}" in text, "a command that works as it stands"
    assert run(report, root) == 0
    assert "3 Report done 1 domain " in shown(root) and "Where the pictures come from" in shown(root)


def test_a_run_that_changes_nothing_leaves_it_as_it_is(root: Path) -> None:
    for step, words in ((ingest, []), (report, []), (cleanup, [])):
        run(step, root, *words)
    index = root / "reports" / "index.html"
    before, stamp = index.read_bytes(), index.stat().st_mtime_ns
    for step in (ingest, report, cleanup, report):
        assert run(step, root) == 0
    assert index.read_bytes() == before and index.stat().st_mtime_ns == stamp


def test_dry_runs_and_refused_runs_do_not_touch_it(root: Path, tmp_path: Path) -> None:
    run(ingest, root)
    before = snapshot(root / "reports")
    os.utime(root / "reports" / "index.html", (1, 1))
    assert run(cleanup, root, "--dry-run") == 0
    assert run(report, root, "--compare", "none", "such") == 2
    assert snapshot(root / "reports") == before and (root / "reports" / "index.html").stat().st_mtime == 1


def test_no_run_fails_because_of_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(front_door, "write_page", broken)
    assert run(ingest, root) == 0 and not (root / "reports" / "index.html").exists()
    (root / "reports").mkdir()
    (root / "reports" / "index.html").mkdir()  # a folder of that name cannot be written over
    monkeypatch.undo()
    assert run(report, root) == 0


CASES = [
    (0, {}, "done"),
    (3, {}, "done"),
    (1, {}, "failed"),
    (4, {}, "stopped by the site"),
    (130, {}, "interrupted"),
    (0, {"undo": "last"}, "taken back"),
    (2, {}, "never run"),
]


@pytest.mark.parametrize(("code", "arguments", "state"), CASES)
def test_the_state_of_a_step_is_how_its_last_run_ended(root: Path, code: int, arguments: dict, state: str) -> None:
    with open_database(root / "gleaner.db") as db:
        finish_run(db, start_run(db, "cleanup", arguments), code, {})
    assert states(root)["cleanup"][0] == state


def test_a_killed_run_is_interrupted_and_a_living_one_is_running(root: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lib.db import open_database; from lib.db.journal import start_run\n"
        "start_run(open_database(Path(sys.argv[1])), 'dedup', {'mode': 'exact'}); print('begun', flush=True)\n"
        "sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(root / "gleaner.db")],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        assert child.stdout and child.stdout.readline() == "begun\n"
        assert states(root)["dedup"][0] == "running"
        child.send_signal(signal.SIGTERM)
        child.wait()
    assert states(root)["dedup"][0] == "interrupted"
    run(ingest, root)
    assert "Next python 6_dedup.py exact " in shown(root), "what broke off comes first, with its mode"


def test_what_is_due_is_counted_in_rows(root: Path) -> None:
    assert states(root)["ingest"] == ("never run", 1)
    run(ingest, root)
    assert states(root)["ingest"] == ("done", 0) and states(root)["download"] == ("never run", 4)
    with open_database(root / "gleaner.db") as db:
        finish_run(db, start_run(db, "download", {}), 0, {})
        db.execute("UPDATE downloads SET state = 'failed' WHERE image_id = 1")
    assert states(root)["download"] == ("waiting", 3)


def test_datasets_and_a_few_pictures_stand_on_it(tmp_path: Path) -> None:
    folder, root = tmp_path / "photos", tmp_path / "ws"
    folder.mkdir()
    for seed in range(3):
        drawing(seed).save(folder / f"{seed}.png")
    assert run(ingest, root, "--import-folder", str(folder)) == 0
    html = (root / "reports" / "index.html").read_text(encoding="utf-8")
    assert html.count("<li data-content=") == 3 and html.count('src="data:image/jpeg') == 3
    assert run(sort, root, "export", "--to", str(tmp_path / "cats")) == 0
    assert re.search(r"Datasets cats imagefolder, 3 pictures \d{4}-\d\d-\d\d", shown(root))
    assert 'href="./../../cats"' in (root / "reports" / "index.html").read_text(encoding="utf-8")
    assert run(sort, root, "--undo", "last", "export") == 0
    assert "imagefolder" not in shown(root)


def test_pages_link_home_where_there_is_a_home(root: Path, tmp_path: Path) -> None:
    brand = re.compile(r'<p class="brand"><a href="([^"]*)">Gleaner</a></p>')
    run(ingest, root)
    run(report, root)
    assert brand.search((root / "reports" / "domains.html").read_text(encoding="utf-8"))[1] == "./index.html"  # type: ignore[index]
    assert not brand.search((root / "reports" / "index.html").read_text(encoding="utf-8")), "no link to itself"
    page = root / "elsewhere" / "sheet.html"
    found = brand.search(render_contact_sheet(page, Heading("x"), [Bucket("a")], []))
    assert found and found[1] == "./../reports/index.html"
    page = tmp_path / "outside" / "sheet.html"
    assert not brand.search(render_contact_sheet(page, Heading("x"), [Bucket("a")], []))


def test_a_page_that_says_nothing_of_itself_is_listed_all_the_same(root: Path) -> None:
    (root / "reports").mkdir()
    (root / "reports" / "notes.html").write_text("<p>by hand</p>")
    write_page(root / "reports" / "cut.html", '<meta name="gleaner-cards" content="[[1">')
    run(ingest, root)
    assert "Notes" in shown(root) and "Cut" in shown(root)


def following(root: Path) -> list[str]:
    """The words of the command that the page says is next; none where it says nothing."""
    html = (root / "reports" / "index.html").read_text(encoding="utf-8")
    found = re.search(r'id="next-title">.*?<code>(.*?)</code>', html, re.DOTALL)
    return shlex.split(unescape(found[1])) if found else []


def printed_commands(root: Path) -> list[list[str]]:
    html = (root / "reports" / "index.html").read_text(encoding="utf-8")
    return [shlex.split(unescape(one)) for one in re.findall(r"<code[^>]*>(python .*?)</code>", html, re.DOTALL)]


@pytest.fixture
def sorted_root(tmp_path: Path) -> Path:
    """A workspace of a folder of pictures that is deduplicated and sorted."""
    folder, root = tmp_path / "photos", tmp_path / "ws"
    folder.mkdir()
    for seed in range(3):
        drawing(seed).save(folder / f"{seed}.png")
    assert run(ingest, root, "--import-folder", str(folder)) == 0
    assert run(dedup, root, "exact") == 0
    assert run(sort, root, "megapixels", "--edges", "1,2") == 0
    return root


def test_the_export_is_next_once_everything_is_sorted_until_there_is_one(sorted_root: Path, tmp_path: Path) -> None:
    words = following(sorted_root)
    assert words[2:] == ["export", "--as", "imagefolder", "--workspace", str(sorted_root)]
    assert "This makes a dataset of the pictures that were kept." in shown(sorted_root)
    assert sort.main([*words[2:], "-q"]) == 0, "it runs as it stands"
    assert following(sorted_root) == [] and "This makes a dataset" not in shown(sorted_root)


def test_new_pictures_are_due_for_the_criterion_that_was_sorted_by(sorted_root: Path, tmp_path: Path) -> None:
    (more := tmp_path / "more").mkdir()
    drawing(9).save(more / "9.png")
    assert run(ingest, sorted_root, "--import-folder", str(more)) == 0
    # Neither an export nor a look at another folder has sorted it.
    assert run(sort, sorted_root, "export", "--to", str(tmp_path / "set")) == 0
    assert run(dedup, sorted_root, "exact", str(more)) == 0
    assert states(sorted_root)["sort"] == states(sorted_root)["dedup"] == ("waiting", 1)
    commands = {words[1].rpartition("/")[2]: words[2:] for words in printed_commands(sorted_root)}
    tail = ["--workspace", str(sorted_root)]
    assert commands["6_dedup.py"] == ["exact", *tail]
    assert commands["7_sort_quality.py"] == ["megapixels", "--edges", "1,2", *tail]
    for step, name in ((dedup, "6_dedup.py"), (sort, "7_sort_quality.py")):
        assert step.main([*commands[name], "-q"]) == 0
    assert states(sorted_root)["sort"] == states(sorted_root)["dedup"] == ("done", 0)


def test_a_criterion_that_is_taken_back_is_counted_no_more(sorted_root: Path) -> None:
    assert "7 Sort done 1 criterion" in shown(sorted_root)
    assert run(sort, sorted_root, "--undo", "last") == 0
    assert "7 Sort taken back" in shown(sorted_root) and "1 criterion" not in shown(sorted_root)


@pytest.mark.parametrize(
    "words",
    [
        ["export", "--as", "parquet", "--title", "Lakes & 'hills'"],
        ["filter", "--keep", "an indoor room", "--drop", "a street"],
        ["--undo", "last"],
    ],
)
def test_what_broke_off_goes_on_with_the_words_that_began_it(
    sorted_root: Path, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sort, "work", broken)
        assert sort.main([*words, "--workspace", str(sorted_root), "--json", "-q"]) == 130
    assert states(sorted_root)["sort"][0] == "interrupted" and "7 Sort interrupted" in shown(sorted_root)
    assert following(sorted_root)[2:] == [*words, "--workspace", str(sorted_root)]


def test_no_password_of_a_command_line_is_kept_in_its_words(sorted_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(sort, "work", broken)
    secret = ["--vlm-url", "http://ann:s3cret@127.0.0.1:9/v1", "--vlm-model", "x", "--subject", "lakes"]
    assert run(sort, sorted_root, "vlm", *secret) == 1
    with open_database(sorted_root / "gleaner.db") as db:
        kept = " ".join(row[0] for row in db.execute("SELECT arguments FROM runs WHERE step = 'sort'"))
    assert "megapixels" in kept and "vlm" in kept and "s3cret" not in kept
    assert states(sorted_root)["sort"][0] == "failed" and "***" not in shown(sorted_root)
    assert following(sorted_root)[2] == "quality", "what cannot be typed again is not printed"
