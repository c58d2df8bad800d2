"""A missing module or a broken installation ends a run with one sentence; no picture is marked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from download_support import fill, originals
from hostile_server import picture
from PIL import Image
from support import as_rows

from lib.download.options import VerifyLimits
from lib.download.verify import Verifier
from lib.errors import GleanerError
from lib.images.decode import opened
from lib.models.device import batched

ROOT = Path(__file__).parents[1]
FINDER = """
import sys
from importlib.abc import MetaPathFinder
class Broken(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            raise {error}
sys.meta_path.insert(0, Broken())
"""
LIBRARY = "ImportError('libwebp.so.7: cannot open shared object file')"
GARBLED = "SyntaxError('invalid syntax', (name + '.py', 1, 1, 'x', 1, 2))"


def broken(name: str, error: str) -> str:
    return FINDER.format(name=name, error=error)


# Read by every Python of the test, worker processes included.
SHADOWS = {
    "missing": "import sys\nsys.modules['PIL.WebPImagePlugin'] = None\n",
    "broken": broken("PIL.WebPImagePlugin", LIBRARY),
    "garbled": broken("PIL.WebPImagePlugin", GARBLED),
    "library": broken("PIL._webp", LIBRARY),
}


@pytest.fixture(params=sorted(SHADOWS))
def shadow(request, tmp_path):
    return shadowed(tmp_path, SHADOWS[request.param])


def shadowed(tmp_path, code):
    """A folder for PYTHONPATH: what is in it is run by every Python as it starts."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
    return folder


def run(shadow, name, *flags):
    return subprocess.run(
        [sys.executable, str(ROOT / name), *map(str, flags)],
        env=os.environ | {"PYTHONPATH": str(shadow)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def ends_with_one_sentence(ended):
    assert ended.returncode == 1, ended.stdout + ended.stderr
    said = ended.stderr.strip().splitlines()
    assert "Traceback" not in ended.stderr and "the installation is broken" in said[-1] and "0_setup.py" in said[-1]
    return said


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        Image.linear_gradient("L").rotate(90 * number).convert("RGB").save(folder / f"{number}.webp")
    return folder


@pytest.mark.parametrize("step", [("6_dedup.py", "similar"), ("7_sort_quality.py", "quality")], ids=["dedup", "sort"])
def test_a_step_ends_with_one_sentence_and_marks_nothing(shadow, photos, tmp_path, step):
    name, *flags = step
    ends_with_one_sentence(run(shadow, name, *flags, "--workspace", tmp_path / "ws", photos))
    assert len(list(photos.glob("*.webp"))) == 3


def waiting(workspace, site, form="WEBP"):
    """Three pictures that a server has, and the state of each as the database knows it."""
    fill(workspace, originals(site, "/body/1", "/body/2", "/body/3"))
    site.bodies.update({number: picture(number, form=form) for number in (1, 2, 3)})


def states(workspace):
    return as_rows(workspace.database, "SELECT state, reason FROM downloads")


def test_step_5_ends_with_one_sentence_and_blames_no_picture(shadow, site, workspace):
    waiting(workspace, site)
    flags = ("--workspace", workspace.root, "--allow-private", "--verify", "decode")
    ends_with_one_sentence(run(shadow, "5_download.py", *flags))
    assert set(states(workspace)) <= {("pending", "")} and not list(workspace.images.glob("??/*"))
    (shadow / "sitecustomize.py").unlink()
    assert run(shadow, "5_download.py", *flags).returncode == 0
    assert states(workspace) == [("done", "")] * 3


@pytest.mark.parametrize(
    ("name", "error", "workers"),
    [
        ("PIL.AvifImagePlugin", GARBLED, "1"),
        ("PIL._avif", LIBRARY, "2"),
        ("lib.images.boxed", GARBLED, "1"),
        ("lib.download.loop", LIBRARY, "2"),
        ("aiohttp", LIBRARY, "1"),
    ],
)
def test_step_5_ends_so_whatever_module_is_broken(tmp_path, site, workspace, name, error, workers):
    """A format that is always decoded, and modules that are loaded early and late."""
    waiting(workspace, site, "AVIF")
    flags = ("--workspace", workspace.root, "--allow-private", "--workers", workers)
    ends_with_one_sentence(run(shadowed(tmp_path, broken(name, error)), "5_download.py", *flags))
    assert set(states(workspace)) <= {("pending", "")} and not list(workspace.images.glob("??/*"))


@pytest.mark.parametrize(
    ("name", "error"),
    [("lib.engines.openverse", "ModuleNotFoundError('No module named ' + name, name=name)"), ("orjson", GARBLED)],
)
def test_step_1_ends_so_and_marks_no_search(tmp_path, name, error):
    root = tmp_path / "ws"
    flags = ("--engine", "openverse", "--keywords", "lakes", "--workspace", root)
    ends_with_one_sentence(run(shadowed(tmp_path, broken(name, error)), "1_collect.py", *flags))
    if (root / "gleaner.db").exists():
        assert set(as_rows(root / "gleaner.db", "SELECT state, outcome FROM queries")) <= {("pending", "")}


def test_a_cluster_whose_nodes_lack_a_module_blames_no_picture(tmp_path, photos):
    """The module is missing in Ray's workers alone: on this machine all is well."""
    there = "import sys\nif any('default_worker' in word for word in getattr(sys, 'orig_argv', ())):\n"
    code = "\n".join(f"    {line}" for line in broken("lib.images.ground", LIBRARY).splitlines())
    flags = ("exact", "--executor", "ray", "--workers", "1", "--workspace", tmp_path / "ws", photos)
    said = ends_with_one_sentence(run(shadowed(tmp_path, there + code), "6_dedup.py", *flags))
    assert "libwebp.so.7" in said[-1]


def test_the_decoder_of_downloads_blames_no_picture(shadow, photos, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(shadow))
    verifier = Verifier(1, VerifyLimits())
    try:
        with pytest.raises(GleanerError, match="installation is broken"):
            verifier.check(str(photos / "0.webp"))
    finally:
        verifier.close()


def test_an_import_that_fails_while_a_picture_is_loaded_stays_what_it_is(photos, monkeypatch):
    def fail(self):
        raise ImportError("libwebp.so.7 is missing")

    monkeypatch.setattr("PIL.WebPImagePlugin.WebPImageFile.load", fail)
    with pytest.raises(ImportError), opened(photos / "0.webp") as image:
        image.load()


def test_a_model_that_lacks_a_module_ends_the_batch():
    def run(items):
        raise ModuleNotFoundError("No module named 'einops'")

    with pytest.raises(ModuleNotFoundError):
        batched(run, [1, 2, 3])
