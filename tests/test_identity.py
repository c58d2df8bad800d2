"""A picture is what its address says, whatever id an engine gives it; missing facts stay missing; proxies."""

from __future__ import annotations

import base64
import json
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, as_rows, dump, load_step
from yandex_answers import entity, make_workspace, xhr

from lib.db import open_database
from lib.db.schema import migrations, statements
from lib.domains import covers, host_of, read_lists, shown_host
from lib.engines import baidu, baidu_graph, bing, commons, naver, naver_api, openverse, parser_for, yandex_cloud
from lib.engines.addresses import is_page, sides_at, unwrap
from lib.engines.parsing import fact, plain
from lib.engines.yandex import parse_xhr
from lib.errors import GleanerError
from lib.net.request import BadAddress, parse_address
from lib.records import ParsedPage, address_digest
from lib.work.stream import stream

STEP, CLEANUP = load_step("ingest"), load_step("cleanup")


def baidu_page(numbers: range, **same: Any) -> bytes:
    items = [
        {
            "objURL": f"http://pics{n}.example/{n}.jpg",
            "thumbURL": f"https://img1.baidu.com/it/u={n},7&fm=253",
            "pageNum": n,
        }
        | same
        for n in numbers
    ]
    return json.dumps({"listNum": 90, "data": [*items, {}]}).encode()


def bing_page(numbers: range, **same: Any) -> bytes:
    tiles = [json.dumps({"murl": f"http://i.example/{n}.jpg", "purl": "http://p.example/", **same}) for n in numbers]
    escaped = [tile.replace("&", "&amp;").replace('"', "&quot;") for tile in tiles]
    return "".join(f'<a class="iusc" m="{tile}"></a>' for tile in escaped).encode()


def naver_page(numbers: range, **same: Any) -> bytes:
    items = [{"type": "image", "originalUrl": f"https://n.example/{n}.jpg", "link": "https://b.example/1"} | same
             for n in numbers]  # fmt: skip
    return json.dumps({"content": {"items": items}}).encode()


def graph_page(numbers: range, **same: Any) -> bytes:
    items = [{"thumbUrl": f"https://mms1.baidu.com/it/u={n},5&fm=253"} | same for n in numbers]
    return json.dumps({"status": 0, "data": {"list": items}}).encode()


def yandex_page(numbers: range, **same: Any) -> bytes:
    entities = [entity(n, viewerData={}, **same) for n in numbers]
    list_ = {"items": {"entities": entities}}
    return json.dumps({"blocks": [{"params": {"adapterData": {"serpList": list_}}}]}).encode()


REUSED = [
    (baidu.parse_acjson, baidu_page, {"di": "7410818322373017601", "cs": "1,1", "simid": "0,0"}),
    (baidu.parse_acjson, baidu_page, {"di": ""}),
    (bing.parse_page, bing_page, {"mid": "F6E", "md5": "m", "cid": "c"}),
    (naver.parse_page, naver_page, {"imgId": "image_sas:web_1"}),
    (baidu_graph.parse_api, graph_page, {"contsign": "1,2"}),
    (parse_xhr, yandex_page, {"id": "a" * 32}),
]


@pytest.mark.parametrize(("parse", "page", "same"), REUSED)
def test_an_id_that_an_engine_uses_again_hides_no_picture(parse: Any, page: Any, same: dict[str, Any]) -> None:
    first, second = (parse(page(numbers, **same)) for numbers in (range(1, 6), range(6, 11)))
    keys = [image.engine_id for image in (*first.images, *second.images)]
    assert len(set(keys)) == 10
    again: ParsedPage = parse(page(range(1, 6), **same))
    assert [image.engine_id for image in again.images] == keys[:5], "a picture that is met again is the same"


@pytest.mark.parametrize(("parse", "page", "same"), [REUSED[0], *REUSED[2:]])
def test_what_a_page_repeats_is_counted(parse: Any, page: Any, same: dict[str, Any]) -> None:
    repeated: ParsedPage = parse(page([3, 3, 4, 3], **same))
    assert len(repeated.images) == 2 and repeated.drift["left_out"] == {"repeated": 2} and repeated.skipped == 0


def test_entries_that_are_left_out_are_told(tmp_path: Path, capsys: Any) -> None:
    folder = tmp_path / "in" / "baidu" / "q"
    folder.mkdir(parents=True)
    items = [{"objURL": "http://a.example/1.jpg"}, {"objURL": "http://a.example/1.jpg"}, {"pageNum": 3}]
    (folder / "0.json").write_text(json.dumps({"data": [*items, {"adType": "1"}, {}]}))
    assert STEP.main(["--import", str(tmp_path / "in"), "--workspace", str(tmp_path / "ws"), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    told = {name: count for name, count in counts.items() if name.startswith("left_out")}
    assert told == {"left_out_advertisement": 1, "left_out_no_address": 1, "left_out_repeated": 1}


def old_database(root: Path, body: bytes, engine: str, parser: str, key: str, urls: list[str]) -> Path:
    """A workspace of schema 6, in which the parser of then took all pictures of a page for one, and fetched it."""
    (root / "xhr" / engine / "q").mkdir(parents=True)
    (root / "xhr" / engine / "q" / "0.json").write_bytes(body)
    path = root / "gleaner.db"
    db = sqlite3.connect(path, isolation_level=None)
    for number, script in migrations():
        for statement in statements(script.read_text(encoding="utf-8")) if number <= 6 else ():
            db.execute(statement)
    db.execute("PRAGMA user_version=6")
    db.execute("INSERT INTO runs (id, step, started_at, version) VALUES (1, 'collect', '2026', '0')")
    db.execute(
        "INSERT INTO queries (id, engine, kind, text, state, created_at, updated_at)"
        " VALUES (1, ?, 'keyword', 'boat', 'done', '', '')",
        (engine,),
    )
    db.execute(
        "INSERT INTO responses (query_id, page, part, path, sha256, fetched_at, ingest_state, parser)"
        " VALUES (1, 0, 'xhr', ?, '', '', 'done', ?)",
        (f"xhr/{engine}/q/0.json", parser),
    )
    db.execute("INSERT INTO images (id, key, engine, first_seen_at) VALUES (5, ?, ?, '')", (key, engine))
    db.execute("INSERT INTO results VALUES (1, 5, 1, 0)")
    for url in urls:
        db.execute("INSERT INTO image_variants (image_id, kind, url) VALUES (5, 'original', ?)", (url,))
    db.execute("INSERT INTO files (sha256, path, bytes, format, added_at) VALUES ('aa', 'images/a', 1, 'png', '')")
    db.execute(
        "INSERT INTO downloads (image_id, state, sha256, variant_id, updated_at) VALUES (5, 'done', 'aa', 3, '')"
    )
    db.close()
    return path


def test_an_old_database_is_brought_up_and_keeps_its_download(tmp_path: Path) -> None:
    urls = [f"http://pics{n}.example/{n}.jpg" for n in range(30)]
    body = baidu_page(range(30), di="741")
    path = old_database(tmp_path / "ws", body, "baidu", "baidu-xhr/1", "baidu:741", urls)
    run = ["--workspace", str(path.parent), "-q"]
    assert STEP.main(run) == 0
    assert as_rows(path, "SELECT count(*) FROM images") == [(30,)]
    assert as_rows(path, "SELECT key, state, sha256 FROM images JOIN downloads ON image_id = id WHERE id = 5") == [
        (f"baidu:{address_digest(urls[2])}", "done", "aa")
    ]
    assert as_rows(path, "SELECT url FROM image_variants WHERE image_id = 5 AND kind = 'original'") == [(urls[2],)]
    assert sorted(as_rows(path, "SELECT rank FROM results")) == [(n,) for n in range(30)]
    before = as_rows(path, "SELECT * FROM images ORDER BY id")
    assert STEP.main(run) == 0 and as_rows(path, "SELECT * FROM images ORDER BY id") == before


def test_answers_that_a_broken_installation_could_not_read_are_taken_up_again(tmp_path: Path) -> None:
    path = old_database(tmp_path / "ws", xhr([entity(1)]), "yandex", "yandex-xhr/1", "yandex:1", ["http://x.example/1"])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE responses SET ingest_state = 'failed', ingest_reason = 'parse_error:ModuleNotFoundError'")
    assert STEP.main(["--workspace", str(path.parent), "-q"]) == 0
    assert as_rows(path, "SELECT ingest_state, items FROM responses") == [("done", 1)]


HIDDEN = [
    ('Unknown author<span style="display: none;">Unknown author</span>', "Unknown author"),
    ("<p>a<!-- b --></p>", "a"),
    ("<style>x{}</style>a<script>b</script>", "a"),
    ("a<span hidden>b<i>c</i></span> d", "a d"),
    ('<div style="VISIBILITY:hidden">x</div>2019', "2019"),
    ("a\u200b\ufeffb\u00ad", "ab"),
    ('2010<div style="display: none;">date QS:P571,+2010-00-00T00:00:00Z/9</div>', "2010"),
    ('<b>bold</b> a &lt; b<span class="sr-only">x</span>', "bold a < b"),
]


@pytest.mark.parametrize(("markup", "text"), HIDDEN)
def test_hidden_text_is_no_text(markup: str, text: str) -> None:
    assert plain(markup) == text


@pytest.mark.parametrize("word", ["?", "N/A", "-", "null", "None", "unknown", " ", "0", "—", "<b>n/a</b>"])
def test_a_word_that_says_nothing_is_no_fact(word: str) -> None:
    assert fact(word) == "" and fact("CC BY 4.0") == "CC BY 4.0"


def test_commons_takes_neither_uploader_nor_source_for_the_creator() -> None:
    meta = {"Credit": {"value": "<a href='//x'>Some Museum</a>"}, "LicenseShortName": {"value": "?"}}
    info = {"url": "https://u.example/1.jpg", "user": "Batch", "mime": "image/jpeg", "extmetadata": meta}
    film = {"url": "https://u.example/2.webm", "mime": "video/webm", "thumburl": "https://u.example/2.jpg", "width": 9}
    pages = [{"pageid": n, "title": "File:F.jpg", "imageinfo": [one]} for n, one in ((1, info), (2, film))]
    first, second = commons.parse_api(json.dumps({"query": {"pages": pages}}).encode()).images
    assert (first.creator, first.attribution, first.license) == ("", "", "")
    assert (first.extra["uploader"], first.extra["credit"]) == ("Batch", "Some Museum")
    assert [(v.kind, v.url) for v in second.variants] == [("preview", "https://u.example/2.jpg")]
    assert second.width is None


def test_openverse_claims_nothing_of_a_resized_copy_or_a_page() -> None:
    one = {"id": "a", "url": "https://cdn.example/img-thumbs/960w/X.jpg", "width": 6016, "height": 4016, "filesize": 9}
    one |= {"creator": "N/A", "license": "", "license_version": "4.0", "indexed_on": "2022-08-27"}
    page = {"id": "b", "url": "https://s.example/photo.html", "foreign_landing_url": "https://s.example/photo.html"}
    first, second = openverse.parse_api(json.dumps({"results": [one, page]}).encode()).images
    assert first.variants[0][2:5] == (None, None, None)
    assert (first.creator, first.license, first.published_at) == ("", "", "")
    assert second.variants == ()


def test_a_caption_of_a_tile_is_no_size() -> None:
    tile = bing_page(range(1)).decode()
    assert bing.parse_page(f"{tile}<p>Poster 30×40 cm</p><span>800 × 600 · png</span>".encode()).images[0].width == 800
    assert bing.parse_page(f"{tile}<p>Poster 30×40 cm</p>".encode()).images[0].width is None


WRAPPED = [
    ("https://search.pstatic.net/sunny/?src=https%3A%2F%2Fp.example%2F2.jpg&type=sc960_832", "https://p.example/2.jpg"),
    (
        "https://search.pstatic.net/common?type=a&src=http%3A%2F%2Fb.example%2F%25C6%25C4.jpg",
        "http://b.example/%C6%C4.jpg",
    ),
    ("https://search.pstatic.net/common/?src=http://b.example/%C6%C4.jpg", "http://b.example/%C6%C4.jpg"),
    ("https://external-content.duckduckgo.com/iu/?u=https%3A%2F%2Fa.example%2F1.png&f=1", "https://a.example/1.png"),
    ("https://wsrv.nl/?url=a.example/1.jpg&w=300", "http://a.example/1.jpg"),
    ("https://images.weserv.nl/?url=ssl:a.example/1.jpg", "https://a.example/1.jpg"),
    ("https://i0.wp.com/a.example/x/1.jpg?resize=3&ssl=1", "https://a.example/x/1.jpg"),
    ("https://s.example/_next/image?url=https%253A%252F%252Fa.example%252F1.jpg&w=640", "https://a.example/1.jpg"),
    ("https://cdn.statically.io/img/a.example/f=auto,w=400/1.jpg", "https://a.example/1.jpg"),
    ("https://s.example/cdn-cgi/image/width=80/https://a.example/1.jpg", "https://a.example/1.jpg"),
    ("https://substackcdn.com/image/fetch/w_9/https%3A%2F%2Fa.example%2F1.jpg", "https://a.example/1.jpg"),
    (
        "https://camo.githubusercontent.com/0a1b/68747470733a2f2f612e6578616d706c652f312e6a7067",
        "https://a.example/1.jpg",
    ),
    (
        "https://wsrv.nl/?url=https%3A%2F%2Fi1.wp.com%2Fa.example%2F1.jpg%3Fssl%3D1",
        "https://a.example/1.jpg",
    ),
    ("https://wsrv.nl/?url=http%3A%2F%2F127.0.0.1%2F1.jpg", ""),
    ("https://wsrv.nl/?url=http%3A%2F%2F[::1]%2F1.jpg", ""),
    ("https://wsrv.nl/?url=file%3A%2F%2F%2Fetc%2Fpasswd", ""),
    ("https://s.example/_next/image?url=%2Flocal.jpg&w=640", ""),
    ("https://elsewhere.example/?src=https%3A%2F%2Fa.example%2F1.jpg", ""),
    ("https://a.example/1.jpg", ""),
]


@pytest.mark.parametrize(("url", "original"), WRAPPED)
def test_a_proxy_wraps_an_original(url: str, original: str) -> None:
    assert unwrap(url) == original


def test_the_proxy_stays_as_another_address() -> None:
    proxy = "https://wsrv.nl/?url=https%3A%2F%2Fa.example%2F1.jpg"
    for parse, body in ((bing.parse_page, bing_page), (naver.parse_page, naver_page), (baidu.parse_acjson, baidu_page)):
        named = {"murl": proxy, "originalUrl": proxy, "objURL": proxy}
        image = parse(body(range(1), **named)).images[0]
        kinds = {(variant.kind, variant.url) for variant in image.variants}
        assert {("original", "https://a.example/1.jpg"), ("preview", proxy)} <= kinds


def test_pages_and_resized_copies_are_told_by_their_addresses() -> None:
    assert is_page("https://a.example/x.html") and is_page("https://c.example/wiki/File:A.jpg")
    assert is_page("https://a.example/view", "https://a.example/view#top")
    assert not is_page("https://a.example/x.jpg", "https://a.example/x.jpg")
    assert sides_at("https://a.example/640px-x.jpg", 3000, 2000) == (None, None)
    assert sides_at("https://a.example/x.jpg?w=3000", 3000, 2000) == (3000, 2000)


def test_every_parser_has_a_version() -> None:
    assert parser_for("baidu", "xhr").name == "baidu-xhr/2"


def needs_what_is_missing(item: int) -> int:
    import a_module_that_is_not_there

    return item + a_module_that_is_not_there.nothing


@pytest.mark.parametrize("how", [{}, {"executor": "threads", "workers": 2}, {"workers": 2}])
def test_a_missing_module_ends_the_stream(how: dict[str, Any]) -> None:
    with pytest.raises(GleanerError, match=r"installation is broken .*0_setup\.py"):
        list(stream(needs_what_is_missing, range(3), **how))


def test_a_missing_module_ends_step_2_and_marks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    path = make_workspace(tmp_path / "ws", {("a", 0, "xhr"): xhr([entity(1)]), ("b", 0, "xhr"): xhr([entity(2)])})
    before = as_rows(path, "SELECT * FROM responses")
    monkeypatch.setitem(sys.modules, "lib.engines.yandex", None)
    assert STEP.main(["--workspace", str(path.parent)]) == 1
    assert "installation is broken" in capsys.readouterr().err
    assert as_rows(path, "SELECT * FROM responses") == before


HOSTS = [
    ("http://bücher.de/1.jpg", "xn--bcher-kva.de", "bücher.de"),
    ("http://BÜCHER\u3002de./1.jpg", "xn--bcher-kva.de", "bücher.de"),
    ("http://ｅxample\uff0ecom/1.jpg", "example.com", "example.com"),
    ("http://xn--e1afmkfd.XN--P1AI/1.jpg", "xn--e1afmkfd.xn--p1ai", "пример.рф"),
    ("http://%65xample.com/1.jpg", "example.com", "example.com"),
    ("http://a_b.example/1.jpg", "a_b.example", "a_b.example"),
    ("http://127\u30020\u30020\u30021/1.jpg", "127.0.0.1", "127.0.0.1"),
    ("http://xn--pple-43d.com/1.jpg", "xn--pple-43d.com", "xn--pple-43d.com"),  # a Cyrillic letter among Latin ones
]


@pytest.mark.parametrize(("url", "inside", "shown"), HOSTS)
def test_a_host_has_one_form(url: str, inside: str, shown: str) -> None:
    assert (host_of(url), parse_address(url).raw_host, shown_host(host_of(url))) == (inside, inside, shown)
    assert covers(frozenset({inside}), shown) and parse_address(url).path == "/1.jpg"


IMPOSSIBLE = ["a..example", "-a.example", "*.example", f"{'a' * 64}.example", "xn--a.example", "star\u200ct.example"]
IMPOSSIBLE += ["exa%00mple.com", "0x7f.1", "http:", ".".join(["abcdefgh"] * 29), "a b.example"]


@pytest.mark.parametrize("host", IMPOSSIBLE)
def test_a_host_that_cannot_be_is_no_address(host: str) -> None:
    with pytest.raises(BadAddress):
        parse_address(f"http://{host}/1.jpg")


def test_lists_and_old_rows_meet_in_either_spelling(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("Bücher.de\nпример\u3002рф\n", encoding="utf-8")
    lists = read_lists(tmp_path / "b.txt", None)
    assert lists.refusal("img.xn--bcher-kva.de") == lists.refusal("пример.рф") == "blocked_domain"
    path = old_database(tmp_path / "ws", b"{}", "list", "", "list:1", ["http://x.example/1"])
    with sqlite3.connect(path) as db:
        db.execute("UPDATE images SET domain = 'img.bücher.de', registrable_domain = 'bücher.de'")
    open_database(path).close()
    assert as_rows(path, "SELECT domain, registrable_domain FROM images") == [
        ("img.xn--bcher-kva.de", "xn--bcher-kva.de")
    ]


OLD_KEY = "yandex:" + "5" * 32
OLD_URLS = ["http://x.example/1.jpg", "http://y.example/1.jpg", "http://z.example/1.jpg"]
NEW_KEY = f"yandex:{address_digest(OLD_URLS[0])}"


def old_journal(root: Path, *, with_picture: bool, form: int = 6) -> Path:
    """An old workspace with a journal of step 4: an address that left, or its picture with all that belongs to it.

    Journals of schema 4 (`form`) have a picture's key where its number is now.
    """
    path = old_database(root, xhr([entity(1)]), "yandex", "yandex-xhr/1", OLD_KEY, OLD_URLS)
    with sqlite3.connect(path) as db:
        db.row_factory = sqlite3.Row
        db.execute("UPDATE downloads SET state = 'pending', sha256 = NULL, variant_id = NULL")
        db.execute("INSERT INTO runs (id, step, started_at, version) VALUES (9, 'cleanup', '2026', '0')")
        tables = ("results", "downloads", "image_variants", "images") if with_picture else ("image_variants",)
        for table in tables:
            where = "" if with_picture else " WHERE id = 2"
            for row in db.execute(f"SELECT * FROM {table}{where}").fetchall():
                kept = dict(row) | ({"image_id": OLD_KEY} if "image_id" in row.keys() else {})  # noqa: SIM118
                if table == "images" and form == 4:
                    kept = {"id": OLD_KEY} | {name: value for name, value in kept.items() if name not in ("id", "key")}
                db.execute(
                    "INSERT INTO actions (run_id, kind, state, table_name, payload, reason, created_at)"
                    " VALUES (9, 'remove_row', 'done', ?, ?, 'advert', '')",
                    (table, json.dumps(kept)),
                )
            db.execute(f"DELETE FROM {table}{where}")
    return path


@pytest.mark.parametrize("form", [6, 4])
def test_a_picture_in_an_old_journal_comes_back_under_its_key_of_now(tmp_path: Path, form: int) -> None:
    path = old_journal(tmp_path / "ws", with_picture=True, form=form)
    assert CLEANUP.main(["--workspace", str(path.parent), "--undo", "9", "-q"]) == 0
    assert as_rows(path, "SELECT key FROM images") == [(NEW_KEY,)]
    assert as_rows(path, "SELECT url FROM image_variants ORDER BY id") == [(url,) for url in OLD_URLS]
    assert as_rows(path, "SELECT rank FROM results JOIN images ON images.id = image_id") == [(0,)]
    assert as_rows(path, "SELECT state FROM downloads JOIN images ON images.id = image_id") == [("pending",)]
    assert as_rows(path, "SELECT DISTINCT state FROM actions") == [("undone",)]


def test_a_picture_in_an_old_journal_that_was_found_again_is_one(tmp_path: Path) -> None:
    path = old_journal(tmp_path / "ws", with_picture=True)
    with open_database(path) as db:
        db.execute("INSERT INTO images (id, key, engine, first_seen_at) VALUES (70, ?, 'yandex', '')", (NEW_KEY,))
        db.execute("INSERT INTO image_variants (image_id, kind, url) VALUES (70, 'original', ?)", (OLD_URLS[0],))
    assert CLEANUP.main(["--workspace", str(path.parent), "--undo", "9", "-q"]) == 0
    assert as_rows(path, "SELECT id FROM images") == [(70,)]
    assert as_rows(path, "SELECT image_id, url FROM image_variants ORDER BY url") == [(70, url) for url in OLD_URLS]


def test_an_address_in_an_old_journal_goes_back_to_its_picture(tmp_path: Path) -> None:
    path = old_journal(tmp_path / "ws", with_picture=False)
    assert CLEANUP.main(["--workspace", str(path.parent), "--undo", "9", "-q"]) == 0
    assert as_rows(path, "SELECT key FROM images") == [(NEW_KEY,)]
    assert as_rows(path, "SELECT key, image_id FROM former_keys") == [(OLD_KEY, 5)]
    assert as_rows(path, "SELECT image_id, url FROM image_variants ORDER BY url") == [(5, url) for url in OLD_URLS]


def test_the_former_key_of_a_picture_that_has_left_brings_nothing_back(tmp_path: Path) -> None:
    path = old_journal(tmp_path / "ws", with_picture=False)
    with open_database(path) as db:
        db.execute("DELETE FROM images")
    assert as_rows(path, "SELECT count(*) FROM former_keys") == [(0,)]
    assert CLEANUP.main(["--workspace", str(path.parent), "--undo", "9", "-q"]) == 0
    assert as_rows(path, "SELECT count(*) FROM image_variants") == [(0,)]
    assert as_rows(path, "SELECT state FROM actions") == [("done",)]  # a later undo can try again


def test_a_killed_migration_leaves_all_as_it_was_and_is_done_again(tmp_path: Path) -> None:
    path = old_journal(tmp_path / "ws", with_picture=False)
    with sqlite3.connect(path) as db:
        db.executemany(
            "INSERT INTO images (id, key, engine, first_seen_at) VALUES (?, ?, 'yandex', '')",
            [(number, f"yandex:{number}") for number in range(100, 3100)],
        )
        db.executemany(
            "INSERT INTO image_variants (image_id, kind, url) VALUES (?, 'original', ?)",
            [(number, f"http://{number}.example/") for number in range(100, 3100)],
        )
    before = dump(path)
    script = (
        "import os, signal\nfrom pathlib import Path\nimport lib.db.schema as schema\n"
        "from lib.db import open_database\n"
        "made, calls = schema.address_digest, []\n"
        "def killed(url):\n    calls.append(url)\n"
        "    os.kill(os.getpid(), signal.SIGKILL) if len(calls) > 2000 else None\n    return made(url)\n"
        f"schema.address_digest = killed\nopen_database(Path({str(path)!r}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert dump(path) == before and as_rows(path, "PRAGMA user_version") == [(6,)]
    with open_database(path) as db:
        assert db.value("PRAGMA integrity_check") == "ok"
        assert db.value("SELECT count(*) FROM images WHERE length(key) = 39") == 3001


def test_a_migration_says_that_it_may_take_long(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "gleaner")
    path = old_journal(tmp_path / "ws", with_picture=False)
    with open_database(path):
        pass
    assert "bringing the database from schema 6" in caplog.text
    caplog.clear()
    with open_database(path), open_database(tmp_path / "new" / "gleaner.db"):
        pass
    assert "schema" not in caplog.text


def test_the_date_of_a_change_is_no_date_of_publication() -> None:
    page = (
        "<response><results><grouping><group><doc><url>http://x.example/1.jpg</url><modtime>20240414T000000</modtime>"
        "<image-properties><image-link>http://x.example/1.jpg</image-link></image-properties></doc></group></grouping>"
        "</results></response>"
    )
    body = json.dumps({"rawData": base64.b64encode(page.encode()).decode()}).encode()
    (record,) = yandex_cloud.parse_api(body).images
    assert record.published_at == "" and record.extra["modified_at"] == "20240414T000000"


def naver_item(**values: Any) -> Any:
    item = {"type": "image", "originalUrl": "http://blog.example/1.jpg", "link": "http://blog.example/p"} | values
    script = f"<script>var imageSearchTabData={json.dumps({'content': {'items': [item]}})}</script>"
    return naver.parse_page(script.encode()).images[0]


@pytest.mark.parametrize(
    ("shown", "date"),
    [
        ("2026.01.23.", "2026.01.23."),
        ("2026-01-23", "2026-01-23"),
        ("3일 전", ""),
        ("2시간 전", ""),
        ("어제", ""),
        ("", ""),
    ],
)
def test_a_date_that_goes_by_the_day_of_the_search_is_none(shown: str, date: str) -> None:
    assert naver_item(dateInfo=shown).published_at == date


@pytest.mark.parametrize(
    ("viewer", "is_gif"),
    [
        ("https://search.pstatic.net/common/?src=http%3A%2F%2Fb.example%2F1.gif&type=f360_360_gif", True),
        ("https://search.pstatic.net/common/?type=sc960_832_gif&src=http%3A%2F%2Fb.example%2F1", True),
        ("https://search.pstatic.net/common/?src=http%3A%2F%2Fb.example%2Fmy_gif_of_1.jpg&type=sc960_832", False),
        ("https://search.pstatic.net/common/?src=http%3A%2F%2Fb.example%2Fmy_gif&type=sc960_832", False),
    ],
)
def test_an_animation_is_told_by_the_proxy_s_word_and_not_by_a_name(viewer: str, is_gif: bool) -> None:
    assert naver_item(viewerThumb=viewer).is_gif == is_gif


def test_the_host_of_a_thumbnail_is_nobody_s_domain() -> None:
    item = {"link": "https://site.example/page.html", "thumbnail": "https://search.pstatic.net/common/?src=x"}
    body = json.dumps({"total": 1, "start": 1, "display": 1, "items": [item]}).encode()
    (record,) = naver_api.parse_api(body).images
    assert (record.domain, record.page_url) == ("site.example", "https://site.example/page.html")
    assert [variant.kind for variant in record.variants] == ["thumb"]


@pytest.mark.parametrize(
    "word", ["Unknown author", "unknown photographer", "Unknown date", "UNKNOWN ARTIST.", "(unknown source)"]
)
def test_a_word_for_nobody_is_no_fact(word: str) -> None:
    assert fact(word) == "" and fact(f"{word} of Delft") == f"{word} of Delft"
