"""A recipe: what may stand in it, the plan that it makes, and its rounds against the offline gallery."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import PATIENCE, ROOT, STEPS, as_rows, drawing, dump, load_step, snapshot, wait_until
from test_vlm import Server, told

from demo.app import Gallery, running_gallery
from demo.queries import write_queries
from lib.cli.recipe import HERE, NOT_HERE, TRUSTED, load_recipe
from lib.cli.settings import SETTABLE, SPOT
from lib.engines.base import Engine
from lib.errors import UsageError
from lib.setup.recipe import PAGES, Recipe

PHOTOGRAPHS = Path(str(find_spec("sklearn").submodule_search_locations[0])) / "datasets" / "images"
RECIPES = sorted((ROOT / "recipes").glob("*.toml"))
# The set-up script with the interpreter of these tests in the place of .venv's.
SETUP = f"""
import runpy, sys
from pathlib import Path
sys.path.insert(0, {str(ROOT)!r})
import lib.setup.environment as module
def begin(self, root):
    self.root, self.folder = root, Path(sys.prefix)
module.Environment.__init__ = begin
module.Environment.python = Path(sys.executable)
sys.argv[0] = {str(ROOT / "0_setup.py")!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SETUP, "run", *map(str, arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **environment})


def run(*arguments: object, expect: int = 0, **environment: str) -> tuple[str, str]:
    """(stdout, stderr) of `0_setup.py run`, in a process as a person starts it."""
    child = start(*arguments, **environment)
    out, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == expect, (child.returncode, err[-3000:])
    assert "Traceback" not in err
    return out, err


def result(*arguments: object, expect: int = 0, **environment: str) -> dict[str, Any]:
    """The object of `--json`, which is all that stands on stdout."""
    out, _ = run(*arguments, "--json", expect=expect, **environment)
    found: dict[str, Any] = json.loads(out)
    assert found.keys() == {"step", "run", "dry_run", "exit_code", "counts", "result"}
    assert (found["step"], found["exit_code"]) == ("recipe", expect)
    return found


@pytest.fixture(scope="module")
def gallery() -> Iterator[Gallery]:
    with running_gallery(pictures=90) as made:
        yield made


@pytest.fixture
def there(gallery: Gallery) -> Iterator[dict[str, str]]:
    """The environment that leads every step to the gallery, as it does in real use to another host."""
    yield {"GLEANER_HOST": gallery.url, "GLEANER_ALLOW_PRIVATE": "1", "GLEANER_CONTACT": "someone@example.org"}
    gallery.clear_faults()


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


def load(folder: Path, text: str, *, trust: bool = False) -> Recipe:
    return load_recipe(write(folder, text), ROOT, folder / "ws", trust=trust, dry_run=True)


# What may stand in it

SEARCH = '[collect]\nengine = ["openverse"]\nkeywords = ["boat"]\n'

REFUSED = {
    "a key at the top": ("tagret = 5\n" + SEARCH, "'tagret' at its top", "Did you mean 'target'?"),
    "a table": (SEARCH + "[colect]\n", "[colect]", "Did you mean 'collect'?"),
    "an option": (SEARCH + "max_pgaes = 3\n", "[collect] has no 'max-pgaes'", "Did you mean 'max_pages'?"),
    "an option of a criterion": (
        SEARCH + '[[sort]]\ncriterion = "quality"\nhihg = 3\n',
        "'hihg'",
        "Did you mean 'high'?",
    ),
    "another criterion's option": (SEARCH + '[[sort]]\ncriterion = "orientation"\nhigh = 70\n', "--high belongs to"),
    "a criterion": (SEARCH + '[[sort]]\ncriterion = "qualty"\n', "7_sort_quality.py says", "qualty"),
    "no criterion": (SEARCH + "[[sort]]\nhigh = 70\n", "needs criterion"),
    "an engine": ('[collect]\nengine = ["opnverse"]\nkeywords = ["x"]\n', "1_collect.py says", "opnverse"),
    "a rule": (SEARCH + '[cleanup]\nrule = ["ded_host"]\n', "4_db_cleanup.py says", "ded_host"),
    "a filter that the source lacks": (SEARCH + 'orientation = "sideways"\n', "1_collect.py says"),
    "a number that is none": (SEARCH + 'max_pages = "many"\n', "max-pages in [collect]", "'many'"),
    "a number below": (SEARCH + "max_pages = 0\n", "whole number from 1 on"),
    "a share": (SEARCH + "[dedup]\nleast_cosine = 3\n", "6_dedup.py says"),
    "a switch that is none": (SEARCH + '[download]\nstrip_trailing = "yes please"\n', "is true or false"),
    "a table for a value": (SEARCH + "[download]\ntimeout = {a = 1}\n", "give a text, a number"),
    "a date": (SEARCH + "[download]\ntimeout = 2020-01-01\n", "give a text, a number"),
    "a target": ('target = "500"\n' + SEARCH, "target cannot be", "whole number"),
    "a target below": ("target = 0\n" + SEARCH, "1 or more"),
    "a switch for a target": ("target = true\n" + SEARCH, "whole number"),
    "no search": ("[dedup]\n", "nothing to search for and nothing to take in"),
    "an empty search": ('[collect]\nengine = ["bing"]\n', "names nothing to search for"),
    "no condition": ('where = "qualty = high"\n' + SEARCH, "knows no 'qualty'"),
    "a condition of the export": (SEARCH + '[export]\nwhere = "quality ="\n', "ends too early"),
    "no TOML": ("target =\n", "cannot be read"),
    "a missing list": ('[ingest]\nimport = ["urls.csv"]\n', "urls.csv does not exist"),
    "what acts: allow-private": (SEARCH + "[download]\nallow_private = true\n", "GLEANER_ALLOW_PRIVATE"),
    "what acts: to": (SEARCH + '[export]\nto = "/srv/www"\n', "GLEANER_TO"),
    "what acts: to of step 5": (SEARCH + '[download]\nto = "s3://elsewhere/x"\n', "GLEANER_TO"),
    "what acts: host": (SEARCH + 'host = "http://127.0.0.1"\n', "GLEANER_HOST"),
    "what acts: proxy": (SEARCH + 'proxy = "http://a:b@c"\n', "GLEANER_PROXY"),
    "what acts: vlm-url": (SEARCH + '[[sort]]\ncriterion = "vlm"\nvlm_url = "http://x"\n', "GLEANER_VLM_URL"),
    "what acts: vlm-key-env": (SEARCH + '[[sort]]\ncriterion = "vlm"\nvlm_key_env = "HOME"\n', "VLM_KEY_ENV"),
    "what acts: purge": (SEARCH + '[dedup]\npurge = "last"\n', "--purge to 6_dedup.py by itself"),
    "what acts: undo": (SEARCH + '[dedup]\nundo = "last"\n', "--undo to 6_dedup.py by itself"),
    "what acts: reset": (SEARCH + '[cleanup]\nreset = "everything"\n', "--reset to 4_db_cleanup.py by itself"),
    "what acts: i-am-allowed": (SEARCH + "i_am_allowed = true\n", "i-am-allowed, which a recipe may not"),
    "what acts: robots": (SEARCH + '[download]\nrobots = "ignore"\n', "robots = 'ignore', which a recipe may not"),
    "what acts: mode": (SEARCH + '[[sort]]\ncriterion = "quality"\nmode = "move"\n', "which a recipe may not"),
    "what acts: max-share": (SEARCH + '[dedup]\nmax_share = "100%"\n', "give --trust if the recipe is your own"),
    "what acts: push": (SEARCH + '[export]\npush = "me/set"\n', "--push to 7_sort_quality.py by itself"),
    "what asks": (SEARCH + "[dedup]\ninteractive = true\n", "which a recipe may not"),
    "a folder of code": (SEARCH + '[dedup]\nmode = "semantic"\nclip_model = "./model"\n', "may hold code"),
    "a key": (SEARCH + '[collect.api]\nkey = "abc"\n', "[collect] has no 'api'"),
    "a secret in an address": (SEARCH + '[[sort]]\ncriterion = "vlm"\nvlm_model = "https://me:pw@x"\n', "secret"),
    "a token": (SEARCH + '[[sort]]\ncriterion = "vlm"\nsubject = "https://x/?token=abc"\n', "a password or a key"),
    "a flag among words": ('[collect]\nkeywords = ["--host", "http://x"]\n', "would be taken for a flag"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_in_a_recipe_is_one_sentence(case: tuple[str, ...], tmp_path: Path) -> None:
    text, *parts = case
    with pytest.raises(UsageError) as refused:
        load(tmp_path, text)
    said = str(refused.value)
    assert [part for part in parts if part not in said] == [], said
    assert "\n" not in said and "recipe.toml" in said and len(said) < 600
    assert not (tmp_path / "ws").exists()


@pytest.mark.parametrize("option", ["images", "keywords_file"])
@pytest.mark.parametrize("place", ["absolute", "above", "link"])
def test_a_strangers_recipe_reads_nothing_outside_its_folder(option: str, place: str, tmp_path: Path) -> None:
    """Pictures that are searched with are sent away, so a recipe must not name those of its reader."""
    private, folder = tmp_path / "private", tmp_path / "recipe"
    private.mkdir()
    folder.mkdir()
    drawing(1).save(private / "me.png")
    (private / "words.txt").write_text("secret\n")
    (folder / "link").symlink_to(private)
    inner = "" if option == "images" else "words.txt"
    path = {"absolute": str(private / inner), "above": f"../private/{inner}", "link": f"link/{inner}"}[place]
    text = f'[collect]\nengine = ["yandex-cloud"]\n{option} = "{path}"\n'
    if option == "images":
        text = text.replace(f'"{path}"', f'["{path}"]')
    with pytest.raises(UsageError, match="lies outside the recipe's folder"):
        load(folder, text)
    assert load(folder, text, trust=True).searches


def test_paths_are_those_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pictures").mkdir()
    drawing(1).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "blocked.txt").write_text("ads.example\n")
    text = '[ingest]\nimport_folder = ["pictures"]\n[download]\nblocklist = "blocked.txt"\n'
    monkeypatch.chdir(tmp_path / "elsewhere")
    commands = [shlex.join(words) for words in load(tmp_path, text).round()]
    assert f"2_ingest_db.py --import-folder {tmp_path / 'pictures'}" in commands
    assert f"5_download.py --blocklist {tmp_path / 'blocked.txt'}" in commands
    monkeypatch.chdir(tmp_path)
    commands = [shlex.join(words) for words in load(tmp_path, text).round()]
    assert "2_ingest_db.py --import-folder pictures" in commands


def test_values_become_the_words_of_the_command_line(tmp_path: Path) -> None:
    text = """
where = "filter = keep"
[collect]
engine = ["bing", "openverse"]
keywords = ["two words", "Ёлка", "$(rm -rf ~)"]
max_results = 20
[dedup]
remove = ["bytes", "pixels"]
[[sort]]
criterion = "filter"
keep = ["an indoor room", "-a corridor"]
near_query = -0.2
[[sort]]
criterion = "quality"
high = 70.5
metric = ["musiq", "clipiqa"]
"""
    commands = list(load(tmp_path, text).round())
    assert commands[0] == (
        "1_collect.py", "--engine", "bing", "openverse", "--keywords", "two words", "Ёлка", "$(rm -rf ~)",
        "--max-results", "20",
    )  # fmt: skip
    assert commands[5] == ("6_dedup.py", "--remove", "bytes", "pixels")
    assert commands[6][1:] == ("filter", "--keep", "an indoor room", "--keep=-a corridor", "--near-query=-0.2")
    assert commands[7][1:] == ("quality", "--high", "70.5", "--metric", "musiq,clipiqa")


def test_ones_own_recipe_may_do_more(tmp_path: Path) -> None:
    (tmp_path / "known").mkdir()
    text = SEARCH + '[dedup]\nmax_share = "90%"\nreference = ["known"]\n'
    text += '[[sort]]\ncriterion = "quality"\nmode = "move"\n'
    recipe = load(tmp_path, text, trust=True)
    assert "--max-share" in recipe.others[3] and "move" in recipe.others[4]
    with pytest.raises(UsageError, match="GLEANER_ALLOW_PRIVATE"):
        load(tmp_path, SEARCH + "[download]\nallow_private = true\n", trust=True)


def test_nothing_that_acts_is_let_in_by_its_name() -> None:
    """What a recipe may set beyond a settings file is listed; none of it is asked for on the spot by steps that act."""
    opened = {key for key in HERE if SETTABLE[key[0]].get(key[1], SPOT) == SPOT}
    assert opened == {
        ("collect", "expand"), ("ingest", "import"), ("ingest", "import-folder"),
        ("sort", "take"), ("sort", "balance"), ("sort", "seed"), ("sort", "name"),
    }  # fmt: skip
    for step, option in (*HERE, *TRUSTED):
        assert option in SETTABLE[step]
    assert "interactive" in NOT_HERE and Engine.default_pages == PAGES


# The plan


def test_a_dry_run_prints_the_commands_and_writes_nothing(tmp_path: Path) -> None:
    recipe = write(tmp_path, "target = 50\n" + SEARCH.replace("boat", "rock 'n' roll") + "expand = 3\n[export]\n")
    before = snapshot(tmp_path)
    out, err = run(recipe, "--dry-run", "--workspace", tmp_path / "my workspace")
    assert err == "" and snapshot(tmp_path) == before
    lines = [line for line in out.splitlines() if not line.startswith("#")]
    words = [shlex.split(line) for line in lines]
    assert [Path(one[1]).name for one in words] == [
        "1_collect.py", *list(STEPS.values())[1:6], "1_collect.py", "1_collect.py", "7_sort_quality.py",
    ]  # fmt: skip
    names = {file: step for step, file in STEPS.items()}
    for one in words:
        assert Path(one[0]).samefile(sys.executable) and one[-1] == str(tmp_path / "my workspace")
        load_step(names[Path(one[1]).name]).build_parser().parse_args(one[2:])
    assert "rock 'n' roll" in words[0] and words[0][-3] == "5" and words[6][-3] == "10"
    found = result(recipe, "--dry-run", "--workspace", tmp_path / "my workspace")
    assert found["dry_run"] and found["result"]["plan"] == out.splitlines()
    assert found["counts"] == {"commands": len(lines)}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_comes_along_makes_a_plan(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path)
    (tmp_path / "photos").mkdir()
    drawing(1).save(tmp_path / "photos" / "a.png")
    (tmp_path / "urls.csv").write_text("url,caption\nhttps://a.example/1.jpg,One\n")
    recipe = load_recipe(tmp_path / path.name, ROOT, tmp_path / "ws", dry_run=True)
    steps = [words[0] for words in recipe.round()]
    assert [file for file in STEPS.values() if file in steps] == list(dict.fromkeys(steps))
    assert f"recipes/{path.name}" in (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")


def test_there_are_five() -> None:
    assert len(RECIPES) == 5


def test_recipes_that_texts_name_are_there() -> None:
    for path in (ROOT / "0_setup.py", ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        named = set(re.findall(r"recipes/([\w-]+\.toml)", path.read_text(encoding="utf-8")))
        assert named <= {recipe.name for recipe in RECIPES}, path.name


# Without an environment, and wrong usage


def test_without_an_environment_it_is_one_sentence(tmp_path: Path) -> None:
    for name in ("0_setup.py", *STEPS.values()):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    recipe = write(tmp_path, SEARCH)
    done = subprocess.run(
        [sys.executable, "0_setup.py", "run", recipe.name], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch(r"0_setup\.py: a recipe needs the environment in .* run python3 0_setup\.py .*\n", done.stderr)
    assert not (tmp_path / "workspace").exists()


@pytest.mark.parametrize("words", [["run"], ["check", "x.toml"], ["x.toml"], ["demo", "--dry-run"], ["--trust"]])
def test_wrong_usage_is_refused(words: list[str]) -> None:
    done = subprocess.run([sys.executable, ROOT / "0_setup.py", *words], capture_output=True, text=True)
    assert done.returncode == 2 and "0_setup.py: error:" in done.stderr


def test_an_error_is_an_object_too(tmp_path: Path) -> None:
    out, err = run(write(tmp_path, "target = 1\n"), "--json", expect=2)
    assert json.loads(out)["exit_code"] == 2 and json.loads(out)["result"]["error"] in err


# At work


def shortened(name: str, folder: Path, **numbers: int) -> Path:
    """A recipe that comes along, in a folder of its own, with a smaller target."""
    text = (ROOT / "recipes" / name).read_text(encoding="utf-8")
    for key, number in numbers.items():
        text, found = re.subn(rf"^{key} = \d+", f"{key} = {number}", text, flags=re.MULTILINE)
        assert found == 1
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def exported(workspace: Path) -> list[dict[str, Any]]:
    """The records of an `imagefolder`."""
    files = sorted((workspace / "export").rglob("metadata.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


def test_a_class_dataset_from_open_sources(there: dict[str, str], gallery: Gallery, tmp_path: Path) -> None:
    """It goes back to step 1 until enough is kept; then the same recipe has nothing left to do."""
    recipe, workspace = shortened("flowers.toml", tmp_path, target=1, max_pages=1), tmp_path / "ws"
    found = result(recipe, "--workspace", workspace, **there)
    assert found["counts"]["rounds"] == 1 and found["counts"]["kept"] >= 1
    more = found["counts"]["kept"] + 1
    recipe = shortened("flowers.toml", tmp_path, target=more, max_pages=1)
    found = result(recipe, "--workspace", workspace, **there)
    assert found["counts"]["kept"] >= more and found["counts"]["rounds"] >= 2
    assert found["result"]["ended"] == "the target is reached"
    assert {sentence.partition(":")[0] for sentence in found["result"]["sources"]} == {"openverse", "commons"}
    records = exported(workspace)
    assert len(records) == found["counts"]["kept"] and all(record["license"] for record in records)
    assert "# Flowers" in (workspace / "export" / "README.md").read_text(encoding="utf-8")
    # The dataset can be made again: by the recipe's text and its digest in the row of every run.
    digest = hashlib.sha256(recipe.read_bytes()).hexdigest()
    assert found["result"]["sha256"] == digest
    assert (workspace / "reports" / f"recipe-{digest[:8]}.toml").read_bytes() == recipe.read_bytes()
    given = [
        json.loads(text) for (text,) in as_rows(workspace / "gleaner.db", "SELECT arguments FROM runs ORDER BY id")
    ]
    assert all(re.fullmatch(r"flowers\.toml sha256:[0-9a-f]{64}", one["recipe"]) for one in given)
    assert given[-1]["recipe"].endswith(digest)
    rows, asked = dump(workspace / "gleaner.db"), json.dumps(gallery.counters, sort_keys=True)
    again = result(recipe, "--workspace", workspace, **there)
    assert again["counts"]["kept"] == found["counts"]["kept"]
    assert dump(workspace / "gleaner.db") == rows
    assert json.dumps(gallery.counters, sort_keys=True) == asked  # not one request more


def test_a_collection_by_reverse_search(there: dict[str, str], gallery: Gallery, tmp_path: Path) -> None:
    write_queries(gallery.site.pictures, tmp_path / "photos")
    recipe = shortened("reverse-search.toml", tmp_path, target=20, max_pages=1)
    found = result(recipe, "--workspace", tmp_path / "ws", **there)
    assert found["counts"]["kept"] >= 20
    assert list((tmp_path / "ws" / "export").rglob("*.tar"))


def test_a_cleaned_folder_of_photographs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("china", "flower"):
        Image.open(PHOTOGRAPHS / f"{name}.jpg").save(tmp_path / "photos" / f"{name}.jpg", quality=92)
    shutil.copy(tmp_path / "photos" / "china.jpg", tmp_path / "photos" / "copy.jpg")
    drawing(7, 40, 30).resize((900, 600)).save(tmp_path / "photos" / "blurred.jpg")
    before = snapshot(tmp_path / "photos")
    found = result(shortened("photo-folder.toml", tmp_path), "--workspace", tmp_path / "ws")
    assert snapshot(tmp_path / "photos") == before
    assert found["counts"] == {"kept": 2, "rounds": 1}
    assert {path.parent.name for path in (tmp_path / "ws" / "export").rglob("*.jpg")} == {"landscape"}


def test_a_list_of_addresses(there: dict[str, str], gallery: Gallery, tmp_path: Path) -> None:
    sound = [picture for picture in gallery.site.pictures if not picture.trouble][:12]
    with (tmp_path / "urls.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["url", "caption"])
        rows.writerows([gallery.site.link(picture.original), picture.title] for picture in sound)
    found = result(shortened("url-list.toml", tmp_path), "--workspace", tmp_path / "ws", **there)
    assert found["counts"]["kept"] > 5
    (shard,) = (tmp_path / "ws" / "export").glob("*.tar")  # in the dataset's folder, as img2dataset has them
    with tarfile.open(shard) as tar:
        told = {tar.extractfile(name).read().decode() for name in tar.getnames() if name.endswith(".txt")}  # type: ignore[union-attr]
    assert told <= {picture.title for picture in sound} and len(told) > 5
    digest = hashlib.sha256((tmp_path / "url-list.toml").read_bytes()).hexdigest()
    card = (tmp_path / "ws" / "export" / "README.md").read_text(encoding="utf-8")
    assert f"recipe url-list.toml (SHA-256 {digest}): 6 runs, 1 to 6, this export among them" in card
    assert str(tmp_path) not in card


def test_a_list_of_which_no_picture_comes_ends_without_step_6(tmp_path: Path) -> None:
    """Every address is refused: the recipe says that nothing was kept, not that a later step is used wrongly."""
    (tmp_path / "urls.csv").write_text("url,caption\nhttp://127.0.0.1:9/1.jpg,One\n", encoding="utf-8")
    recipe = write(
        tmp_path, 'target = 5\n[ingest]\nimport = ["urls.csv"]\n[[sort]]\ncriterion = "orientation"\n[export]\n'
    )
    out, err = run(recipe, "--workspace", tmp_path / "ws", expect=1)
    assert "0 of 5 pictures kept" in out and "--allow-private" in err and "error:" not in err
    assert "6_dedup.py --workspace" not in err and "7_sort_quality.py" not in err
    assert result(recipe, "--workspace", tmp_path / "ws", expect=1)["counts"]["kept"] == 0
    bare = write(tmp_path, '[ingest]\nimport = ["urls.csv"]\n')
    assert result(bare, "--workspace", tmp_path / "ws", expect=1)["result"]["ended"] == "no picture was kept"


def test_filters_with_names_stand_side_by_side(tmp_path: Path) -> None:
    filters = "".join(
        f'[[sort]]\ncriterion = "filter"\nname = "{name}"\nkeep = ["{keep}"]\ndrop = ["{drop}"]\n'
        for name, keep, drop in (("indoor", "a room", "a street"), ("clutter", "a tidy room", "a messy room"))
    )
    recipe = load(tmp_path, SEARCH + filters + '[export]\nlabel = "filter:indoor"\nwhere = "filter:clutter = keep"\n')
    names = [words[words.index("--name") + 1] for words in recipe.round() if "--name" in words]
    assert names == ["indoor", "clutter"]
    with pytest.raises(UsageError, match="--name belongs to"):
        load(tmp_path, SEARCH + '[[sort]]\ncriterion = "quality"\nname = "indoor"\n')


def test_scenes_that_a_vision_model_has_judged(there: dict[str, str], tmp_path: Path) -> None:
    def answer(number: int, body: Any) -> Any:
        return told({"decision": "keep" if number % 2 else "reject", "score": 0.9, "reason": "a place", "tags": []})

    with Server(answer) as server:
        recipe = shortened("scenes.toml", tmp_path, target=5, max_pages=1)
        found = result(recipe, "--workspace", tmp_path / "ws", **there, GLEANER_VLM_URL=server.url)
    assert found["counts"]["kept"] >= 5 and server.asked
    assert "a place that one can stand in" in json.dumps(server.asked[0])
    assert len(exported(tmp_path / "ws")) == found["counts"]["kept"]


def test_a_captcha_of_one_source_lets_the_others_go_on(there: dict[str, str], gallery: Gallery, tmp_path: Path) -> None:
    gallery.set_fault("captcha@bing/")
    text = 'target = 500\nmax_rounds = 3\n[collect]\nengine = ["bing", "openverse"]\nkeywords = ["flower"]\n'
    found = result(write(tmp_path, text), "--workspace", tmp_path / "ws", expect=4, **there)
    assert found["counts"]["kept"] > 0
    assert found["result"]["ended"] == "nothing is left to search for"
    assert found["result"]["sources"] == ["bing: showed a captcha (1 query)", "openverse: gave all it has (1 query)"]
    rows = as_rows(tmp_path / "ws" / "gleaner.db", "SELECT arguments FROM runs WHERE step = 'collect' ORDER BY id")
    engines = [json.loads(arguments)["engine"] for (arguments,) in rows]
    assert engines[0] == ["bing", "openverse"] and {tuple(one) for one in engines[1:]} == {("openverse",)}


def test_a_step_that_fails_ends_the_recipe_with_its_code(there: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "ws" / "images").mkdir(parents=True)
    (tmp_path / "ws" / "gleaner.db").write_bytes(b"no database at all, but something else of that name")
    recipe = write(tmp_path, SEARCH)
    out, err = run(recipe, "--workspace", tmp_path / "ws", expect=1, **there)
    assert out == "" and "1_collect.py" in err.splitlines()[-1] and "exit code 1" in err.splitlines()[-1]


def test_a_recipe_that_finds_nothing_says_so(there: dict[str, str], tmp_path: Path) -> None:
    recipe = write(tmp_path, SEARCH.replace("boat", "zzzqqq") + "[export]\n")
    found = result(recipe, "--workspace", tmp_path / "ws", expect=1, **there)
    assert found["result"]["ended"] == "nothing was found"
    assert found["result"]["sources"] == ["openverse: found nothing (1 query)"]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_is_passed_on_and_names_how_to_go_on(there: dict[str, str], gallery: Gallery, tmp_path: Path) -> None:
    gallery.set_fault("slow=1@api")
    recipe = write(tmp_path, SEARCH.replace("boat", "flower"))
    child = start(recipe, "--workspace", tmp_path / "ws", **there)
    wait_until(
        lambda: gallery.counters["asked"].get("openverse/api", 0) or (tmp_path / "ws" / "gleaner.db").exists(),
        "it searches",
    )
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=PATIENCE)
    assert child.returncode == 130, err
    last = err.splitlines()[-1]
    assert "stopped; what was done is kept" in last and f"run {recipe}" in last
    ended = as_rows(tmp_path / "ws" / "gleaner.db", "SELECT exit_code FROM runs")
    assert ended == [(130,)], "the step ended in its own way and recorded it"
    gallery.clear_faults()
    assert result(recipe, "--workspace", tmp_path / "ws", **there)["counts"]["kept"] > 0
