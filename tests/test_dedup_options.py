"""Step 6: crops and turns, other hashes, reference folders, query pictures, memory of decisions, links and purging."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from support import PATIENCE, ROOT, as_rows, dedup, drawing, dump, load_step, result, snapshot

from lib.db import Context, open_database
from lib.db.duplicates import is_removed
from lib.dedup.fingerprints import fingerprint
from lib.dedup.near import cells_with_views
from lib.hashing import dct, views
from lib.hashing.buffers import UNTRIMMED, Buffers, trimmed_box
from lib.hashing.kinds import KINDS, HashChoice
from lib.hashing.views import refine, sample
from lib.workspace import Workspace

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    return made


def verdicts(found: dict) -> dict[str, tuple[str, str, str]]:
    return {
        Path(member["path"]).name: (Path(group["keeper"]).name, member["kind"], member["decision"])
        for group in found["groups"]
        for member in group["members"]
    }


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def cropped(picture: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = picture.size
    return picture.crop((width * left, height * top, width * (1 - right), height * (1 - bottom)))


def framed(picture: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    made = Image.new("RGB", (picture.width + 50, picture.height + 50), colour)
    made.paste(picture, (25, 25))
    return made


def captioned(picture: Image.Image, *, over: bool) -> Image.Image:
    bar = picture.height // 8
    made = Image.new("RGB", (picture.width, picture.height + (0 if over else bar)), WHITE)
    made.paste(picture, (0, 0))
    made.paste(WHITE, (0, made.height - bar, made.width, made.height))
    ImageDraw.Draw(made).text((12, made.height - bar + 8), "when the cat says monday", fill=BLACK)
    return made


def watermarked(picture: Image.Image) -> Image.Image:
    made = picture.copy()
    ImageDraw.Draw(made).rectangle((60, 100, 220, 130), fill=(240, 240, 240))
    return made


T = Image.Transpose
ALTERED: dict[str, tuple[Callable[[Image.Image], Image.Image], str]] = {
    "crop": (lambda p: cropped(p, 0.05, 0.02, 0.03, 0.06), "a part of 8"),
    "deep crop": (lambda p: cropped(p, 0.11, 0.08, 0.04, 0.1), "a part of 7"),
    "one side": (lambda p: cropped(p, 0.0, 0.0, 0.15, 0.0), "a part of 8"),
    "border": (lambda p: framed(p, (200, 30, 60)), "with a border"),
    "white border": (lambda p: framed(p, WHITE), "with a border"),
    "caption below": (lambda p: captioned(p, over=False), "a part of 8"),
    "caption over": (lambda p: captioned(p, over=True), "c"),
    "mirror": (lambda p: p.transpose(T.FLIP_LEFT_RIGHT), "mirrored"),
    "upside down": (lambda p: p.transpose(T.ROTATE_180), "upside down"),
    "turned right": (lambda p: p.transpose(T.ROTATE_270), "turned"),
    "turned left": (lambda p: p.transpose(T.ROTATE_90), "turned"),
    "transposed": (lambda p: p.transpose(T.TRANSPOSE), "transposed"),
    "rotated": (lambda p: p.rotate(2.5, resample=Image.Resampling.BICUBIC), "c"),
    "covered": (watermarked, "changed in one place"),
}


def test_every_edit_is_found_and_left_for_review(folder, capsys):
    for number, (name, (alter, _)) in enumerate(ALTERED.items()):
        drawing(number, 480, 360).save(folder / f"{number:02d}.png")
        alter(drawing(number, 480, 360)).save(folder / f"{number:02d} {name}.jpg", quality=88)
    before = snapshot(folder)
    found = result(folder, capsys, "similar", folder)
    pairs = {
        frozenset((Path(group["keeper"]).stem, Path(member["path"]).stem)): (member["kind"], member["reason"])
        for group in found["groups"]
        for member in group["members"]
    }
    assert set(pairs) == {frozenset((f"{n:02d}", f"{n:02d} {name}")) for n, name in enumerate(ALTERED)}
    for number, (name, (_, reason)) in enumerate(ALTERED.items()):
        kind, said = pairs[frozenset((f"{number:02d}", f"{number:02d} {name}"))]
        assert kind == "edited" and reason in said, (name, said)
    assert snapshot(folder) == before, "an edit was taken away"
    dedup(folder, "similar", folder, "--remove", "edited", "--max-share", "100%")
    assert len(names(folder)) == len(ALTERED)


def test_what_was_not_measured_is_not_told(folder, capsys):
    drawing(1, 400, 300).save(folder / "a.png")
    drawing(1, 400, 300).resize((400, 260)).save(folder / "stretched.png")
    (group,) = result(folder, capsys, folder, "--dry-run")["groups"]
    assert [member["reason"] for member in group["members"]] == ["other proportions"]


def test_two_strangers_with_the_same_border_and_caption_are_no_pair(folder, capsys):
    for seed in range(4):
        captioned(framed(drawing(seed, 480, 360), BLACK), over=True).save(folder / f"{seed}.png")
    assert result(folder, capsys, "similar", folder)["groups"] == []


@pytest.mark.parametrize("name", dct.TURNS)
def test_a_turned_hash_is_the_hash_of_the_turned_picture(name: str):
    grey = np.random.default_rng(1).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    turned = np.stack([dct.turn(g, name) for g in grey])
    made = dct.threshold(dct.turned(dct.low_frequencies(grey)))[:, dct.TURNS.index(name)]
    assert np.array_equal(made, dct.hash_greys(turned))


def test_turns_are_those_of_pillow():
    picture = Image.fromarray(np.random.default_rng(2).integers(0, 256, (64, 64), dtype=np.uint8))
    turns = {
        "mirrored": T.FLIP_LEFT_RIGHT,
        "upside down mirrored": T.FLIP_TOP_BOTTOM,
        "upside down": T.ROTATE_180,
        "transposed": T.TRANSPOSE,
        "transversed": T.TRANSVERSE,
        "turned right": T.ROTATE_270,
        "turned left": T.ROTATE_90,
    }
    for name, turn in turns.items():
        assert np.array_equal(dct.turn(np.asarray(picture), name), np.asarray(picture.transpose(turn))), name


def test_a_window_hash_is_near_the_hash_of_the_crop(tmp_path: Path):
    picture = drawing(3, 640, 640)
    for box in views.WINDOWS[::5]:
        (left, right), (top, bottom) = box
        picture.crop((640 * left, 640 * top, 640 * right, 640 * bottom)).save(tmp_path / "crop.png")
        picture.save(tmp_path / "whole.png")
        whole, crop = (
            Buffers.from_bytes(fingerprint(str(tmp_path / name)).packed).greys[:1] for name in ("whole.png", "crop.png")
        )
        window = dct.threshold(dct.window_frequencies(whole, [box]))[0]
        assert int(np.bitwise_count(window ^ dct.hash_greys(crop)).sum()) <= 24


def test_refining_finds_the_window(tmp_path: Path):
    true = (0.07, 0.03, 0.95, 0.9)
    grey = np.asarray(drawing(4, 64, 64).convert("L"))
    box, correlation = refine(grey, sample(grey, true), (0.03, 0.03, 0.97, 0.97))
    assert correlation > 0.999 and np.allclose(box, true, atol=0.005)
    _, stranger = refine(grey, np.asarray(drawing(5, 64, 64).convert("L")), (0.03, 0.03, 0.97, 0.97))
    assert stranger < 0.9


@pytest.mark.parametrize(
    ("lines", "box"),
    [
        ((0, 0), UNTRIMMED),
        ((10, 0), (0, 26, 255, 255)),
        ((1, 0), UNTRIMMED),
        ((40, 0), UNTRIMMED),
        ((10, 20), (51, 26, 255, 255)),
    ],
)
def test_borders_are_trimmed_within_bounds(lines: tuple[int, int], box: tuple[int, int, int, int]):
    grey = np.random.default_rng(6).integers(0, 256, (100, 100), dtype=np.uint8)
    grey[: lines[0]] = 250
    grey[:, : lines[1]] = 250
    assert trimmed_box(grey) == box


def test_new_pictures_are_compared_with_those_known_already(tmp_path: Path):
    """Adding pictures in two goes finds what one go finds."""
    found = []
    greys = {}
    for number in range(12):
        base = drawing(number % 5, 200, 200)
        shown = (
            base if number < 5 else base.transpose(T.FLIP_LEFT_RIGHT) if number < 9 else cropped(base, 0.05, 0, 0, 0)
        )
        greys[f"{number:02d}"] = np.asarray(shown.convert("L").resize((64, 64)))

    def load(contents):
        return [Buffers(greys[c][None], np.zeros((2, 16, 16), np.uint8), 64, 64) for c in contents]

    hashes = {name: dct.hash_greys(grey[None])[0].tobytes() for name, grey in greys.items()}
    for goes in ([12], [7, 12], [3, 9, 12]):
        with open_database(tmp_path / f"{len(goes)}.db") as db:
            context = Context(db, Workspace(tmp_path))
            for count in goes:
                some = dict(list(hashes.items())[:count])
                cells = cells_with_views(context, some, load, "test")
            found.append({pair: near.distance for pair, near in cells.seen_as.items()})
            again = cells_with_views(context, hashes, lambda contents: pytest.fail("compared again"), "test")
            assert again.seen_as.keys() == found[-1].keys()
    assert found[0] and found[0].keys() == found[1].keys() == found[2].keys()


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize("size", [8, 16])
def test_hashes_of_imagehash_find_plain_copies_and_no_strangers(folder, capsys, kind, size):
    for seed in range(5):
        drawing(seed, 320, 240).save(folder / f"{seed}.png")
    drawing(0, 320, 240).resize((200, 150)).save(folder / "0-small.jpg", quality=85)
    how = ("--hash", kind, "--hash-size", size, "--keep", "largest")
    found = verdicts(result(folder, capsys, "similar", folder, *how))
    assert found == {"0-small.jpg": ("0.png", "same", "remove")}
    database = folder.parent / "ws" / "gleaner.db"
    assert as_rows(database, "SELECT count(*) FROM hashes WHERE kind = ? AND bits = ?", f"imagehash {kind}", size**2)
    assert result(folder, capsys, "similar", folder, *how)["summary"]["decoded"] == 0


def test_every_kind_of_hash_is_stricter_to_remove_than_to_show():
    for kind in KINDS:
        choice = HashChoice(kind, 16 if kind == "dct" else 8)
        assert 0 < choice.same_bits < choice.review_bits <= choice.bits // 4


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A dataset with small copies, and a folder with larger ones and a stranger."""
    known, fresh = tmp_path / "known", tmp_path / "photos"
    known.mkdir()
    fresh.mkdir()
    for seed in range(3):
        drawing(seed, 240, 180).save(known / f"k{seed}.jpg", quality=70)
        drawing(seed, 480, 360).save(fresh / f"f{seed}.png")
    (known / "k0-again.jpg").write_bytes((known / "k0.jpg").read_bytes())
    drawing(9, 480, 360).save(fresh / "stranger.png")
    cropped(drawing(1, 480, 360), 0.1, 0, 0, 0).save(fresh / "part.png")
    return known, fresh


def test_a_reference_folder_is_compared_against_and_never_touched(two, capsys):
    known, fresh = two
    before = snapshot(known)
    found = verdicts(result(fresh, capsys, "similar", fresh, "--reference", known, "--max-share", "100%"))
    assert snapshot(known) == before and names(fresh) == {"stranger.png", "part.png"}
    assert found["part.png"][1:] == ("edited", "review")
    assert {keeper for keeper, *_ in found.values()} <= names(known)
    assert not names(known) & set(found), "a reference is reported among its own"


def test_a_leak_is_told_and_nothing_moves(two, capsys):
    known, fresh = two
    before = snapshot(known), snapshot(fresh)
    found = result(fresh, capsys, known, fresh, "--leak", expect=3)
    assert (snapshot(known), snapshot(fresh)) == before
    assert set(verdicts(found)) == {"f0.png", "f1.png", "f2.png", "part.png"}
    assert {decision for *_, decision in verdicts(found).values()} == {"review"}
    for name in ("f0.png", "f1.png", "f2.png", "part.png"):
        (fresh / name).unlink()
    assert result(fresh, capsys, known, fresh, "--leak")["groups"] == []


def test_what_is_too_near_or_too_far_from_the_queries_goes(two, capsys):
    known, fresh = two
    asked = known.parent / "asked"
    asked.mkdir()
    drawing(0, 300, 225).save(asked / "query.jpg")
    found = verdicts(result(fresh, capsys, "exact", fresh, "--reference", asked, "--near-query", 20, "--dry-run"))
    assert found == {"f0.png": ("query.jpg", "edited", "remove")}
    dedup(fresh, "exact", fresh, "--reference", asked, "--far-query", 60, "--max-share", "100%")
    assert names(fresh) == {"f0.png"} and names(asked) == {"query.jpg"}
    dedup(fresh, "--undo", "last")
    assert len(names(fresh)) == 5


def test_query_pictures_of_the_workspace_are_asked(folder, capsys):
    drawing(0, 300, 225).save(folder / "near.png")
    drawing(1, 300, 225).save(folder / "other.png")
    query = folder.parent / "query.jpg"
    drawing(0, 200, 150).save(query)
    dedup(folder, folder, "--near-query", 30, expect=2)
    assert "there is no query picture on disk" in capsys.readouterr().err
    with open_database(folder.parent / "ws" / "gleaner.db") as db, db.transaction():
        db.execute(
            "INSERT INTO queries (engine, kind, image_sha256, image_path, created_at, updated_at)"
            " VALUES ('yandex', 'image', 'ab', ?, '2026', '2026')",
            (str(query),),
        )
    dedup(folder, folder, "--near-query", 30)
    assert names(folder) == {"other.png"} and query.exists()


def pair(folder: Path) -> None:
    drawing(1, 400, 300).save(folder / "a.png")
    drawing(1, 400, 300).save(folder / "a-same.jpg", quality=80)
    drawing(2, 400, 300).save(folder / "b.png")
    drawing(2, 400, 300).transpose(T.FLIP_LEFT_RIGHT).save(folder / "b-mirror.png")


def test_what_a_person_keeps_is_not_shown_again_until_that_is_undone(folder, capsys):
    pair(folder)
    shown = result(folder, capsys, folder, "--dry-run")
    assert len(shown["groups"]) == 2
    chosen = [{**member, "decision": "keep"} for group in shown["groups"] for member in group["members"]]
    decisions = folder.parent / "decisions.json"
    decisions.write_text(json.dumps({"version": 1, "decisions": chosen}))
    dedup(folder, folder, "--decisions", decisions)
    assert len(names(folder)) == 4
    assert result(folder, capsys, folder)["groups"] == []
    with open_database(folder.parent / "ws" / "gleaner.db") as db:
        (run,) = {row["run_id"] for row in db.rows("SELECT run_id FROM not_repeats")}
    dedup(folder, "--undo", run)
    assert len(result(folder, capsys, folder, "--dry-run")["groups"]) == 2


def test_a_no_to_the_question_is_remembered(folder, monkeypatch, capsys):
    pair(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    dedup(folder, folder, "--interactive")
    assert len(names(folder)) == 4
    assert len(result(folder, capsys, folder)["groups"]) == 1  # the mirror image, which nobody was asked about


@pytest.mark.parametrize("answer", ["s\n", "q\n", ""])
def test_to_stop_asking_says_nothing_of_the_pictures(folder, monkeypatch, capsys, answer):
    pair(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    dedup(folder, folder, "--interactive")
    assert len(names(folder)) == 4
    assert len(result(folder, capsys, folder, "--dry-run")["groups"]) == 2, "they are shown again"


def test_a_run_that_the_brake_held_remembers_no_decision(folder, capsys):
    pair(folder)
    found = result(folder, capsys, folder, "--dry-run")
    members = [(group["keeper"], member) for group in found["groups"] for member in group["members"]]
    chosen = [
        {"group": "1", "keeper": keeper, "path": m["path"], "decision": "keep" if m["kind"] == "edited" else "remove"}
        for keeper, m in members
    ]
    decisions = folder.parent / "decisions.json"
    decisions.write_text(json.dumps({"version": 1, "run": "1", "decisions": chosen}))
    dedup(folder, folder, "--decisions", decisions, "--max-share", "1%", expect=1)
    assert len(result(folder, capsys, folder, "--dry-run")["groups"]) == len(found["groups"])
    dedup(folder, folder, "--decisions", decisions)
    assert len(names(folder)) == 3 and result(folder, capsys, folder, "--dry-run")["groups"] == []


def test_removed_pictures_leave_a_tombstone_until_they_are_back(folder):
    pair(folder)
    dedup(folder, folder)
    database = folder.parent / "ws" / "gleaner.db"
    ((content,),) = as_rows(database, "SELECT sha256 FROM tombstones")
    with open_database(database) as db:
        assert is_removed(db, content) and not is_removed(db, "0" * 64)
    dedup(folder, "--undo", "last")
    assert as_rows(database, "SELECT count(*) FROM tombstones") == [(0,)]


@pytest.mark.parametrize("link", ["hard", "sym"])
def test_links_take_the_place_of_equal_bytes_only(folder, capsys, link):
    pair(folder)
    (folder / "a-bytes.png").write_bytes((folder / "a.png").read_bytes())
    before = snapshot(folder)
    dedup(folder, folder, "--link", link)
    assert os.path.samefile(folder / "a.png", folder / "a-bytes.png")
    assert (folder / "a-bytes.png").is_symlink() == (link == "sym")
    assert not (folder / "a-same.jpg").exists(), "linked although its bytes differ"
    linked = snapshot(folder)
    assert result(folder, capsys, folder, "--link", link)["summary"]["removed"] == 0
    assert snapshot(folder) == linked
    dedup(folder, "--undo", "last")
    assert snapshot(folder) == before and not os.path.samefile(folder / "a.png", folder / "a-bytes.png")


LINKLESS = """
import os, runpy, signal, sys
def die(*arguments, **more):
    os.kill(os.getpid(), signal.SIGKILL)
def deadly(real):
    def link(source, target, **more):
        # A hard link moves the file into the quarantine, the next one takes its place; one that is made beforehand
        # and elsewhere tries whether links can be made at all.
        in_place = "a-bytes" in str(target) and "quarantine" not in str(target)
        return die() if in_place else real(source, target, **more)
    return link
os.link, os.symlink = deadly(os.link), deadly(os.symlink)
sys.argv = [{step!r}, *{arguments!r}]
runpy.run_path({step!r}, run_name="__main__")
"""


@pytest.mark.parametrize("link", ["hard", "sym"])
@pytest.mark.parametrize("keeper", ["unchanged", "changed"])
def test_a_link_that_a_kill_prevented_is_made_by_the_next_run(folder, link, keeper):
    pair(folder)
    (folder / "a-bytes.png").write_bytes((folder / "a.png").read_bytes())
    before = snapshot(folder)
    step = str(ROOT / "6_dedup.py")
    words = ["exact", str(folder), "--link", link, "--workspace", str(folder.parent / "ws"), "--workers", "1"]
    script = LINKLESS.format(step=step, arguments=words)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (folder / "a-bytes.png").exists(), "killed between the move and the link"
    if keeper == "changed":
        (folder / "a.png").write_bytes((folder / "a-same.jpg").read_bytes())
    dedup(folder, "exact", folder, "--link", link)
    assert (folder / "a-bytes.png").exists() == (keeper == "unchanged")
    if keeper == "unchanged":
        assert os.path.samefile(folder / "a.png", folder / "a-bytes.png")
        dedup(folder, "--undo", "1")
        assert snapshot(folder) == before and not os.path.samefile(folder / "a.png", folder / "a-bytes.png")


def test_folders_of_images_that_were_emptied_are_gone_until_undo(folder):
    """Of the workspace alone: a folder that a person named is theirs, empty or not."""
    images = folder.parent / "ws" / "images"
    for place in (images / "ab", images / "cd", images / "ef" / "gh", folder / "sub"):
        place.mkdir(parents=True)
        drawing(1).save(place / f"{place.name}.png")
    (images / "empty").mkdir()
    before = snapshot(folder.parent)
    dedup(folder, "exact", images, folder, "--max-share", "100%")
    left = {path.relative_to(folder.parent).as_posix() for path in folder.parent.rglob("*") if path.is_dir()}
    assert {name for name in left if "quarantine" not in name} == {
        *("photos", "photos/sub", "ws", "ws/images", "ws/images/ab", "ws/images/empty", "ws/reports")
    }
    dedup(folder, "--undo", "last")
    after = snapshot(folder.parent)
    assert {k: v for k, v in after.items() if k in before} == before
    assert (images / "ef" / "gh" / "gh.png").is_file() and (images / "cd").is_dir()


@pytest.mark.parametrize(("answer", "left"), [("1\n", 0), ("y\n", 1), ("", 1), ("2\n", 1)])
def test_purging_asks_for_the_number_of_files(folder, monkeypatch, capsys, answer, left):
    pair(folder)
    dedup(folder, folder)
    quarantine = folder.parent / "ws" / "quarantine"
    before = snapshot(folder.parent / "ws")
    dedup(folder, "--purge", "last", "--dry-run")
    assert snapshot(folder.parent / "ws") == before
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    dedup(folder, "--purge", "last")
    assert "Delete 1 files" in capsys.readouterr().err
    assert len([p for p in quarantine.rglob("*") if p.is_file()]) == left
    dedup(folder, "--undo", "last")
    assert (folder / "a-same.jpg").exists() == bool(left)
    if not left:
        assert as_rows(folder.parent / "ws" / "gleaner.db", "SELECT count(*) FROM tombstones") == [(1,)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([".", "--leak"], "--leak compares two folders"),
        ([".", "--hash-size", "8"], "--hash-size is for the hashes of imagehash"),
        ([".", "--hash", "phash", "--hash-size", "9"], "--hash-size is a multiple of 4"),
        ([".", "--hash", "whash", "--hash-size", "12"], "takes a --hash-size of 4, 8, 16 or 32"),
        ([".", "--threshold", "65"], "--threshold 65 is more than 64"),
        ([".", "--hash", "phash", "--threshold", "17"], "--threshold 17 is more than 16"),
        ([".", "--reference", "nowhere"], "nowhere does not exist"),
        ([".", "--hash", "phash", "--near-query", "3"], "leave out --hash"),
        (["semantic", ".", "--clip-model", "local-dir:/nowhere"], "/nowhere holds no open_clip model"),
    ],
)
def test_wrong_usage_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, sentence):
    if "semantic" in arguments:
        pytest.importorskip("open_clip", reason="mode semantic needs requirements.txt")
        drawing(1).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert load_step("dedup").main([*arguments, "--workspace", str(tmp_path / "ws")]) == 2
    assert sentence in capsys.readouterr().err


def test_memory_of_comparisons_changes_no_answer(folder, capsys):
    pair(folder)
    first = result(folder, capsys, folder, "--remove", "none")
    rows = dump(folder.parent / "ws" / "gleaner.db")
    assert rows["relations"] and rows["near_pairs"]
    again = result(folder, capsys, folder, "--remove", "none")
    assert again["groups"] == first["groups"] and dump(folder.parent / "ws" / "gleaner.db") == rows


def test_pictures_of_one_subject_are_shown_and_their_embeddings_kept(folder, capsys):
    """With a random model of two layers: the real loading and the real search, not the real likeness."""
    open_clip = pytest.importorskip("open_clip", reason="mode semantic needs requirements.txt")
    import torch
    from safetensors.torch import save_file

    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    model = folder.parent / "model"
    model.mkdir()
    torch.manual_seed(3)
    net = open_clip.CLIP(**config)
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, model / "open_clip_model.safetensors")
    text = json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3}})
    (model / "open_clip_config.json").write_text(text)
    pair(folder)
    how = ("semantic", folder, "--clip-model", f"local-dir:{model}", "--least-cosine", 0, "--remove", "none")
    found = verdicts(result(folder, capsys, *how))
    assert "semantic" in {kind for _, kind, _ in found.values()}
    assert {decision for *_, decision in found.values()} == {"review"}
    assert as_rows(folder.parent / "ws" / "gleaner.db", "SELECT count(*) FROM embeddings") == [(4,)]
    rows = dump(folder.parent / "ws" / "gleaner.db")
    assert verdicts(result(folder, capsys, *how)) == found
    assert dump(folder.parent / "ws" / "gleaner.db") == rows
