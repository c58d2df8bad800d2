"""A dataset goes to the Hugging Face hub by its own client: private, resumable, and no token is told anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import Hub, serve
from support import PATIENCE, ROOT, drawing, snapshot

TOKEN = "hf_" + "x" * 34


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub()
    server = serve(made)
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (folder := tmp_path / "photos").mkdir()
    for number in range(3):
        drawing(number, 80, 60).save(folder / f"{number}.jpg")
    return folder


def export(
    hub: Hub, photos: Path, *arguments: str, token: str = TOKEN, **more: str
) -> subprocess.CompletedProcess[str]:
    workspace = photos.parent / "ws"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environ |= {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(photos.parent / "home"), **more}
    environ |= {"HF_HUB_DISABLE_TELEMETRY": "1"} | ({"HF_TOKEN": token} if token else {})
    command = [sys.executable, ROOT / "7_sort_quality.py", "export", photos, "--workspace", workspace, *arguments]
    return subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=environ, timeout=PATIENCE, check=False
    )


def test_a_dataset_is_pushed_whole_and_private(hub: Hub, photos: Path) -> None:
    done = export(hub, photos, "--as", "webdataset", "--split", "1", "--push", "ann/lakes", "--json")
    assert done.returncode == 0, done.stderr
    assert hub.private == {"ann/lakes": True} and hub.tokens == {f"Bearer {TOKEN}", ""}  # "": uploads are signed
    place = photos.parent / "ws/export"
    assert hub.files == {
        path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()
    }
    assert "00000.tar" in hub.files and "README.md" in hub.files
    assert "pushed to" in done.stderr and "(private)" in done.stderr
    told = done.stdout + done.stderr + (photos.parent / "ws/gleaner.db").read_bytes().decode("latin-1")
    assert TOKEN not in told
    before, hub.requests = snapshot(place), []
    again = export(hub, photos, "--as", "webdataset", "--split", "1", "--push", "ann/lakes")
    assert (
        again.returncode == 0 and snapshot(place) == before and "holds this dataset already; pushed to" in again.stderr
    )
    assert not [path for method, path in hub.requests if method == "PUT"], "what is there is not sent again"


def test_public_is_asked_for_and_a_public_place_takes_no_private_dataset(hub: Hub, photos: Path) -> None:
    assert export(hub, photos, "--push", "ann/open", "--public").returncode == 0
    assert hub.private == {"ann/open": False}
    hub.files.clear()
    done = export(hub, photos, "--push", "ann/open")
    assert done.returncode == 1 and "there and public" in done.stderr and not hub.files


def test_a_dry_run_says_what_would_be_pushed_and_asks_nobody(hub: Hub, photos: Path) -> None:
    done = export(hub, photos, "--push", "ann/lakes", "--dry-run")
    assert done.returncode == 0 and not hub.requests and not (photos.parent / "ws").exists()
    assert "would push 3 pictures" in done.stderr and "ann/lakes on the Hugging Face hub (private)" in done.stderr


@pytest.mark.parametrize(("status", "words"), [(401, "the token is missing"), (403, "may not write"), (503, "503")])
def test_what_the_hub_refuses_is_one_sentence_and_the_dataset_stays(
    hub: Hub, photos: Path, status: int, words: str
) -> None:
    hub.refuse = status
    done = export(hub, photos, "--push", "ann/lakes")
    assert done.returncode == 1 and "Traceback" not in done.stderr and words in done.stderr
    assert "The dataset stays in" in done.stderr and (photos.parent / "ws/export/README.md").is_file()
    hub.refuse = 0
    assert export(hub, photos, "--push", "ann/lakes").returncode == 0 and "README.md" in hub.files


def test_an_upload_that_was_cut_off_goes_on(hub: Hub, photos: Path) -> None:
    hub.fail_at = "/commit/"
    assert export(hub, photos, "--push", "ann/lakes").returncode == 1 and hub.blobs and not hub.files
    sent, hub.fail_at, hub.requests = len(hub.blobs), "", []
    assert export(hub, photos, "--push", "ann/lakes").returncode == 0
    assert len(hub.blobs) == sent and not [path for method, path in hub.requests if method == "PUT"]


def test_no_way_to_the_hub_is_one_sentence(hub: Hub, photos: Path) -> None:
    done = export(hub, photos, "--push", "ann/lakes", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 1 and "Traceback" not in done.stderr and "could not be pushed" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 6


def test_a_missing_client_is_told_before_the_work(hub: Hub, photos: Path, tmp_path: Path) -> None:
    (stub := tmp_path / "stub").mkdir()
    (stub / "huggingface_hub.py").write_text("raise ImportError('no')")
    done = export(hub, photos, "--push", "ann/lakes", PYTHONPATH=str(stub))
    assert done.returncode == 2 and "pip install huggingface_hub" in done.stderr
    assert not (photos.parent / "ws/export").exists()


def test_counts_are_the_same_with_a_push(hub: Hub, photos: Path) -> None:
    done = export(hub, photos, "--push", "ann/lakes", "--json")
    assert json.loads(done.stdout)["counts"]["pictures"] == 3
