"""Two runs at once in one workspace: each ends well or says that another is at work, and nothing is lost."""

from __future__ import annotations

from itertools import combinations_with_replacement

import pytest
from made import own_pictures
from scenarios_download import FETCH
from torture import Command, Folder, check_pair

ONE = ("--workers", "1", "-q")
COMMANDS: dict[str, Command] = {
    "ingest": ("ingest", "--import", "{photos}/urls.csv", *ONE),
    "repair": ("ingest", "--check", "--repair", *ONE),
    "cleanup": ("cleanup", "-q"),
    "vacuum": ("cleanup", "--vacuum", "-q"),
    "download": FETCH,
    "dedup": ("dedup", "all", *ONE),
    "dedup-undo": ("dedup", "--undo", "last"),
    "sort": ("sort", "megapixels", "--edges", "0.005,0.01", "--mode", "hardlink", *ONE),
    "sort-undo": ("sort", "--undo", "last"),
    "export": ("sort", "export", "--replace", *ONE),
    "report": ("report", "-q"),
}
PAIRS = [*combinations_with_replacement(COMMANDS, 2)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """All pairs; in the quick slice every seventh."""
    chosen = PAIRS if metafunc.config.getoption("--torture") == "all" else PAIRS[::7]
    metafunc.parametrize("pair", chosen, ids=["+".join(pair) for pair in chosen])


def at_work(folder: Folder) -> None:
    """Repeated pictures that are sorted, a list to take in, and addresses that wait."""
    own_pictures(folder, repeated=True)
    folder.run("sort", "orientation", "--mode", "copy", *ONE)
    folder.photos.mkdir()
    lines = ["url,title", *(f"{folder.site}/good/{n},Picture {n}" for n in range(10, 16))]
    (folder.photos / "urls.csv").write_text("\n".join(lines) + "\n")
    folder.run("ingest", "--import", "{photos}/urls.csv", *ONE)
    lines += [f"{folder.site}/good/{n},Picture {n}" for n in range(16, 20)]
    (folder.photos / "urls.csv").write_text("\n".join(lines) + "\n")


def test_two_at_once(folder: Folder, pair: tuple[str, str], points: str) -> None:
    for _ in range(3 if points == "all" else 1):
        if faults := check_pair(folder, at_work, [COMMANDS[name] for name in pair]):
            pytest.fail("\n".join(faults), pytrace=False)
