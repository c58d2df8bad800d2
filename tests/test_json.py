"""The one object that `--json` prints: the same keys in the same order in each step, however a run ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, ROOT, STEPS, drawing, load_step, run_step, snapshot

from lib import cli
from lib.cli.output import envelope, json_parts

KEYS = ["step", "run", "dry_run", "exit_code", "counts", "result"]
URLS = "http://127.0.0.1:9/1.jpg\nhttp://127.0.0.1:9/2.jpg\nhttp://a..b/3.jpg\nnonsense\n"  # nothing is asked


def valid(text: str, step: str, *, code: int = 0, dry_run: bool = False) -> dict[str, Any]:
    """The object, once it is found to be one, alone on stdout, and of the promised shape."""
    (line,) = text.splitlines()
    found: dict[str, Any] = json.loads(line)
    beside = ["groups", "summary"] if step == "dedup" and "groups" in found["result"] else []
    assert list(found) == KEYS + beside
    assert found["step"] == step and found["exit_code"] == code and found["dry_run"] is dry_run
    assert found["run"] is None or (type(found["run"]) is int and found["run"] > 0 and not dry_run)
    assert isinstance(found["counts"], dict) and isinstance(found["result"], dict)
    assert all(isinstance(value, int | float | str) for value in found["counts"].values())
    assert ("error" in found["result"]) <= (code != 0)
    for name in beside:
        assert found[name] == found["result"][name]
    return found


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, and a list of addresses."""
    root = tmp_path_factory.mktemp("json")
    (root / "photos").mkdir()
    for number, size in enumerate([(40, 30), (30, 40), (64, 64)]):
        drawing(number, *size).save(root / "photos" / f"{number}.png")
    (root / "photos/copy.png").write_bytes((root / "photos/0.png").read_bytes())
    (root / "broken").mkdir()
    (root / "broken/no.jpg").write_text("<html></html>")
    (root / "urls.txt").write_text(URLS)
    return root


# (step, words, exit code), in an order in which each finds what it needs; PHOTOS, LIST and BROKEN are places.
RUNS = [
    ("collect", ["--list"], 2),
    ("collect", ["--keywords", "boats", "--dry-run"], 0),
    ("collect", ["--keywords", "boats", "--engine", "openverse", "--host", "http://127.0.0.1:9"], 1),
    ("collect", ["--list"], 0),
    ("collect", ["--drift"], 0),
    ("collect", [], 1),
    ("collect", ["--expand", "3"], 2),
    ("ingest", ["--import", "LIST", "--dry-run"], 0),
    ("ingest", ["--import", "LIST"], 0),
    ("ingest", ["--import", "LIST", "--strict"], 3),
    ("ingest", ["--import-folder", "PHOTOS"], 0),
    ("ingest", ["--check"], 0),
    ("ingest", ["--check", "--dry-run"], 0),
    ("ingest", ["--reparse"], 2),
    ("ingest", ["--import", "missing.txt"], 2),
    ("ingest", ["--undo", "99"], 2),
    ("ingest", ["--undo", "last"], 0),
    ("ingest", ["--import", "LIST"], 0),
    ("report", [], 0),
    ("report", ["--dry-run", "--by", "host"], 0),
    ("report", ["--format", "csv"], 0),
    ("report", ["--compare", "yandex", "nobody"], 2),
    ("report", ["--extract", "a.example", "--to", "extract.db"], 0),
    ("report", ["--bye"], 2),
    ("cleanup", ["--list-rules"], 0),
    ("cleanup", ["--dry-run"], 0),
    ("cleanup", [], 0),
    ("cleanup", ["--undo", "last"], 0),
    ("cleanup", ["--undo", "last", "--dry-run"], 0),
    ("cleanup", ["--reset", "hashes", "--dry-run"], 0),
    ("cleanup", ["--reset", "hashes"], 0),
    ("cleanup", ["--vacuum"], 0),
    ("cleanup", ["--rule", "broken_url", "--vacuum"], 2),
    ("download", ["--dry-run"], 0),
    ("download", [], 0),
    ("download", ["--retry-failed", "private_address"], 0),
    ("download", ["--undo", "last"], 0),
    ("cleanup", ["--restore", "last", "--dry-run"], 0),
    ("cleanup", ["--restore", "last"], 0),
    ("collect", ["--replay", "no-such-answers"], 2),
    ("download", ["--max-bytes", "0"], 2),
    ("dedup", ["PHOTOS", "--dry-run"], 0),
    ("dedup", ["PHOTOS"], 0),
    ("dedup", ["exact", "BROKEN"], 0),
    ("dedup", ["--undo", "last", "--dry-run"], 0),
    ("dedup", ["--undo", "last"], 0),
    ("dedup", ["PHOTOS", "PHOTOS", "--mode", "exact", "--format", "csv"], 0),
    ("dedup", ["--purge", "last", "--dry-run"], 0),
    ("dedup", ["--purge", "77"], 2),
    ("dedup", ["exact", "no-such-folder"], 2),
    ("sort", ["orientation", "PHOTOS", "--dry-run"], 0),
    ("sort", ["orientation", "PHOTOS"], 0),
    ("sort", ["quality", "BROKEN", "--format", "json"], 0),
    ("sort", ["export", "--to", "SET", "--dry-run"], 0),
    ("sort", ["export", "--to", "SET"], 0),
    ("sort", ["export", "--drop-opted-out"], 0),
    ("sort", ["--undo", "last", "--dry-run"], 0),
    ("sort", ["--undo", "last"], 0),
    ("sort", [], 2),
]


def test_each_step_prints_one_shape_in_each_mode(desk: Path, capfd: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.chdir(desk)
    places = {"PHOTOS": "photos", "LIST": "urls.txt", "BROKEN": "broken", "SET": "set"}
    seen = []
    for step, words, code in RUNS:
        told = [places.get(word, word) for word in words]
        capfd.readouterr()
        try:
            ended = load_step(step).main([*told, "--workspace", str(desk / "ws"), "--json"])
        except SystemExit as end:
            ended = end.code
        out, err = capfd.readouterr()
        try:
            assert ended == code, err
            valid(out, step, code=code, dry_run="--dry-run" in words)
        except Exception as error:
            raise AssertionError(f"{step} {' '.join(words)}: {out[:500]} {err[-500:]}") from error
        seen.append(step)
    assert set(seen) == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
def test_an_error_has_the_shape_too(step: str, tmp_path: Path) -> None:
    """Before there is a workspace, with a flag that nobody knows, and with one that has no value."""
    for words in (["--no-such-flag"], ["--limit"], ["--workspace", tmp_path / "no", "--undo", "3", "--json", "-n"]):
        done = run_step(step, "--json", *words)
        found = valid(done.stdout, step, code=2, dry_run="-n" in words)
        assert found["run"] is None and found["counts"] == {} and list(found["result"]) == ["error"]
        assert found["result"]["error"] and "\n" not in found["result"]["error"]
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("presses", [1, 2])
def test_an_interrupted_run_has_the_shape_too(presses: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def work(session: cli.Session) -> cli.Summary:
        for _ in range(presses):
            signal.raise_signal(signal.SIGINT)
        return cli.Summary({"files": 1}, details={"so_far": [1]})

    made = cli.parser("Try.", "report")
    assert cli.run(made, ["--workspace", str(tmp_path / "ws"), "--json"], work) == 130
    found = valid(capsys.readouterr().out, "report", code=130)
    assert found["run"] == 1 and (found["result"] == {"so_far": [1]}) == (presses == 1)
    assert ("error" in found["result"]) == (presses == 2)


def test_an_error_that_nobody_expected_has_the_shape_too(tmp_path: Path, capsys, monkeypatch) -> None:
    def work(session: cli.Session) -> cli.Summary:
        raise RuntimeError("a bug")

    monkeypatch.setattr(sys, "argv", ["3_domain_report.py", "--workspace", str(tmp_path / "ws"), "--json"])
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert cli.run(cli.parser("Try.", "report"), None, work) == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    found = valid(capsys.readouterr().out, "report", code=1)
    assert found["run"] == 1 and "RuntimeError" in found["result"]["error"]


INTERRUPTED_WHILE_LOADING = """
import sys
sys.argv = [{path!r}, "--json", *{words!r}]
import lib
raise KeyboardInterrupt
"""


@pytest.mark.parametrize("words", [[], ["-n"]])
def test_a_ctrl_c_while_modules_are_loaded_has_the_shape_too(words: list[str]) -> None:
    for step, file in STEPS.items():
        code = INTERRUPTED_WHILE_LOADING.format(path=str(ROOT / file), words=words)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
        found = valid(done.stdout, step, code=130, dry_run=bool(words))
        assert done.returncode == 130 and found["result"]["error"] + "\n" == done.stderr


def test_long_lists_are_written_entry_by_entry_wherever_they_stand() -> None:
    """Nothing of a list is held: an entry is taken when the one before it has been written."""
    taken = []

    def entries() -> Any:
        for number in range(3):
            taken.append(number)
            yield {"n": number}

    head = envelope("sort", 1, False, 0, {"n": 3}, {"deep": {"list": entries()}, "empty": iter(())})
    parts = []
    for part in json_parts(head):
        parts.append(part)
        assert len(taken) <= "".join(parts).count('{"n": ')
    assert json.loads("".join(parts)) == head | {
        "result": {"deep": {"list": [{"n": 0}, {"n": 1}, {"n": 2}]}, "empty": []}
    }
