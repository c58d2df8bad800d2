"""Opt-outs and newer versions reach files that `--to` put at an address: they leave it; `--undo` sends them back."""

from __future__ import annotations

import csv
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow.parquet
import pytest
from download_support import (
    command,
    fill,
    only,
    originals,
    report,
    rows,
    run,
    step,
)
from fsspec.implementations.memory import MemoryFileSystem
from hostile_server import Site, jpeg
from support import as_rows, flat, load_step, snapshot

from lib.db import open_database
from lib.db.download_queue import Recheck
from lib.workspace import Workspace

REFRESH = Recheck(refresh=True)


class Killed(BaseException):
    """Ends a run in the middle, as a signal would."""


class Store(MemoryFileSystem):
    """A store of objects that may refuse to delete, or end the process before or after it has."""

    protocol = "gleanertest"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    trouble = ""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("gleanertest://", "memory://"))

    def rm_file(self, path: str) -> None:
        trouble, Store.trouble = Store.trouble, ""
        if trouble == "refused":
            raise PermissionError(13, "may not delete", path)
        if trouble == "before":
            raise Killed
        super().rm_file(path)
        if trouble == "after":
            raise Killed


fsspec.register_implementation("gleanertest", Store, clobber=True)
ADDRESS = "gleanertest://pictures/here"


@pytest.fixture(name="there", autouse=True)
def there_fixture() -> Iterator[Store]:
    store = fsspec.filesystem("gleanertest")
    Store.store.clear()
    Store.trouble = ""
    yield store


def kept(store: Store) -> list[str]:
    return [str(path) for path in store.find("/pictures")]


def quarantined(workspace: Workspace) -> list[str]:
    return sorted(
        path.relative_to(workspace.quarantine).as_posix() for path in workspace.quarantine.rglob("*") if path.is_file()
    )


def opt_out(workspace: Workspace, site: Site) -> None:
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ?", (site.address("/noai/1"),))


def journal(workspace: Workspace) -> list[tuple[Any, ...]]:
    return as_rows(workspace.database, "SELECT reason, state FROM actions ORDER BY id")


@pytest.mark.parametrize("to", [ADDRESS, ADDRESS + "/", ""])
def test_an_owner_who_opts_out_later_is_heard_at_any_address(
    workspace: Workspace, site: Site, there: Store, to: str
) -> None:
    """Also by a run that keeps its own files elsewhere."""
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    (file,) = kept(there)
    opt_out(workspace, site)
    made = report(workspace, to=to, again=REFRESH)
    assert made.stats.states == {"opted_out": 1} and made.retired == 1
    assert kept(there) == [] and len(quarantined(workspace)) == 1
    assert file.endswith(quarantined(workspace)[0].partition("/")[2])
    assert (workspace.quarantine / quarantined(workspace)[0]).read_bytes() == jpeg(5)
    assert as_rows(workspace.database, "SELECT state, path FROM files") == [
        ("quarantined", f"quarantine/{quarantined(workspace)[0]}")
    ]
    assert journal(workspace) == [("opted_out", "done")] and only(workspace)["sha256"] is None
    assert report(workspace, to=to).retired == 0


def test_it_is_sent_back_by_an_undo(workspace: Workspace, site: Site, there: Store) -> None:
    fill(workspace, originals(site, "/tagged/5", "/tagged/6"))
    run(workspace, to=ADDRESS)
    before, listed = kept(there), as_rows(workspace.database, "SELECT path, state FROM files ORDER BY path")
    opt_out(workspace, site)
    run(workspace, to=ADDRESS, again=REFRESH)
    assert kept(there) == [] and step.main(command(workspace, "--undo", "last", "-n", "-q")) == 0
    assert kept(there) == [] and len(quarantined(workspace)) == 2
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0
    assert kept(there) == before and quarantined(workspace) == []
    assert as_rows(workspace.database, "SELECT path, state FROM files ORDER BY path") == listed
    assert report(workspace, to=ADDRESS).retired == 0 and kept(there) == before
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0


def test_an_undo_overwrites_nothing_at_an_address(workspace: Workspace, site: Site, there: Store) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    (file,) = kept(there)
    opt_out(workspace, site)
    run(workspace, to=ADDRESS, again=REFRESH)
    there.pipe_file(file, b"somebody's")
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0
    assert there.cat_file(file) == b"somebody's" and len(quarantined(workspace)) == 1
    there.pipe_file(file, jpeg(5))  # as an undo leaves it that was killed after it had sent the file
    assert step.main(command(workspace, "--undo", "last", "-q")) == 0
    assert there.cat_file(file) == jpeg(5) and quarantined(workspace) == []
    assert journal(workspace) == [("opted_out", "undone")]


def test_a_newer_version_replaces_the_old_one_at_an_address(workspace: Workspace, site: Site, there: Store) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    site.version = 1
    assert report(workspace, to=ADDRESS, again=REFRESH).retired == 1
    (file,) = kept(there)
    assert there.cat_file(file) == jpeg(6) and journal(workspace) == [("superseded", "done")]


def test_what_another_picture_has_too_stays(workspace: Workspace, site: Site, there: Store) -> None:
    fill(workspace, originals(site, "/good/5", "/good/5?again"))
    run(workspace, to=ADDRESS)
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ? WHERE url LIKE '%again'", (site.address("/noai/1"),))
    assert report(workspace, to=ADDRESS, again=REFRESH).retired == 0
    assert len(kept(there)) == 1 and sorted(row["state"] for row in rows(workspace).values()) == ["done", "opted_out"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_around_the_removal_loses_nothing(workspace: Workspace, site: Site, there: Store, moment: str) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    opt_out(workspace, site)
    Store.trouble = moment
    with pytest.raises(Killed):
        run(workspace, to=ADDRESS, again=REFRESH)
    assert len(kept(there)) == (moment == "before") and len(quarantined(workspace)) == 1
    report(workspace, to=ADDRESS)
    assert kept(there) == [] and len(quarantined(workspace)) == 1
    assert journal(workspace) == [("opted_out", "done")]
    assert as_rows(workspace.database, "SELECT state FROM files") == [("quarantined",)]


def test_a_store_that_lets_nothing_be_removed_keeps_it_and_is_asked_again(
    workspace: Workspace, site: Site, there: Store, caplog: pytest.LogCaptureFixture
) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    opt_out(workspace, site)
    Store.trouble = "refused"
    assert report(workspace, to=ADDRESS, again=REFRESH).retired == 0
    assert len(kept(there)) == 1 and not workspace.quarantine.exists()
    assert "is not moved (PermissionError" in caplog.text and journal(workspace) == [("opted_out", "failed")]
    assert report(workspace, to=ADDRESS).retired == 1
    assert kept(there) == [] and len(quarantined(workspace)) == 1


@pytest.mark.parametrize("meanwhile", ["gone", "another"])
def test_what_is_not_there_any_more_is_left_alone(
    workspace: Workspace, site: Site, there: Store, caplog: pytest.LogCaptureFixture, meanwhile: str
) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=ADDRESS)
    (file,) = kept(there)
    opt_out(workspace, site)
    if meanwhile == "gone":
        there.rm_file(file)
    else:
        there.pipe_file(file, b"somebody's")
    assert report(workspace, to=ADDRESS, again=REFRESH).retired == 0
    assert not workspace.quarantine.exists() and kept(there) == ([] if meanwhile == "gone" else [file])
    assert "it is left as it is" in caplog.text and journal(workspace) == [("opted_out", "dropped")]
    assert report(workspace, to=ADDRESS).retired == 0 and len(journal(workspace)) == 1
    assert as_rows(workspace.database, "SELECT state FROM files") == [("missing",)]


@pytest.mark.parametrize("to", [ADDRESS, ""])
def test_a_sidecar_leaves_with_its_picture(workspace: Workspace, site: Site, there: Store, to: str) -> None:
    fill(workspace, originals(site, "/tagged/5"))
    run(workspace, to=to, sidecar=True)
    lying = kept(there) if to else [str(path) for path in workspace.images.rglob("*.*")]
    assert len(lying) == 2 and sum(name.endswith(".json") for name in lying) == 1
    opt_out(workspace, site)
    report(workspace, to=to, again=REFRESH)
    assert kept(there) == [] and not list(workspace.images.rglob("*.json"))
    assert sorted(name.rpartition("/")[2] for name in quarantined(workspace)) == sorted(
        name.rpartition("/")[2] for name in lying
    )
    assert journal(workspace) == [("opted_out", "done")] * 2
    assert step.main(command(workspace, "--undo", "last")) == 0
    assert len(kept(there) if to else list(workspace.images.rglob("*.*"))) == 2 and not quarantined(workspace)


def test_copies_that_step_7_made_leave_too(workspace: Workspace, site: Site) -> None:
    fill(workspace, originals(site, "/tagged/5", "/good/1"))
    run(workspace)
    sort = load_step("sort")
    assert sort.main(["--workspace", str(workspace.root), "-q", "orientation"]) == 0
    assert len(list(workspace.sorted.rglob("*.jpg"))) == 2
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ? WHERE url LIKE '%tagged%'", (site.address("/noai/1"),))
    assert step.main(command(workspace, "--refresh")) == 0
    assert len(list(workspace.sorted.rglob("*.jpg"))) == 1
    assert len(quarantined(workspace)) == 2
    assert step.main(command(workspace, "--undo", "last")) == 0
    assert len(list(workspace.sorted.rglob("*.jpg"))) == 2


FORMS = {
    "imagefolder": (),
    "hardlinks": ("--mode", "hardlink"),
    "symlinks": ("--mode", "symlink"),
    "labels": ("--label", "orientation"),
    "webdataset": ("--as", "webdataset"),
    "parquet": ("--as", "parquet"),
    "paths": ("--as", "parquet", "--parquet-pictures", "reference"),
    "converted": ("--convert", "png"),
}
sort_step = load_step("sort")


def sort(workspace: Workspace, *words: object) -> int:
    return sort_step.main(["--workspace", str(workspace.root), "-q", "--workers", "1", *map(str, words)])


def told(workspace: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert sort(workspace, *words, "--json") == 0
    found: dict[str, Any] = flat(capsys.readouterr().out)
    return found


def exported(workspace: Workspace, site: Site, *flags: str) -> str:
    """Three downloaded pictures in a dataset; the owner of the first opts out. Gives that picture's content."""
    fill(workspace, originals(site, "/tagged/5", "/good/1", "/good/2"))
    run(workspace)
    assert sort(workspace, "orientation") == 0 and sort(workspace, "export", "--split", "1", *flags) == 0
    (sha256,) = as_rows(workspace.database, "SELECT sha256 FROM downloads ORDER BY image_id LIMIT 1")[0]
    refuse(workspace, site)
    return str(sha256)


def refuse(workspace: Workspace, site: Site, path: str = "tagged") -> None:
    with open_database(workspace.database) as db:
        db.execute("UPDATE image_variants SET url = ? WHERE url LIKE ?", (site.address("/noai/1"), f"%{path}%"))


def contents_of(place: Path) -> list[str]:
    """The contents that a dataset lists, whatever its form; and every name in it agrees."""
    found = []
    for path in sorted(place.rglob("*")):
        if path.name == "metadata.jsonl":
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            assert all(os.path.lexists(path.parent / line["file_name"]) for line in lines)
            others = {other.name for other in path.parent.rglob("*") if not other.is_dir()} - {path.name}
            assert others == {line["file_name"].rpartition("/")[2] for line in lines}
            found += lines
        elif path.suffix == ".tar":
            with tarfile.open(path) as shard:
                names = shard.getnames()
                assert len(names) == 3 * len({name.partition(".")[0] for name in names})
                found += [json.load(shard.extractfile(name)) for name in names if name.endswith(".json")]
            rows = pyarrow.parquet.read_table(path.with_suffix(".parquet")).to_pylist()
            assert {row["key"] for row in rows} == {name.partition(".")[0] for name in names}
            assert json.loads(path.with_name(f"{path.stem}_stats.json").read_text())["count"] == len(rows)
        elif path.suffix == ".parquet" and not path.with_suffix(".tar").exists():
            found += pyarrow.parquet.read_table(path).to_pylist()
    rows = list(csv.DictReader((place / "attribution.csv").open(encoding="utf-8")))
    listed = [str(record.get("original_sha256") or record["sha256"]) for record in found]
    names = [record.get("key") or content[:24] for record, content in zip(found, listed, strict=True)]
    assert sorted(row["file_name"].partition(".")[0] for row in rows) == sorted(names)
    assert sum(json.loads((place / "dataset.json").read_text())["pictures"].values()) == len(listed)
    return sorted(listed)


@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_that_holds_what_has_opted_out_is_named_and_loses_it_on_wish(
    workspace: Workspace, site: Site, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = workspace.root / "export"
    sha256 = exported(workspace, site, *FORMS[form])
    before, kept = contents_of(place), snapshot(place)
    assert sha256 in before and len(before) == 3

    capsys.readouterr()
    assert step.main(command(workspace, "--refresh", "--json")) == 0
    out, err = capsys.readouterr()
    (named,) = json.loads(out)["result"]["datasets_with_opted_out"]
    assert named["path"] == "export" and named["sha256"] == [sha256] and named["there"] and named["pictures"] == 1
    assert "export holds 1 picture whose owner" in err and "--drop-opted-out" in err
    assert os.path.lexists(place) and snapshot(place) == kept  # nothing is taken out unasked

    whole = snapshot(workspace.root)
    preview = told(workspace, capsys, "export", "--drop-opted-out", "-n")
    assert preview["datasets"][0]["outcome"] == "held" and preview["datasets"][0]["pictures"] == 1
    assert snapshot(workspace.root) == whole

    (done,) = told(workspace, capsys, "export", "--drop-opted-out")["datasets"]
    assert done["outcome"] == "taken_out" and done["pictures"] == 1
    assert contents_of(place) == sorted(set(before) - {sha256})
    assert not any(sha256[:24] in path.name for path in place.rglob("*"))
    assert "1 picture whose owner" in (place / "README.md").read_text("utf-8")
    assert told(workspace, capsys, "export", "--drop-opted-out")["datasets"] == []
    assert report(workspace).held == []

    assert sort(workspace, "--undo", "last") == 0
    assert snapshot(place) == kept and contents_of(place) == before
    assert [entry["sha256"] for entry in report(workspace).held] == [[sha256]]


def test_the_next_export_leaves_out_what_has_opted_out(workspace: Workspace, site: Site) -> None:
    sha256 = exported(workspace, site)
    copies = workspace.root.parent / "copies"
    shutil.copytree(workspace.images, copies)
    assert step.main(command(workspace, "--refresh", "-q")) == 0
    for name, more in (("own", ()), ("folder", (str(copies),))):
        assert sort(workspace, "export", *more, "--to", workspace.root / name) == 0
        assert sha256 not in contents_of(workspace.root / name) and len(contents_of(workspace.root / name)) == 2
    assert sort(workspace, "export", "--replace", "--split", "1") == 0
    assert sha256 not in contents_of(workspace.root / "export") and report(workspace).held == []


def test_several_datasets_one_of_which_was_moved_away_and_one_taken_back(
    workspace: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    away, outside = workspace.root / "away", workspace.root.parent / "outside"
    sha256 = exported(workspace, site)
    assert sort(workspace, "export", "--to", away) == 0 and sort(workspace, "export", "--to", outside) == 0
    assert sort(workspace, "export", "--to", workspace.root / "undone") == 0 and sort(workspace, "--undo", "last") == 0
    away.rename(workspace.root / "elsewhere")
    (outside / "notes.txt").write_text("mine")
    capsys.readouterr()
    assert step.main(command(workspace, "--refresh")) == 0
    err = capsys.readouterr().err
    assert "to away held 1 picture" in err and "outside holds 1 picture" in err and "undone" not in err
    assert sort(workspace, "export", "--drop-opted-out", "--to", outside) == 0
    assert sha256 not in contents_of(outside) and (outside / "notes.txt").read_text() == "mine"
    assert sha256 in contents_of(workspace.root / "export")
    found = told(workspace, capsys, "export", "--drop-opted-out")["datasets"]
    assert [(entry["path"], entry["outcome"]) for entry in found] == [("export", "taken_out"), ("away", "not_there")]
    capsys.readouterr()
    assert step.main(command(workspace)) == 0 and "opted out" not in capsys.readouterr().err  # told once is enough


@pytest.mark.parametrize("form", ["imagefolder", "webdataset", "parquet"])
def test_a_picture_that_somebody_took_out_by_hand_is_asked_about_no_more(
    workspace: Workspace, site: Site, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exported(workspace, site, "--as", form)
    place = workspace.root / "export"
    with open_database(workspace.database) as db:
        db.execute("UPDATE dataset_pictures SET sha256 = 'f' || substr(sha256, 2)")
        db.execute("INSERT INTO superseded (image_id, sha256) SELECT 1, sha256 FROM dataset_pictures LIMIT 1")
    before = snapshot(place)
    (entry,) = told(workspace, capsys, "export", "--drop-opted-out")["datasets"]
    assert entry["pictures"] == 0 and snapshot(place) == before and report(workspace).held == []
    assert not list(workspace.root.glob(".*.tmp*"))


@pytest.mark.parametrize("damage", ["metadata.jsonl", "shard.tar", "shard.parquet", "dataset.json"])
def test_a_dataset_that_is_no_longer_what_was_written_stays_as_it_is(
    workspace: Workspace, site: Site, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    form = {".tar": "webdataset", ".parquet": "parquet"}.get(Path(damage).suffix, "imagefolder")
    exported(workspace, site, "--as", form)
    assert step.main(command(workspace, "--refresh", "-q")) == 0
    pattern = damage if "shard" not in damage else f"*{Path(damage).suffix}"
    (broken,) = (workspace.root / "export").rglob(pattern)
    broken.write_bytes(b"{ no longer")
    before = snapshot(workspace.root / "export")
    (entry,) = told(workspace, capsys, "export", "--drop-opted-out")["datasets"]
    assert entry["outcome"] == "unreadable" and snapshot(workspace.root / "export") == before
    assert len(report(workspace).held) == 1


def test_an_owner_who_opts_out_counts_where_another_picture_had_a_better_one(workspace: Workspace, site: Site) -> None:
    """The content leaves as opted out, with its copies, and not as replaced."""
    exported(workspace, site)
    with open_database(workspace.database) as db:
        (other,) = db.column("SELECT sha256 FROM downloads ORDER BY image_id LIMIT 1 OFFSET 1")
        (first,) = db.column("SELECT sha256 FROM downloads ORDER BY image_id LIMIT 1")
        db.execute("INSERT INTO superseded (image_id, sha256, by_sha256) VALUES (2, ?, ?)", (first, other))
    assert len(list(workspace.sorted.rglob("*.jpg"))) == 3
    assert step.main(command(workspace, "--refresh", "-q")) == 0
    assert len(list(workspace.sorted.rglob("*.jpg"))) == 2
    assert set(journal(workspace)) >= {("opted_out", "done")} and ("superseded", "done") not in journal(workspace)


def test_an_address_is_no_folder_for_a_dataset(
    workspace: Workspace, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported(workspace, site)
    monkeypatch.chdir(tmp_path)
    for address in ("s3://bucket/set", "memory:/set", "file:///srv/set"):
        assert sort(workspace, "export", "--to", address) == 2
    assert not [path for path in tmp_path.iterdir() if ":" in path.name]
