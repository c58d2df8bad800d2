"""The last line of a run: the same command in earnest after a dry run, else one that works, or why there is none."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from download_support import fill, originals, rows
from hostile_server import Site
from support import ROOT, drawing, load_step

from lib.cli.following import without_options
from lib.text import command_line
from lib.workspace import Workspace

STEPS_OF = {"2": "ingest", "3": "report", "4": "cleanup", "5": "download", "6": "dedup", "7": "sort"}


@pytest.fixture(autouse=True)
def at_the_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder whose name has to be quoted, with a picture that is there twice."""
    folder = tmp_path / "my photos"
    folder.mkdir()
    for number, name in enumerate(("a.png", "b.png", "c.png", "d.png")):
        drawing(number % 3).save(folder / name)
    return folder


def said_next(said: str) -> list[str]:
    """The words of the command that a run ends with, without the interpreter; none where there is none."""
    found = re.findall(r"^next: python (.+)$", said, re.MULTILINE)
    assert len(found) <= 1, said
    return shlex.split(found[0]) if found else []


def run(capsys: pytest.CaptureFixture[str], step: str, *words: object, expect: int = 0) -> tuple[list[str], str]:
    capsys.readouterr()
    assert load_step(step).main([str(word) for word in words]) == expect
    said = capsys.readouterr().err
    return said_next(said), said


def follow(capsys: pytest.CaptureFixture[str], command: list[str], expect: int = 0) -> tuple[list[str], str]:
    """Runs a command as it was printed."""
    return run(capsys, STEPS_OF[command[0][0]], *command[1:], expect=expect)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["-n", "photos"], ["photos"]),
        (["--dry-run", "photos", "-v"], ["photos", "-v"]),
        (["-vn", "photos"], ["-v", "photos"]),
        (["-nv", "photos"], ["-v", "photos"]),
        (["photos", "--", "-n", "--dry-run"], ["photos", "--", "-n", "--dry-run"]),
        (["exact", "photos", "--protect", "a b"], ["exact", "photos", "--protect", "a b"]),
    ],
)
def test_a_switch_is_taken_out_wherever_it_stands(words: list[str], left: list[str]) -> None:
    assert without_options(load_step("dedup").build_parser(), words, {"dry_run"}) == left


def test_an_option_is_taken_out_with_its_value() -> None:
    made = load_step("dedup").build_parser()
    assert without_options(made, ["--plan", "p.json", "photos"], {"plan"}) == ["photos"]
    assert without_options(made, ["photos", "--plan=p.json", "-v"], {"plan"}) == ["photos", "-v"]


def test_words_are_quoted_for_the_shell_of_the_platform() -> None:
    assert command_line(["a b", "it's", "c"], "linux") == "'a b' 'it'\"'\"'s' c"
    assert command_line(["C:\\my photos", "c"], "win32") == '"C:\\my photos" c'


def test_a_preview_of_repeats_names_the_run_on_the_same_folders(photos: Path, tmp_path: Path, capsys) -> None:
    more = tmp_path / "more"
    more.mkdir()
    flags = ["--protect", more, "--workspace", tmp_path / "ws", "--workers", "1"]
    command, _ = run(capsys, "dedup", "exact", photos, more, "--dry-run", *flags)
    assert command == ["6_dedup.py", "exact", str(photos), str(more), *map(str, flags)]
    command, said = follow(capsys, command)
    assert "1 removed" in said
    # And that one leads to the folders again: the database has no picture of its own.
    assert command[:2] == ["7_sort_quality.py", "quality"] and str(photos) in command and "--dry-run" in command
    command, said = follow(capsys, command)
    assert "3 pictures" in said and "--dry-run" not in command
    _, said = follow(capsys, command)
    assert "3 sorted" in said


def test_a_preview_of_a_sorting_names_the_same_criterion_and_folders(photos: Path, tmp_path: Path, capsys) -> None:
    words = ["orientation", photos, "--square", "landscape", "-n", "--workspace", tmp_path / "ws"]
    command, _ = run(capsys, "sort", *words)
    assert command == ["7_sort_quality.py", *(str(word) for word in words if word != "-n")]
    _, said = follow(capsys, command)
    assert "4 sorted" in said


def test_a_setting_that_asks_for_previews_is_not_taken_out_of_the_command(
    photos, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("GLEANER_DRY_RUN", "yes")
    command, said = run(capsys, "sort", "orientation", photos, "--workspace", tmp_path / "ws")
    assert "dry run" in said and command == []


def test_a_plan_leads_to_its_application(photos: Path, tmp_path: Path, capsys) -> None:
    plan = tmp_path / "plan.json"
    words = ["exact", photos, "--plan", plan, "--workspace", tmp_path / "ws"]
    command, _ = run(capsys, "dedup", *words)
    assert command[-2:] == ["--apply", str(plan)] and "--plan" not in command and command[2] == str(photos)
    _, said = follow(capsys, command)
    assert "1 removed" in said


def test_a_preview_that_would_be_refused_names_no_run(photos: Path, tmp_path: Path, capsys) -> None:
    words = ["exact", photos, "--max-share", "1%", "-n", "--workspace", tmp_path / "ws"]
    command, said = run(capsys, "dedup", *words)
    assert "would be refused" in said and command == []


def test_a_leak_leads_to_taking_it_away(photos: Path, tmp_path: Path, capsys) -> None:
    test = tmp_path / "test"
    test.mkdir()
    drawing(1).save(test / "z.png")
    command, _ = run(capsys, "dedup", "exact", photos, test, "--leak", "--workspace", tmp_path / "ws", expect=3)
    assert command[:5] == ["6_dedup.py", "exact", str(test), "--reference", str(photos)]
    _, said = follow(capsys, command)
    assert "1 to remove" in said
    drawing(77).save(test / "z.png")
    command, _ = run(capsys, "dedup", "exact", photos, test, "--leak", "--workspace", tmp_path / "ws")
    assert command == []


def test_pictures_that_cannot_be_read_lead_nowhere_and_are_explained(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"no picture " + bytes([65 + number]) * 40)
    command, said = run(capsys, "dedup", "similar", folder, "--workspace", tmp_path / "ws")
    assert command == [] and "no picture could be compared: 3 of 3 files" in said
    for more in ([], ["--dry-run"]):
        command, said = run(capsys, "sort", "orientation", folder, *more, "--workspace", tmp_path / "ws")
        assert command == [] and "no picture could be sorted: 3 of 3 pictures" in said


def test_answers_that_cannot_be_read_lead_nowhere(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "old" / "XHR"
    folder.mkdir(parents=True)
    (folder / "0.json").write_text('{"blocks": 3}', encoding="utf-8")
    command, said = run(capsys, "ingest", "--import", folder, "--workspace", tmp_path / "ws", expect=0)
    assert command == [] and "nothing could be read: 1 of 1 failed as" in said


def test_a_folder_that_is_taken_in_leads_to_reports_that_work(photos: Path, tmp_path: Path, capsys) -> None:
    command, _ = run(capsys, "ingest", "--import-folder", photos, "--workspace", tmp_path / "ws")
    for step in ("3", "4", "4", "5"):
        assert command[0][0] == step, command
        command, _ = follow(capsys, command)


# --- step 5: a run in which nothing came


@pytest.mark.parametrize("flags", [[], ["--workers", "2"]], ids=["one", "two"])
def test_private_addresses_are_explained_and_asked_again_with_the_flag(
    workspace: Workspace, site: Site, flags, capsys
) -> None:
    fill(workspace, originals(site, *(f"/good/{n}" for n in range(4))))
    words = ["--workspace", workspace.root, *flags]
    command, said = run(capsys, "download", *words)
    assert command == [] and "4 of 4 pictures ended as private_address" in said and "--allow-private" in said
    assert {row["state"] for row in rows(workspace).values()} == {"blocked"}
    command, said = run(capsys, "download", *words)  # without it nothing is due
    assert "0 done" in said and "ended as" not in said
    command, said = run(capsys, "download", *words, "--allow-private", "-n")
    assert "4 to fetch" in said and "--allow-private" in command and "-n" not in command
    command, said = follow(capsys, command)
    assert "4 done" in said and command[:2] == ["6_dedup.py", "all"]
    _, said = run(capsys, "download", *words, "--allow-private")
    assert "0 done" in said and site.asked["/good/1"] == 1


def test_what_fails_behind_the_lifted_refusal_is_not_asked_for_ever(workspace: Workspace, site: Site, capsys) -> None:
    fill(workspace, originals(site, "/missing/1"))
    run(capsys, "download", "--workspace", workspace.root)
    for _ in range(2):
        command, _ = run(capsys, "download", "--workspace", workspace.root, "--allow-private", "--robots", "ignore")
    assert command == ["6_dedup.py", "all", "--dry-run", "--workspace", str(workspace.root)]  # nothing was due
    assert site.asked["/missing/1"] == 1


def test_one_refused_address_among_several_is_asked_with_the_flag(workspace: Workspace, site: Site, capsys) -> None:
    fill(workspace, {"test:1": [("original", site.address("/good/1")), ("thumb", "http://no.invalid/a")]})
    run(capsys, "download", "--workspace", workspace.root, "--retries", "0")
    assert rows(workspace)["test:1"]["state"] == "failed"
    run(capsys, "download", "--workspace", workspace.root, "--allow-private")
    assert rows(workspace)["test:1"]["state"] == "done"


def test_what_robots_txt_forbade_is_asked_when_it_is_not_obeyed(workspace: Workspace, site: Site, capsys) -> None:
    site.robots = "User-agent: *\nDisallow: /good"
    fill(workspace, originals(site, "/good/1", "/good/2") | {"test:noai": [("original", site.address("/noai/1"))]})
    words = ["--workspace", workspace.root, "--allow-private"]
    command, said = run(capsys, "download", *words)
    assert command == [] and "2 of 3 pictures ended as robots_txt" in said and "--robots report" in said
    command, said = run(capsys, "download", *words, "--robots", "report")
    assert "2 done" in said and command[0] == "6_dedup.py"
    assert rows(workspace)["test:noai"]["state"] == "opted_out" and site.asked["/noai/1"] == 1


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        ("/forbidden/1", [], "GLEANER_CONTACT"),
        ("/missing/1", [], "http_404."),
        ("/error/1", ["--retries", "0"], "--retry-failed http_500"),
        ("/good/1", ["--max-bytes", "10"], "--max-bytes"),
        ("/noai/1", [], "opted out"),
        ("/html/1", [], "not_an_image."),
    ],
)
def test_the_commonest_reason_is_named_with_what_helps(
    workspace: Workspace, site: Site, path: str, more: list[str], words: str, capsys
) -> None:
    fill(workspace, originals(site, path))
    command, said = run(capsys, "download", "--workspace", workspace.root, "--allow-private", *more)
    assert command == [] and "1 of 1 picture ended as" in said and words in said, said


def test_a_preview_of_nothing_names_no_run(workspace: Workspace, site: Site, capsys) -> None:
    fill(workspace, originals(site, "/missing/1"))
    run(capsys, "download", "--workspace", workspace.root, "--allow-private")
    command, said = run(capsys, "download", "--workspace", workspace.root, "--allow-private", "-n")
    assert "0 to fetch" in said and command == []


def test_only_hosts_that_failed_are_called_failing(workspace: Workspace, site: Site, capsys) -> None:
    fill(workspace, originals(site, *(f"/good/{n}" for n in range(3)), "/noai/1"))
    _, said = run(capsys, "download", "--workspace", workspace.root)
    assert "4 of 4 pictures ended as private_address" in said and "failing host" not in said  # nobody was asked
    _, said = run(capsys, "download", "--workspace", workspace.root, "--allow-private")
    assert "3 done" in said and "failing host" not in said
    fill(workspace, {"test:gone": [("original", site.address("/missing/1"))]})
    _, said = run(capsys, "download", "--workspace", workspace.root, "--allow-private")
    assert re.search(r"failing host \S+: 1 of \d requests? failed \(1 http_404\)", said), said
