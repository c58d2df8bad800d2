"""Defects of the reference pipeline's import, each by the name it is known under, with the behaviour that replaces it.

Those of its browser are tested with step 1, those of its downloader in `test_download_reference.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import as_rows, dump, load_step
from yandex_answers import entity, page, results_page, serp_list, xhr

ingest = load_step("ingest")


def take_in(root: Path, *arguments: object) -> None:
    assert ingest.main([*map(str, arguments), "--workspace", str(root), "-q"]) == 0


def reference_folder(folder: Path, answers: dict[str, bytes]) -> Path:
    """`XHR/<name>_xhr_NNN.json`, as the reference pipeline saves what it captures."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, body in answers.items():
        (folder / name).write_bytes(body)
    return folder


def imported(tmp_path: Path, *bodies: bytes) -> Path:
    """A database with these answers of one search, imported from the reference's layout."""
    names = [f"photo_xhr_{number:03}.json" for number in range(1, len(bodies) + 1)]
    source = reference_folder(tmp_path / "XHR", dict(zip(names, bodies, strict=True)))
    take_in(tmp_path / "ws", "--import", source)
    return tmp_path / "ws" / "gleaner.db"


def adapter(block: dict[str, Any]) -> dict[str, Any]:
    return {"name": {"block": "i-react-ajax-adapter:ajax"}, "params": {"adapterData": block}}


UNEXPECTED = {
    "no blocks": b'{"blocks": []}',
    "one block of another kind": b'{"blocks": [{"name": {"block": "extra-content"}}]}',
    "blocks that is null": b'{"blocks": null}',
    "blocks that is a word": b'{"blocks": "none"}',
    "a list": b"[]",
    "null": b"null",
    "a number": b"17",
    "a captcha": b'{"type": "captcha", "captcha": {"img-url": "https://yandex.example/captcha"}}',
    "a captcha page": b"<html><form action='/checkcaptcha'><div class='CheckboxCaptcha'></div></form></html>",
    "nothing": b"",
}


@pytest.mark.parametrize("body", UNEXPECTED.values(), ids=UNEXPECTED)
def test_an_unexpected_body_ends_no_import(tmp_path: Path, body: bytes) -> None:
    """`data["blocks"][1]["params"]` raised IndexError or TypeError, and one captcha ended the import of all files."""
    database = imported(tmp_path, body, xhr([entity(1)]))
    states = as_rows(database, "SELECT ingest_state, ingest_reason <> '', items FROM responses ORDER BY page")
    assert states == [("failed", 1, 0), ("done", 0, 1)]


def test_an_answer_with_the_adapter_as_its_first_block(tmp_path: Path) -> None:
    """Only `blocks[1]` was looked at; the order is that of the request."""
    first = json.dumps({"blocks": [adapter({"serpList": serp_list([entity(1)])})]}).encode()
    assert as_rows(imported(tmp_path, first), "SELECT count(*) FROM images") == [(1,)]


def test_page_0_is_read_from_the_html(tmp_path: Path) -> None:
    """The first results stand in the page and in no XHR: the best thirty or forty of every search were lost."""
    source = tmp_path / "yandex" / "a search"
    first = results_page([entity(1, pos=0), entity(2, pos=1)])
    reference_folder(source, {"0.html": first, "1.json": xhr([entity(3, pos=2)])})
    take_in(tmp_path / "ws", "--import", source.parent)
    shown = "SELECT r.rank, i.title FROM results r JOIN images i ON i.id = r.image_id ORDER BY rank"
    assert as_rows(tmp_path / "ws/gleaner.db", shown) == [(0, "Page of 1"), (1, "Page of 2"), (2, "Page of 3")]


@pytest.mark.parametrize("again", ["the same folder", "a copy", "the files read anew", "other tools' names"])
def test_duplicated_variants_on_reimport(tmp_path: Path, again: str) -> None:
    """`image_variants` had no key, so every further import doubled the addresses of every picture."""
    bodies = {"photo_xhr_001.json": xhr([entity(1), entity(2)]), "photo_xhr_002.json": xhr([entity(3)])}
    source, root = reference_folder(tmp_path / "XHR", bodies), tmp_path / "ws"
    take_in(root, "--import", source)
    before = dump(root / "gleaner.db")
    if again == "the same folder":
        take_in(root, "--import", source)
    elif again == "a copy":
        take_in(root, "--import", reference_folder(tmp_path / "copy" / "XHR", bodies))
    elif again == "the files read anew":
        take_in(root, "--reparse")
    else:
        renamed = {f"saved {number}.json": body for number, body in enumerate(bodies.values())}
        take_in(root, "--import", reference_folder(tmp_path / "saved", renamed))
    after = dump(root / "gleaner.db")
    assert after["image_variants"] == before["image_variants"] and after["images"] == before["images"]
    assert len({tuple(sorted(json.loads(row).items())) for row in after["image_variants"]}) == 9


def test_sqlite_ignore_losing_the_second_query(tmp_path: Path) -> None:
    """`INSERT OR IGNORE INTO images` kept the first search that showed a picture and forgot all others."""
    bodies = {"cats_xhr_001.json": xhr([entity(1, pos=4), entity(2)]), "dogs_xhr_001.json": xhr([entity(1, pos=9)])}
    take_in(tmp_path / "ws", "--import", reference_folder(tmp_path / "XHR", bodies))
    shown = as_rows(
        tmp_path / "ws/gleaner.db",
        "SELECT q.text, r.rank FROM results r JOIN queries q ON q.id = r.query_id JOIN images i ON i.id = r.image_id"
        " WHERE i.title = 'Page of 1' ORDER BY 1",
    )
    assert shown == [("XHR/cats", 4), ("XHR/dogs", 9)]


def test_sqlite_ignore_losing_what_the_second_answer_knew(tmp_path: Path) -> None:
    """The same statement also threw away what only a later answer said, its addresses among it."""
    poor = entity(1, origWidth=None, origHeight=None, gifLabel=None)
    poor["viewerData"] = {"dups": [{"url": "https://one.example/a.jpg"}]}
    rich = entity(1)
    rich["viewerData"] = {"dups": [{"url": "https://two.example/a.jpg", "w": 3000, "h": 2000}]}
    database = imported(tmp_path, xhr([poor]), xhr([rich]))
    assert as_rows(database, "SELECT width, height FROM images") == [(1920, 1280)]
    dups = as_rows(database, "SELECT url FROM image_variants WHERE kind = 'dup' ORDER BY url")
    assert dups == [("https://one.example/a.jpg",), ("https://two.example/a.jpg",)]


def test_freshness_counter_is_a_word(tmp_path: Path) -> None:
    """It went into an INTEGER column, though it says `normal`."""
    (extra,) = as_rows(imported(tmp_path, xhr([entity(1, freshnessCounter="normal")])), "SELECT extra FROM images")[0]
    assert json.loads(extra)["freshness"] == "normal"


def test_schemeless_addresses_are_completed(tmp_path: Path) -> None:
    """`//avatars…` was stored as it came, and no downloader can fetch that."""
    odd = entity(1, origUrl="//photos.example/1.jpg", image="//thumbs.example/1")
    odd["viewerData"] = {"preview": [{"url": "//previews.example/1.jpg"}], "dups": [{"url": "//dups.example/1.jpg"}]}
    urls = [url for (url,) in as_rows(imported(tmp_path, xhr([odd])), "SELECT url FROM image_variants")]
    assert len(urls) == 4 and all(url.startswith("https://") for url in urls)


def test_the_older_thumb_has_its_size_inside(tmp_path: Path) -> None:
    """`thumb.size.{width,height}` became NULL, since only `thumb.w` and `thumb.h` were read."""
    older = entity(1)
    older["viewerData"]["thumb"] = {"url": "//thumbs.example/old", "size": {"width": 480, "height": 320}}
    found = as_rows(imported(tmp_path, xhr([older])), "SELECT width, height FROM image_variants WHERE url LIKE '%/old'")
    assert found == [(480, 320)]


@pytest.mark.parametrize("name", ["snippet", "viewerData", "origin", "preview", "dups", "thumb"])
def test_null_is_no_object(tmp_path: Path, name: str) -> None:
    """`.get(name, {})` gives None for a null, and the next `.get` raised AttributeError."""
    odd = entity(1)
    viewer = odd["viewerData"]
    if name == "origin":
        viewer["dups"][0]["origin"] = None
    elif name in viewer:
        viewer[name] = None
    else:
        odd[name] = None
    database = imported(tmp_path, xhr([odd, entity(2)]))
    assert as_rows(database, "SELECT ingest_state, items FROM responses") == [("done", 2)]
    assert as_rows(database, "SELECT count(*) FROM images") == [(2,)]


def test_the_originals_are_addresses_too(tmp_path: Path) -> None:
    """`origUrl` stayed in `images`, where the downloader never looked: it fetched previews and copies only."""
    alone = entity(1, viewerData=None)
    found = as_rows(imported(tmp_path, xhr([alone])), "SELECT kind, url FROM image_variants ORDER BY kind")
    assert ("original", alone["origUrl"]) in found


def test_a_mixed_image_is_known_by_its_true_address(tmp_path: Path) -> None:
    """`origin_url` was stored and never used, so that a proxy's dead address was the end of a picture."""
    odd = entity(1)
    origin = {"url": "http://true.example/1.jpg", "w": 900, "h": 600}
    odd["viewerData"]["dups"] = [{"url": "https://proxy.example/1.jpg", "isMixedImage": True, "origin": origin}]
    urls = {url for (url,) in as_rows(imported(tmp_path, xhr([odd])), "SELECT url FROM image_variants")}
    assert {"http://true.example/1.jpg", "https://proxy.example/1.jpg"} <= urls


def test_every_picture_waits_in_a_state_of_its_own(tmp_path: Path) -> None:
    """No row said `pending`, so that what had never been tried could not be told from what was not there."""
    database = imported(tmp_path, xhr([entity(number) for number in range(5)]))
    assert as_rows(database, "SELECT state, count(*) FROM downloads GROUP BY state") == [("pending", 5)]


def test_the_same_page_of_two_pictures_with_one_name(tmp_path: Path) -> None:
    """`{stem}_xhr_{n}` is the same for `a.jpg` and `a.jpeg`: a second run overwrote the first one's answers."""
    for number, place in enumerate(("first", "second")):
        folder = reference_folder(tmp_path / place / "XHR", {"a_xhr_001.json": xhr([entity(number)])})
        take_in(tmp_path / "ws", "--import", folder)
    assert as_rows(tmp_path / "ws/gleaner.db", "SELECT count(*) FROM images") == [(2,)]
    assert as_rows(tmp_path / "ws/gleaner.db", "SELECT count(DISTINCT path) FROM responses") == [(2,)]


def test_the_wrong_tab_is_not_no_results(tmp_path: Path) -> None:
    """A page of the tab "about this image" holds no list at all, which was taken for an empty one."""
    folder = tmp_path / "yandex" / "q"
    reference_folder(
        folder, {"0.html": page({"initialState": {"cbirSites": {"sites": [{"url": "https://a.example"}]}}})}
    )
    take_in(tmp_path / "ws", "--import", folder.parent)
    (reason,) = as_rows(tmp_path / "ws/gleaner.db", "SELECT ingest_reason FROM responses")[0]
    assert reason == "parse_error:wrong_tab"
