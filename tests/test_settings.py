"""A settings file sets what is harmless and nothing else; whatever it is, it ends in one sentence."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

import pytest
from support import ROOT, STEPS, load_step, snapshot

from lib.cli.settings import ENVIRONMENT, FILE, INSIDE, NAME, PREFIX, REFUSED_VALUES, SETTABLE, SPOT

MODULES = {name: load_step(name) for name in STEPS}


def flags_of(parser: argparse.ArgumentParser) -> dict[str, argparse.Action]:
    return {
        option[2:]: action
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and not option.startswith("--no-")
    }


def run(step: str, workspace: Path, *arguments: str) -> int:
    return MODULES[step].main(["--workspace", str(workspace), *arguments])


def sentence(capsys: pytest.CaptureFixture[str]) -> str:
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ") and "\n" not in said and "Traceback" not in said, said
    return said


@pytest.mark.parametrize("step", STEPS)
def test_every_flag_is_decided_about(step: str) -> None:
    """A new flag fails here until somebody has said where it may be set."""
    flags = flags_of(MODULES[step].build_parser())
    assert not flags.keys() - SETTABLE[step].keys(), "say in lib/cli/settings.py where these may be set"
    gone = SETTABLE[step].keys() - flags.keys() - {"limit", "workers", "executor", "undo", "dry-run"}
    assert not gone, "these are no flags any more"
    assert set(SETTABLE[step].values()) <= {FILE, INSIDE, NAME, ENVIRONMENT, SPOT}


ACTS = {
    "collect": "expand i-am-allowed replay retry yes",
    "ingest": "import import-folder repair reparse rescan undo",
    "report": "allowlist blocklist extract to",
    "cleanup": "forget-query keep reset restore undo vacuum yes",
    "download": "allow-private refresh retry-failed to undo upgrade",
    "dedup": "apply decisions max-share plan purge link undo",
    "sort": "replace to undo vlm-key-env vlm-url",
}


@pytest.mark.parametrize("step", STEPS)
def test_what_acts_or_leads_out_is_no_setting(step: str) -> None:
    for name in ACTS[step].split():
        assert SETTABLE[step][name] in (SPOT, ENVIRONMENT), name
    for name in "undo yes restore reset purge apply repair reparse replace retry replay vacuum".split():
        assert SETTABLE[step].get(name, SPOT) == SPOT, name


REFUSED = [
    ("cleanup", 'reset = "everything"\nyes = "workspace"', "reset"),
    ("cleanup", 'restore = "last"', "restore"),
    ("cleanup", "vacuum = true", "vacuum"),
    ("cleanup", "forget_query = 1", "forget-query"),
    ("download", "allow_private = true", "allow-private"),
    ("download", 'robots = "ignore"', "robots"),
    ("download", 'robots = "report"', "robots"),
    ("download", 'to = "s3://elsewhere/x"', "to"),
    ("download", "retry-failed = true", "retry-failed"),
    ("download", 'blocklist = "/etc/passwd"', "blocklist"),
    ("download", 'placeholders = "../mine.toml"', "placeholders"),
    ("dedup", 'purge = "last"', "purge"),
    ("dedup", 'apply = "plan.json"', "apply"),
    ("dedup", 'max-share = "100%"', "max-share"),
    ("dedup", 'clip-model = "/tmp"', "clip-model"),
    ("sort", 'vlm_url = "http://elsewhere.example/v1"', "vlm-url"),
    ("sort", 'vlm-key-env = "AWS_SECRET_ACCESS_KEY"', "vlm-key-env"),
    ("sort", 'to = "elsewhere"', "to"),
    ("sort", 'mode = "move"', "mode"),
    ("collect", 'images = ["/home"]', "images"),
    ("collect", "i_am_allowed = true", "i-am-allowed"),
    ("ingest", 'import = "list.txt"', "import"),
    ("ingest", "repair = true", "repair"),
    ("report", 'to = "x.db"\nextract = ["VK"]', "to"),
]


@pytest.mark.parametrize("top", [False, True], ids=["table", "top"])
@pytest.mark.parametrize(("step", "lines", "name"), REFUSED, ids=[f"{case[0]}-{case[2]}" for case in REFUSED])
def test_a_settings_file_cannot_act(
    step: str, lines: str, name: str, top: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "gleaner.toml").write_text(lines if top else f"[{step}]\n{lines}")
    before = snapshot(tmp_path)
    assert run(step, tmp_path) == 2
    said = sentence(capsys)
    assert f"--{name}" in said and ("command line" in said or "may not; give" in said)
    assert snapshot(tmp_path) == before


def test_the_table_of_another_step_is_looked_at_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gleaner.toml").write_text('[cleanup]\nreset = "everything"\nyes = "workspace"\n')
    assert run("report", tmp_path) == 2
    assert "reset for cleanup" in sentence(capsys)


def test_a_misspelt_option_at_the_top_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gleaner.toml").write_text("wrokers = 3\n")
    assert run("report", tmp_path) == 2
    assert "'wrokers'" in sentence(capsys)


@pytest.mark.parametrize(
    ("step", "name", "value"),
    [(step, name, value) for (step, name), values in REFUSED_VALUES.items() for value in values],
)
def test_the_environment_may_choose_what_a_file_may_not(
    step: str, name: str, value: str, tmp_path, monkeypatch
) -> None:
    from lib.cli import parse

    monkeypatch.setenv(PREFIX + name.upper(), value)
    words = ["orientation"] if step == "sort" else []
    assert getattr(parse(MODULES[step].build_parser(), ["--workspace", str(tmp_path), *words]), name) == value


@pytest.mark.parametrize(
    ("step", "variable", "value"),
    [
        ("cleanup", "GLEANER_RESET", "everything"),
        ("cleanup", "GLEANER_YES", "workspace"),
        ("cleanup", "GLEANER_UNDO", "last"),
        ("cleanup", "GLEANER_RESTORE", "last"),
        ("dedup", "GLEANER_PURGE", "last"),
        ("dedup", "GLEANER_APPLY", "plan.json"),
        ("ingest", "GLEANER_REPAIR", "1"),
        ("sort", "GLEANER_REPLACE", "1"),
    ],
)
def test_what_acts_is_not_taken_from_the_environment(
    step: str, variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setenv(variable, value)
    assert run(step, tmp_path) == 2
    assert variable in sentence(capsys)
    assert snapshot(tmp_path) == {}


def test_what_is_harmless_is_taken(tmp_path: Path) -> None:
    from lib.cli import parse

    (tmp_path / "blocked.txt").write_text("ads.example\n")
    (tmp_path / "gleaner.toml").write_text(
        f'workers = 3\n[download]\nrobots = "obey"\nper_host = 2\nblocklist = "{tmp_path / "blocked.txt"}"\n'
        '[sort]\nmode = "hardlink"\nkeep = ["a cat"]\nclip-model = "multilingual"\nwhere = "quality = high"\n'
    )
    got = parse(MODULES["download"].build_parser(), ["--workspace", str(tmp_path)])
    assert (got.workers, got.robots, got.per_host, got.blocklist) == (3, "obey", 2, tmp_path / "blocked.txt")
    got = parse(MODULES["sort"].build_parser(), ["--workspace", str(tmp_path), "filter"])
    assert (got.mode, got.keep, got.clip_model, got.where) == ("hardlink", ["a cat"], "multilingual", "quality = high")


ODD_TEXTS = {
    "nested lists": b"a = " + b"[" * 20_000,
    "nested closed lists": b"[sort]\nkeep = " + b"[" * 300 + b"]" * 300,
    "dotted": b".".join([b"a"] * 100_000) + b" = 1",
    "dotted and quoted": b" . ".join([b'"a"'] * 40_000) + b" = 1",
    "dotted within": b"a = {" + b".".join([b"a"] * 100_000) + b" = 1}",
    "dotted table": b"[" + b".".join([b"sort"] * 40_000) + b"]\n",
    "digits": b"workers = " + b"9" * 20_000,
    "hexadecimal": b"workers = 0x" + b"f" * 20_000,
    "hexadecimal list": b"[sort]\nkeep = [0x" + b"f" * 20_000 + b"]",
    "hexadecimal word": b"[sort]\nwhere = 0x" + b"f" * 20_000,
    "float": b"workers = 1e999999",
    "not UTF-8": b"workers = '\xff'",
    "null": b"\0" * 100,
    "null in a text": b'[sort]\nwhere = "a\\u0000b"',
    "table for a value": b"[sort.where]\nx = 1",
    "list for a value": b"[sort]\nwhere = [1, 2]",
    "huge": b"# comment\n" * 200_000,
    "UTF-16": "workers = 3".encode("utf-16"),
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_an_odd_settings_file_is_one_sentence(text: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gleaner.toml").write_bytes(text)
    assert run("sort", tmp_path, "orientation") == 2
    assert len(sentence(capsys)) < 600


def make_odd(path: Path, kind: str) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        os.chdir(path.parent)  # a socket's path has to be short
        socket.socket(socket.AF_UNIX).bind(path.name)
    elif kind == "loop":
        path.symlink_to(path)
    else:
        path.symlink_to("/dev/zero")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["pipe", "folder", "socket", "loop", "device"])
def test_settings_that_are_no_file_are_one_sentence(
    kind: str, step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_odd(tmp_path / "gleaner.toml", kind)
    assert run(step, tmp_path) == 2
    assert "gleaner.toml" in sentence(capsys)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("kind", ["not UTF-8", "below not UTF-8", "null", "file", "below a file", "link to itself"])
def test_a_workspace_that_cannot_be_is_one_sentence(
    kind: str, step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = tmp_path / os.fsdecode(b"w\xe9\xff")
    (tmp_path / "file").write_text("x")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    workspace = {
        "not UTF-8": odd, "below not UTF-8": odd / "deeper", "null": tmp_path / "a\0b", "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "ws", "link to itself": tmp_path / "loop",
    }[kind]  # fmt: skip
    before = snapshot(tmp_path)
    for arguments in ([], ["--json"]):
        words = ["orientation"] if step == "sort" else []
        assert run(step, workspace, *words, *arguments) == 2
        assert "--workspace" in sentence(capsys)
    assert snapshot(tmp_path) == before


def test_the_documentation_names_what_a_settings_file_may_not_set() -> None:
    text = (ROOT / "docs" / "setup.md").read_text(encoding="utf-8")
    table = text[text.index("## Settings") : text.index("## What is private")]
    named = {name for step in STEPS for name, place in SETTABLE[step].items() if place != FILE}
    named |= {name for _, name in REFUSED_VALUES}
    assert not [name for name in sorted(named - {"help", "version"}) if f"`{name}`" not in table]


@pytest.mark.parametrize("step", STEPS)
def test_help_is_shown_whatever_the_settings_are(step: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gleaner.toml").write_bytes(b"\xff")
    with pytest.raises(SystemExit) as ended:
        run(step, tmp_path, "--help")
    assert not ended.value.code and "usage:" in capsys.readouterr().out
