"""A missing module or a broken installation ends a run with one sentence; no picture is marked for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from lib.download.options import VerifyLimits
from lib.download.verify import Verifier
from lib.errors import GleanerError
from lib.images.decode import opened
from lib.models.device import batched

ROOT = Path(__file__).parents[1]
# Read by every Python of the test, worker processes included.
SHADOWS = {
    "missing": "import sys\nsys.modules['PIL.WebPImagePlugin'] = None\n",
    "broken": (
        "import sys\nfrom importlib.abc import MetaPathFinder\n"
        "class Broken(MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'PIL.WebPImagePlugin':\n"
        "            raise ImportError('libwebp.so.7: cannot open shared object file')\n"
        "sys.meta_path.insert(0, Broken())\n"
    ),
}


@pytest.fixture(params=sorted(SHADOWS))
def shadow(request, tmp_path):
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SHADOWS[request.param], encoding="utf-8")
    return folder


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
    command = [sys.executable, str(ROOT / name), *flags, "--workspace", str(tmp_path / "ws"), str(photos)]
    ended = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(shadow)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    said = ended.stderr.strip().splitlines()
    assert "Traceback" not in ended.stderr and "the installation is broken" in said[-1] and "0_setup.py" in said[-1]
    assert len(list(photos.glob("*.webp"))) == 3


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
