"""The card of a dataset: the whole history in order, no word cut, no path of the machine in any exported file."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import drawing, load_step

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.files.pictures import sha256_of
from lib.sort.export.card import CARD, DatasetCard, amend_card, hub_license
from lib.sort.export.history import history
from lib.text import places, without_places

TELLING = "Zanzibar-Kowalczyk"  # a folder's name that stands nowhere else
ARGUMENTS = {"step": "sort", "workspace": f"/home/{TELLING}/ws"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A person's folder, whose path no exported byte may hold."""
    folder = tmp_path / TELLING
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    return folder


def run(step: str, home: Path, *arguments: object, expect: int = 0) -> None:
    words = [*map(str, arguments), "--workspace", str(home / "ws"), "-q"]
    assert load_step(step).main(words) == expect, words


@pytest.fixture
def workspace(home: Path) -> Path:
    """Pictures of a search by picture, of a list and of a folder, each from below that path."""
    own, root = home / "my pictures", home / "ws"
    own.mkdir()
    for number in range(6):
        drawing(number, 90, 70).save(own / f"own-{number}.png")
    (own / "own-0.json").write_text(
        json.dumps({"title": f"seen in file://{own}/own-0.png", "creator": "Ann", "license": "cc0"}), "utf-8"
    )
    (home / "list.csv").write_text("url,caption\nhttps://x.example/1.jpg,one\n", encoding="utf-8")
    run("ingest", home, "--import", home / "list.csv")
    run("ingest", home, "--import-folder", own)
    (root / "images").mkdir(exist_ok=True)
    with open_database(root / "gleaner.db") as db:
        for number in range(6, 10):
            path = root / f"images/{number}.jpg"
            drawing(number, 90, 70).save(path)
            sha256 = sha256_of(path)
            add_file(db, FileRow(sha256, f"images/{path.name}", path.stat().st_size, "jpeg", 90, 70))
            image = db.execute(
                "INSERT INTO images (key, engine, title, license, first_seen_at)"
                " VALUES (?, 'yandex', 't', 'CC0 1.0', '')",
                (f"y:{number}",),
            ).lastrowid
            db.execute(
                "INSERT INTO downloads (image_id, state, sha256, final_url, updated_at)"
                " VALUES (?, 'done', ?, 'https://x/', '')",
                (image, sha256),
            )
            query = db.execute(
                "INSERT INTO queries (engine, kind, image_sha256, image_path, params, created_at, updated_at)"
                " VALUES ('yandex', 'image', ?, ?, ?, '', '')",
                (str(number % 2) * 64, str(home / "my pictures" / f"lake {number % 2}.jpg"), json.dumps({"n": number})),
            ).lastrowid
            db.execute("INSERT INTO results (query_id, image_id, rank) VALUES (?, ?, 0)", (query, image))
    return root


FORMS = {
    "imagefolder": ("--as", "imagefolder"),
    "imagefolder by label": ("--as", "imagefolder", "--label", "orientation"),
    "webdataset": ("--as", "webdataset"),
    "parquet": ("--as", "parquet"),
}


@pytest.mark.parametrize("form", FORMS)
def test_no_exported_byte_tells_of_the_machine(form: str, home: Path, workspace: Path) -> None:
    run("dedup", home, "all", "--protect", home / "my pictures")
    run("sort", home, "orientation")
    run("sort", home, "quality", home / "my pictures", "--where", f"query != '{home}/lake 1.jpg'")
    condition = f"query in ('{home}/my pictures/lake 1.jpg', 'lake 0.jpg') or engine = folder"
    run("sort", home, "export", "--to", home / "set", "--where", condition, *FORMS[form])
    texts = dict(exported(home / "set"))
    telling = [name for name, text in texts.items() if TELLING in text or str(home) in text]
    assert telling == []
    card = texts["README.md"]
    assert "10 pictures" in card and "| my pictures | 6 |" in card
    assert all(f"| lake {number}.jpg (picture {str(number) * 16}) | 2 |" in card for number in (0, 1))
    assert f"--import list.csv (SHA-256 {sha256_of(home / 'list.csv')})" in card
    assert "- --where query in ('lake 1.jpg', 'lake 0.jpg') or engine = folder\n" in card
    assert "sort quality technical --where \"query != 'lake 1.jpg'\": 6 pictures" in card
    assert '; in "my pictures"\n' in card
    records = "\n".join(text for name, text in texts.items() if name != "README.md")
    assert "lake 0.jpg" in records and "1" * 64 in records  # the name and the digest, which tells two of one name


def exported(folder: Path) -> Iterator[tuple[str, str]]:
    """(name, text) of every exported file, unpacked: members of tar files, rows of Parquet, names as well."""
    from pyarrow import parquet

    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        yield f"{name} (name)", name
        if path.suffix == ".tar":
            with tarfile.open(path) as shard:
                for entry in shard:
                    content = shard.extractfile(entry)
                    yield f"{name}/{entry.name}", content.read().decode("latin-1") if content else ""
        elif path.suffix == ".parquet":
            table = parquet.read_table(path)
            yield f"{name} (schema)", str(table.schema.metadata)
            yield name, repr(table.drop_columns(["image"] if "image" in table.column_names else []).to_pylist())
        if path.is_file():
            text = path.read_bytes().decode("utf-8" if path.suffix in (".md", ".jsonl", ".csv", ".json") else "latin-1")
            yield name if path.suffix != ".parquet" else f"{name} (bytes)", text


def test_the_history_tells_every_run_that_changed_something(home: Path, workspace: Path) -> None:
    own = workspace / "images"
    for number in range(6):  # repeats of what is there
        (own / f"copy-{number}.jpg").write_bytes((own / "6.jpg").read_bytes() + bytes(number + 1))
        with open_database(workspace / "gleaner.db") as db:
            path = own / f"copy-{number}.jpg"
            add_file(db, FileRow(sha256_of(path), f"images/{path.name}", path.stat().st_size, "jpeg", 90, 70))
    run("dedup", home, "exact", "--max-share", "1")
    run("dedup", home, "exact", "--max-share", "1")  # finds nothing more to remove
    run("sort", home, "orientation", "--dry-run")
    run("dedup", home, "--undo", "last")
    run("dedup", home, "exact", "--max-share", "1")
    (gone,) = [path for path in (workspace / "quarantine").rglob("*.jpg") if path.name == "copy-3.jpg"]
    run("dedup", home, "--restore", gone)
    run("dedup", home, "all", "--max-share", "1")
    run("sort", home, "orientation")
    run("sort", home, "orientation")  # changes nothing
    run("sort", home, "--undo", "last")
    run("sort", home, "export")
    card = (workspace / "export/README.md").read_text("utf-8")
    lines = re.search(r"## How it was made\n\n((?:- .+\n)+)", card)
    assert lines
    told = [line.partition(": ")[2] for line in lines[1].splitlines()]
    dedup = [line for line in told if line.startswith("dedup")]
    assert len(dedup) == 4, told
    undoing = re.search(r"run (\d+): dedup --undo", lines[1])
    assert undoing and dedup[0].startswith("dedup exact: ")
    assert "6 removed" in dedup[0] and re.search(rf"; undone on \d{{4}}-\d\d-\d\d by run {undoing[1]}$", dedup[0])
    assert dedup[1] == "dedup --undo last: 6 undone"
    restoring = re.search(r"run (\d+): dedup all --restore copy-3.jpg: 1 restored\n", lines[1])
    assert restoring and dedup[2].startswith("dedup exact: ") and "6 removed" in dedup[2]
    assert re.search(rf"; 1 of 6 undone on [\d-]+ by run {restoring[1]}$", dedup[2]) and "bytes" not in "".join(told)
    assert not any(" 0 " in line for line in told)
    sorting = [line for line in told if line.startswith("sort")]
    assert len(sorting) == 2 and "its labels stay" in sorting[0] and sorting[1].startswith("sort --undo last")
    assert told[0].startswith("ingest --import list.csv") and told[1].startswith("ingest --import-folder")
    assert told[-1] == "3 runs that changed none of it (dedup 2, sort 1)."
    runs = [int(number) for number in re.findall(r", run (\d+): ", lines[1])]
    assert runs == sorted(runs) and len(runs) == len(told) - 1


def add_run(db: Any, step: str, day: int, counts: dict[str, Any], exit_code: int | None = 0, **arguments: Any) -> int:
    cursor = db.execute(
        "INSERT INTO runs (step, arguments, started_at, finished_at, exit_code, counts, version)"
        " VALUES (?, ?, ?, ?, ?, ?, '')",
        (
            *(step, json.dumps(arguments), f"2026-01-01T00:00:{day % 60:02}.000Z"),
            *(None if exit_code is None else "2026-12-31", exit_code, json.dumps(counts)),
        ),
    )
    return int(cursor.lastrowid)


def test_runs_without_an_end_are_told_by_what_they_left(tmp_path: Path) -> None:
    with open_database(tmp_path / "gleaner.db") as db:
        killed = add_run(db, "dedup", 1, {}, None, mode="all")
        for state in ("done", "done", "undone"):
            db.execute(
                "INSERT INTO actions (run_id, kind, state, finished_at, created_at)"
                " VALUES (?, 'move', ?, '2026-01-02', '')",
                (killed, state),
            )
        add_run(db, "download", 2, {}, None)  # had not done anything
        add_run(db, "download", 3, {"done": 7, "failed": 0}, 130, limit=7)
        add_run(db, "collect", 4, {"pages": 1, "results": 9}, 4, engine=["bing"], keywords=["lake"])
        lines = [line.partition(": ")[2] for line in history(db)]
    assert lines == [
        "dedup all: 2 journal entries; it did not come to its end, and its own counts are not known; 1 of 3 undone on"
        " 2026-01-02",
        "download --limit 7: 7 done; interrupted",
        "collect bing --keywords lake: 1 page, 9 results; stopped by a captcha or a block",
        "1 run that changed none of it (download 1).",
    ]  # fmt: skip


EVERYTHING = {
    "collect": ({"pages": 2, "results": 40}, "images keywords_file replay profile"),
    "ingest": ({"new_pictures": 3}, "source folder"),
    "cleanup": ({"rows": 4}, "blocklist allowlist"),
    "download": ({"opted_out": 2, "done": 0}, "blocklist allowlist placeholders to"),
    "dedup": ({"removed": 1}, "reference protect apply decisions models_dir clip_model plan"),
    "sort": ({"rebucketed": 5}, "keep_file drop_file labels vlm_prompt models_dir clip_model to detector vlm_url"),
}


@pytest.mark.parametrize("path", ["/home/Ann Smith/data/list.v2.txt", r"C:\Users\Ann Smith\data\list.v2.txt"])
def test_options_of_every_step_are_told_without_places(path: str, tmp_path: Path) -> None:
    with open_database(tmp_path / "gleaner.db") as db:
        for step, (counts, names) in EVERYTHING.items():
            add_run(db, step, 1, counts, **dict.fromkeys(names.split(), path), folders=[path, path], workspace=path)
        add_run(db, "dedup", 2, {"removed": 1}, mode="exact", what=["exact", path])
        add_run(db, "sort", 2, {"sorted": 1}, criterion="quality", metric=["musiq"], where=f"query = '{path}'")
        add_run(db, "cleanup", 3, {"restored": path}, restore=path)
        add_run(db, "sort", 4, {"datasets": 1, "pictures": 3, "taken_out": 1}, criterion="export", drop_opted_out=True)
        add_run(db, "sort", 5, {"pictures": 3, "train": 3}, criterion="export", to=path)
        lines = [line.partition(": ")[2] for line in history(db)]
    assert not any(word in line for line in lines for word in ("Ann", "/data", "\\", "home", "C:"))
    assert (
        lines[1]
        == "ingest --import list.v2.txt --import-folder list.v2.txt: 3 new pictures; in list.v2.txt, list.v2.txt"
    )
    assert lines[3].startswith(
        "download --blocklist list.v2.txt --allowlist list.v2.txt --placeholders list.v2.txt: 2 opted out"
    )
    assert lines[6] == "dedup exact: 1 removed; in list.v2.txt"
    assert lines[7] == "sort quality musiq --where \"query = 'list.v2.txt'\": 1 sorted"
    assert lines[8:] == [
        "cleanup --restore list.v2.txt: restored list.v2.txt",
        "sort export --drop-opted-out: 1 dataset, 3 pictures, 1 taken out",
    ]


def test_thousands_of_runs_are_summed_up_truthfully(tmp_path: Path) -> None:
    with open_database(tmp_path / "gleaner.db") as db:
        for number in range(400):
            add_run(db, "download", number, {"done": 3, "failed": 1, "MiB": 1.5}, limit=4)
        alike = history(db)
        for number in range(1200):
            add_run(
                db,
                ("collect", "ingest")[number % 2],
                number,
                {"pages": 2, "results": 5, "new_pictures": 4},
                limit=number,
            )
        many = history(db)
        add_run(db, "dedup", 0, {"removed": 128}, mode="all")
        assert history(db)[-1].endswith("dedup all: 128 removed") and "removed" not in "".join(history(db)[:-1])
    assert [line.partition(", ")[2] for line in alike] == [
        "400 runs (1 to 400): download --limit 4: 1,200 done, 400 failed"
    ]
    assert len(many) < 100 and many[0] == alike[0]
    found = {
        name: sum(int(n.replace(",", "")) for line in many for n in re.findall(rf"([\d,]+) {name}\b", line))
        for name in ("pages", "results", "new pictures")
    }
    assert found == {"pages": 2400, "results": 6000, "new pictures": 4800}
    assert sum("summed up here" in line for line in many) == 1


def test_a_card_cuts_no_word_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    words = " ".join(f"word{number}" for number in range(60))
    longer = " ".join(f"long{number}" for number in range(2000))
    card = DatasetCard(tmp_path, ())
    for query in (words, longer, "x" * 5000):
        card.add("train", "1.jpg", {**dict.fromkeys(RECORD, ""), "query": query})
    card.write(title=words, filters=[words], history=[words])
    text = (tmp_path / "README.md").read_text("utf-8")
    assert f"| {words} | 1 |" in text and f"- {words}\n" in text and f"# {words}\n" in text
    shortened = re.search(r"\| (long0 .*) … \(([\d,]+) more characters\) \| 1 \|", text)
    assert shortened
    kept, left = shortened.groups()
    assert longer.startswith(kept + " ") and len(kept) + int(left.replace(",", "")) == len(longer)
    assert re.search(r"\| x{2000} … \(3,000 more characters\) \|", text)


RECORD = ("engine", "license", "license_url", "query", "title", "creator", "attribution", "image_url", "page_url")


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (["CC0-1.0"], "cc0-1.0"), (["CC-BY-4.0"], "cc-by-4.0"), (["CC-BY-SA-3.0"], "cc-by-sa-3.0"), (["GFDL"], "gfdl"),
        (["CC-BY-3.0-DE"], "other"), (["All rights reserved"], "other"), (["CC0-1.0", ""], "other"), ([""], "unknown"),
        (["CC0-1.0", "CC-BY-4.0"], "other"), (["Public domain"], "other"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "parquet"])
def test_the_head_is_what_hugging_face_reads(form: str, licenses: list[str], expected: str, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = DatasetCard(tmp_path, ("quality",))
    for split, license_ in zip(("train", "val", "test"), licenses * 3, strict=False):
        card.add(split, "1.jpg", {**dict.fromkeys(RECORD, ""), "license": license_, "label_quality": "high"})
    sides = ("train", "val", "test") if form != "imagefolder" else ()
    card.write(
        title='A "set": of\tlakes \x07\\ #1', filters=(), history=(), files={side: f"{side}/*.tar" for side in sides}
    )
    data = hub.DatasetCard.load(tmp_path / "README.md").data
    assert (
        data.license == expected and data.size_categories == ["n<1K"] and data.pretty_name == 'A "set": of lakes \\ #1'
    )
    assert data.task_categories == ["image-classification"] and data.tags == ["image"]
    files = [] if form == "imagefolder" else data.to_dict()["configs"][0]["data_files"]
    assert [part["split"] for part in files] == ([] if form == "imagefolder" else ["train", "validation", "test"])


@pytest.mark.parametrize("flags", [("--as", "parquet", "--parquet-pictures", "reference"), ("--mode", "symlink")])
def test_a_dataset_that_refers_to_this_machine_says_so(flags: tuple[str, ...], home: Path, workspace: Path) -> None:
    run("sort", home, "export", *flags)
    card = (workspace / "export/README.md").read_text("utf-8")
    assert "The pictures are not in it: " in card and "on the machine where it was made" in card and TELLING not in card


def test_the_head_tells_other_contents_apart(tmp_path: Path) -> None:
    """`datasets` knows a place by its head: it differs with the contents, also after pictures were taken out."""
    (tmp_path / "to").mkdir()
    heads = []
    for digest in ("a" * 64, "b" * 64, "a" * 64):
        DatasetCard(tmp_path, ()).write(title="t", filters=[], history=[], files={"train": "*.tar"}, digest=digest)
        heads.append((tmp_path / CARD).read_text(encoding="utf-8").split("---")[1])
    amend_card(tmp_path, tmp_path / "to", {"x"}, 1)
    heads.append((tmp_path / "to" / CARD).read_text(encoding="utf-8").split("---")[1])
    assert heads[0] == heads[2] and len({*heads}) == 3
    assert all(len(re.findall(r"^  description: contents [0-9a-f]{16}$", head, re.MULTILINE)) == 1 for head in heads)


def test_the_hub_has_a_name_for_one_licence_alone() -> None:
    from collections import Counter

    assert hub_license(Counter()) == "unknown" and hub_license(Counter({"unknown": 2, "GFDL": 1})) == "other"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see /srv/ann/pics/lake.jpg", "see lake.jpg"), ("file:///srv/ann/pics/lake.jpg", "lake.jpg"),
        ("file:/srv/ann/x.png!", "x.png!"), ("at /srv/ann", "at "), ("/srv/anna/x.jpg", "/srv/anna/x.jpg"),
        ("https://site.example/srv/ann/x.jpg", "https://site.example/srv/ann/x.jpg"), ("(/srv/ann/a/b)", "b)"),
    ],
)  # fmt: skip
def test_a_text_keeps_no_place_on_this_machine(text: str, expected: str) -> None:
    assert without_places(text, places(["/srv/ann", "/"])).replace("(", "") == expected.replace("(", "")


def test_the_card_names_the_recipes_that_made_the_dataset(tmp_path: Path) -> None:
    """By name and digest, with the runs that were theirs; runs of no recipe and the export itself are told apart."""
    one, other = (f"{name}.toml sha256:{sign * 64}" for name, sign in (("lakes", "a"), ("boats", "b")))
    with open_database(tmp_path / "gleaner.db") as db:
        for recipe in (one, one, "", other, one, "../x sha256:" + "c" * 64):
            given = {"recipe": recipe} if recipe else {}
            add_run(db, "dedup", 1, {"removed": 1}, mode="all", **given)
        last = add_run(db, "sort", 2, {"pictures": 3}, criterion="export", recipe=other)
        lines = history(db, last)
    assert lines[:2] == [
        f"By recipe lakes.toml (SHA-256 {'a' * 64}): 3 runs, 1 to 5.",
        f"By recipe boats.toml (SHA-256 {'b' * 64}): 2 runs, 4 to 7, this export among them.",
    ]
    assert len(lines) == 8 and "recipe" not in "".join(lines[2:])


def test_a_picture_without_a_page_is_of_the_site_of_its_address(tmp_path: Path) -> None:
    card = DatasetCard(tmp_path, ())
    for page, image in (
        ("", "https://one.example/a.jpg"),
        ("https://two.example/p", "https://cdn.example/a.jpg"),
        ("", ""),
    ):
        record = dict.fromkeys(("engine", "license", "query", "title", "creator", "license_url", "attribution"), "")
        card.add("train", "a.jpg", {**record, "page_url": page, "image_url": image})
    card.write(title="t", filters=[], history=[])
    assert dict(card.hosts) == {"one.example": 1, "two.example": 1, "unknown": 1}
