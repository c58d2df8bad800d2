"""Hostile lists, databases, answers and names: bounded memory, one sentence, and what can be read is read."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, ROOT, STEPS, as_rows, drawing, load_step, peak_of_step

from lib.db.reference import LONGEST_VALUE
from lib.engines import naver
from lib.engines.base import LONGEST_PAUSE, retry_after
from lib.engines.parsing import address, load_xml, plain, text
from lib.ingest.lists import list_records
from lib.ingest.sidecars import LARGEST, Sidecars
from lib.ingest.tables import LONGEST_LINE, Layout
from lib.net.guard import leads_inside, names_inside
from lib.records import ParseError
from lib.text import path_as_text, storable

step = load_step("ingest")
MOST_MEMORY = 400  # MiB; what these inputs took was 1,600 and more
ZEROS = [0] * 40
URLS = [f"https://a.example/{number}.jpg" for number in range(40)]


def take_in(source: Path, workspace: Path, capsys: Any, *arguments: str, expect: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert step.main(["--import", str(source), "--workspace", str(workspace), "--json", *arguments]) == expect
    counts: dict[str, Any] = json.loads(capsys.readouterr().out)["counts"]
    return counts


def addresses(workspace: Path) -> list[str]:
    return [url for (url,) in as_rows(workspace / "gleaner.db", "SELECT url FROM image_variants ORDER BY id")]


def write_parquet(path: Path, captions: Any, **options: Any) -> Path:
    import pyarrow
    import pyarrow.parquet

    columns = {"url": URLS, "caption": captions}
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd", **options)
    return path


def bomb(kind: str, path: Path) -> Path:
    """A file of a few kilobytes that a reader who trusts it holds in gigabytes."""
    import pyarrow

    if kind == "a long value in every row":
        return write_parquet(path, pyarrow.DictionaryArray.from_arrays(ZEROS, ["x" * 50_000_000]))
    if kind == "one long value":
        return write_parquet(path, ["x" * 30_000_000, *["y"] * 39], use_dictionary=False)
    if kind == "values that begin like the one before":
        values, encodings = ["x" * (number * 500_000) for number in range(40)], {"caption": "DELTA_BYTE_ARRAY"}
        return write_parquet(path, values, use_dictionary=False, column_encoding=encodings)
    if kind == "lists":
        offsets = pyarrow.array(range(0, 40_000_001, 1_000_000), pyarrow.int32())
        return write_parquet(path, pyarrow.ListArray.from_arrays(offsets, pyarrow.repeat("x", 40_000_000)))
    if kind == "fixed length":
        value = pyarrow.scalar(b"x" * 10_000_000, pyarrow.binary(10_000_000))
        return write_parquet(path, pyarrow.repeat(value, 40))
    raise AssertionError(kind)


BOMBS = [
    "a long value in every row",
    "one long value",
    "values that begin like the one before",
    "lists",
    "fixed length",
]


@pytest.mark.parametrize("kind", BOMBS)
def test_a_small_parquet_file_takes_little_memory_and_its_addresses_come_in(tmp_path: Path, kind: str) -> None:
    source = bomb(kind, tmp_path / "list.parquet")
    assert source.stat().st_size < 10_000
    assert peak_of_step("ingest", "--import", source, "--workspace", tmp_path / "w") < MOST_MEMORY
    assert addresses(tmp_path / "w") == URLS


def test_a_column_that_is_too_large_is_left_out_and_told(tmp_path: Path, capsys: Any) -> None:
    source = bomb("a long value in every row", tmp_path / "list.parquet")
    counts = take_in(source, tmp_path / "w", capsys)
    assert (counts["new_pictures"], counts["failed_column_too_large"]) == (40, 1)
    assert step.main(["--import", str(source), "--workspace", str(tmp_path / "w"), "--strict"]) == 3
    assert "the column caption of row group 0" in capsys.readouterr().err


def test_a_row_group_that_is_damaged_is_told_and_the_others_come_in(tmp_path: Path, capsys: Any) -> None:
    source = write_parquet(tmp_path / "list.parquet", [""] * 40, row_group_size=20, use_dictionary=False)
    import pyarrow.parquet

    place = pyarrow.parquet.ParquetFile(source).metadata.row_group(0).column(0).data_page_offset
    body = bytearray(source.read_bytes())
    body[place : place + 40] = b"\xff" * 40
    source.write_bytes(body)
    assert take_in(source, tmp_path / "w", capsys)["failed_broken_row_group"] == 1
    assert addresses(tmp_path / "w") == URLS[20:]


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "dictionary"])
def test_texts_of_every_kind_are_read_and_an_address_of_other_bytes_is_none(
    tmp_path: Path, kind: str, capsys: Any
) -> None:
    import pyarrow
    import pyarrow.parquet

    raw = pyarrow.array([b"https://a.example/1.jpg", b"https://a.example/\xff.jpg", None])
    given = {"binary": raw, "dictionary": raw.dictionary_encode()}.get(kind)
    if given is None:  # text that is none, which only a careless writer makes
        given = pyarrow.Array.from_buffers(pyarrow.string(), 3, raw.buffers()).cast(kind)
    titles = pyarrow.array(["first", None, "third"])
    columns = {"URL": given, "caption": titles, "width": [2**63 - 1, 640, 3], "height": [float("inf"), 480.0, 1.0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "list.parquet")
    assert take_in(tmp_path / "list.parquet", tmp_path / "w", capsys)["failed_no_address"] == 1
    assert addresses(tmp_path / "w") == ["https://a.example/1.jpg"]
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT title, width, height FROM images ORDER BY id") == [
        ("first", None, None),
    ]


ENDLESS = "x" * (2 * LONGEST_LINE + 5)
LINES = {
    "a.txt": ("https://a.example/1.jpg\n%s\nhttps://a.example/2.jpg\n", 1),
    "a.csv": ("url,caption\nhttps://a.example/1.jpg,a\n%s,b\nhttps://a.example/2.jpg,c\n", 1),
    "quoted.csv": ('url,caption\nhttps://a.example/1.jpg,a\n"%s",b\nhttps://a.example/2.jpg,c\n', 1),
    "a.jsonl": ('{"url": "https://a.example/1.jpg"}\n{"t": "%s"}\n{"url": "https://a.example/2.jpg"}\n', 1),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_without_end_is_passed_over(tmp_path: Path, name: str, capsys: Any) -> None:
    template, broken = LINES[name]
    (tmp_path / name).write_text(template % ENDLESS)
    assert take_in(tmp_path / name, tmp_path / "w", capsys)["failed_broken_line"] == broken
    assert addresses(tmp_path / "w") == ["https://a.example/1.jpg", "https://a.example/2.jpg"]


def test_a_file_that_is_one_line_takes_little_memory(tmp_path: Path) -> None:
    source = tmp_path / "list.txt"
    with source.open("wb") as handle:
        handle.write(b"https://a.example/1.jpg\n")
        handle.seek(400_000_000)
        handle.write(b"\nhttps://a.example/2.jpg\n")
    assert peak_of_step("ingest", "--import", source, "--workspace", tmp_path / "w") < MOST_MEMORY
    assert addresses(tmp_path / "w") == ["https://a.example/1.jpg", "https://a.example/2.jpg"]


ODD = [
    '{"url": "https://a.example/1.jpg", "x": %s}' % ("[" * 100_000 + "]" * 100_000),
    '{"url": "https://a.example/1.jpg", "x": [' + ",".join(["{}"] * 400_000) + "]}",
]


@pytest.mark.parametrize("width", ["9" * 5000, "NaN", "1e999", "-Infinity"], ids=["digits", "NaN", "large", "infinity"])
def test_numbers_that_no_picture_has_are_no_size(tmp_path: Path, width: str, capsys: Any) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"url": "https://a.example/1.jpg", "width": {width}}}')
    assert take_in(tmp_path / "a.jsonl", tmp_path / "w", capsys)["failed"] == 0
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT width FROM images") == [(None,)]


@pytest.mark.parametrize("line", ODD, ids=["nested", "objects"])
def test_depths_that_json_has_no_room_for_are_broken_lines(tmp_path: Path, line: str, capsys: Any) -> None:
    (tmp_path / "a.jsonl").write_text('{"url": "https://b.example/0.jpg"}\n' + line + "\n")
    assert take_in(tmp_path / "a.jsonl", tmp_path / "w", capsys)["failed_broken_line"] == 1
    assert addresses(tmp_path / "w") == ["https://b.example/0.jpg"]


ROW = '{"url": "https://a.example/1.jpg", "width": %s, "title": "%s"}\n'


@pytest.mark.parametrize("width", ["-5", "9223372036854775808", "18446744073709551615", "1e300", "0", '"1e999"'])
def test_sizes_that_no_picture_has_are_unknown(tmp_path: Path, width: str, capsys: Any) -> None:
    (tmp_path / "a.jsonl").write_text(ROW % (width, r"half \ud83d of it \u0000"))
    take_in(tmp_path / "a.jsonl", tmp_path / "w", capsys)
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT width, title FROM images") == [(None, "half \ufffd of it")]


def reference(path: Path, more: str = "") -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE images (id TEXT, title TEXT, image_url TEXT, pos INTEGER)")
    connection.execute("CREATE TABLE image_variants (image_id TEXT, variant_type TEXT, url TEXT)")
    for script in filter(None, more.split(";")):
        connection.execute(script)
    return connection


def test_a_reference_database_with_one_long_title_takes_little_memory(tmp_path: Path) -> None:
    connection = reference(tmp_path / "yandex_images.db")
    connection.execute("INSERT INTO images VALUES ('a', zeroblob(100000000), 'https://a.example/1.jpg', 0)")
    connection.execute("UPDATE images SET title = CAST(title AS TEXT)")
    connection.execute("INSERT INTO images VALUES ('b', 'B', 'https://a.example/2.jpg', 1)")
    connection.commit()
    connection.close()
    peak = peak_of_step("ingest", "--import", tmp_path / "yandex_images.db", "--workspace", tmp_path / "w")
    assert peak < MOST_MEMORY / 2  # as the file and a step without any take together
    assert addresses(tmp_path / "w") == ["https://a.example/1.jpg", "https://a.example/2.jpg"]


def test_what_a_reference_database_may_hold_is_read_or_counted(tmp_path: Path, capsys: Any) -> None:
    connection = reference(tmp_path / "r.db")
    long = "z" * (LONGEST_VALUE + 1)
    rows = [
        (-(2**63), "first", "A", "https://a.example/1.jpg", 2**63 - 1),
        (1, long, "long id", "https://a.example/2.jpg", 1),
        (2, "long title", long, "https://a.example/3.jpg", -1),
        (3, None, "no id", "https://a.example/4.jpg", 1),
        (4, b"\xff\x00", b"\xff", "https://a.example/5.jpg", "nonsense"),
        (2**63 - 1, "last", "Z", "https://a.example/6.jpg", 1.5e300),
    ]
    connection.executemany("INSERT INTO images (rowid, id, title, image_url, pos) VALUES (?, ?, ?, ?, ?)", rows)
    connection.execute(
        "INSERT INTO images VALUES (CAST(x'62ff' AS TEXT), CAST(x'ff' AS TEXT), 'https://a.example/7', 0)"
    )
    many = [("last", "dups", f"https://b.example/{number}") for number in range(2_000)]
    connection.executemany("INSERT INTO image_variants VALUES (?, ?, ?)", [*many, (long, "", "x"), (None, "", "")])
    connection.commit()
    connection.close()
    counts = take_in(tmp_path / "r.db", tmp_path / "w", capsys)
    assert {name: count for name, count in counts.items() if name.startswith("failed_")} == {
        "failed_no_id": 1,
        "failed_too_long": 3,
        "failed_too_many_addresses": 1_000,
    }
    found = as_rows(tmp_path / "w/gleaner.db", "SELECT extra ->> '$.id', title FROM images")
    named = {"first": "A", "last": "Z", "long title": "", "b\ufffd": "\ufffd"}
    assert dict(found) == named and len(found) == len(named)


TRAPS = {
    "a view": "DROP TABLE images; CREATE VIEW images AS SELECT hex(zeroblob(500000000)) AS id",
    "a virtual table": "DROP TABLE images; CREATE VIRTUAL TABLE images USING fts5(id, title)",
}


@pytest.mark.parametrize("name", TRAPS)
def test_what_only_looks_like_the_reference_is_refused_in_a_sentence(tmp_path: Path, name: str, capsys: Any) -> None:
    reference(tmp_path / "r.db", TRAPS[name]).close()
    assert step.main(["--import", str(tmp_path / "r.db"), "--workspace", str(tmp_path / "w")]) == 2
    assert "has no tables images and image_variants" in capsys.readouterr().err


SHAPES = {
    "a computed column": "DROP TABLE images; CREATE TABLE images (id TEXT, image_url TEXT,"
    " title TEXT AS (hex(zeroblob(image_url))))",
    "a column called rowid": "DROP TABLE images; CREATE TABLE images (id TEXT, rowid TEXT, image_url TEXT)",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON images BEGIN SELECT 1; END",
}


@pytest.mark.parametrize("name", SHAPES)
def test_odd_tables_are_read_by_their_plain_columns(tmp_path: Path, name: str, capsys: Any) -> None:
    connection = reference(tmp_path / "r.db")
    connection.executescript(SHAPES[name])
    connection.execute("INSERT INTO images (id, image_url) VALUES ('a', 'https://a.example/1.jpg')")
    connection.commit()
    connection.close()
    take_in(tmp_path / "r.db", tmp_path / "w", capsys)
    assert addresses(tmp_path / "w") == ["https://a.example/1.jpg"]


def test_a_damaged_reference_database_is_one_sentence(tmp_path: Path, capsys: Any) -> None:
    connection = reference(tmp_path / "r.db")
    connection.executemany("INSERT INTO images VALUES (?, ?, ?, 0)", [(f"i{n}", "t" * 99, "u") for n in range(999)])
    connection.commit()
    connection.close()
    body = bytearray((tmp_path / "r.db").read_bytes())
    body[3 * 4096 : 9 * 4096] = b"\xff" * (6 * 4096)
    (tmp_path / "r.db").write_bytes(body)
    assert step.main(["--import", str(tmp_path / "r.db"), "--workspace", str(tmp_path / "w")]) == 1
    assert "is damaged" in capsys.readouterr().err


def test_text_from_anywhere_is_whole_characters() -> None:
    for clean in (storable, text, plain, address):
        assert clean("a\ud800b\x00c") == "a\ufffdbc", clean
    assert storable("\U0001f600é") == "\U0001f600é"
    assert path_as_text(os.fsdecode(b"a\xff")) == "a\\xff"


@pytest.mark.parametrize("words", [["--keywords", "caf\udce9"], ["--keywords", "good", "\udcff"]])
def test_words_that_are_no_text_are_refused_in_a_sentence(tmp_path: Path, words: list[str], capsys: Any) -> None:
    arguments = ["--engine", "openverse", "--workspace", str(tmp_path / "w")]
    assert load_step("collect").main([*words, *arguments]) == 2
    assert "--keywords is no UTF-8 text" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_lists_and_folders_may_have_names_that_are_no_text(tmp_path: Path, capsys: Any) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/d\xff"))
    folder.mkdir()
    (folder / "list.txt").write_text(URLS[0] + "\n")
    source = folder / os.fsdecode(b"l\xff.txt")
    source.write_text(URLS[0] + "\n")
    take_in(source, tmp_path / "w", capsys)
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT text FROM queries") == [("l\\xff.txt",)]


def test_sidecars_are_bounded_and_half_characters_are_mended(tmp_path: Path, capsys: Any) -> None:
    for name in "abc":
        drawing(ord(name)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.json").write_text('{"title": "half \\ud83d"}')
    (tmp_path / "b.json").write_text("[" * 100_000 + "]" * 100_000)
    row = json.dumps({"file_name": "c.png", "title": "C", "embedding": [0.5] * 100})
    (tmp_path / "metadata.jsonl").write_text("x" * (2 * LARGEST) + "\n" + row + "\n")
    sidecars = Sidecars()
    assert sidecars.of(tmp_path / "a.png") == {"title": "half \ufffd"}
    assert sidecars.of(tmp_path / "b.png") == {}
    assert sidecars.of(tmp_path / "c.png") == {"title": "C"}
    assert sidecars.broken == 2
    assert step.main(["--import-folder", str(tmp_path), "--workspace", str(tmp_path / "w"), "-q"]) == 0
    found = as_rows(tmp_path / "w/gleaner.db", "SELECT title FROM images ORDER BY title")
    assert found == [("C",), ("b",), ("half \ufffd",)]


@pytest.mark.parametrize("asked", ["9" * 5000, "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 99 Dec 99999 23:59:59 GMT"])
def test_no_pause_is_longer_than_a_calendar(asked: str) -> None:
    assert retry_after({"retry-after": asked}) in (LONGEST_PAUSE, None)


XML = [
    b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
    '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a []><a/>'.encode("utf-16"),
    b'<?xml version="1.0" encoding="utf-7"?><a/>',
    b"<a" + b" b='c'" * 10,
]


@pytest.mark.parametrize("body", XML)
def test_xml_with_entities_or_another_alphabet_is_none(body: bytes) -> None:
    with pytest.raises(ParseError, match="not_xml"):
        load_xml(body)


@pytest.mark.parametrize("body", [b'"\\' * 200_000, b"'" + b'"\\"' * 200_000, b"{" * 200_000, b"/*" * 200_000])
def test_a_literal_without_end_is_no_endless_work(body: bytes) -> None:
    with pytest.raises(ParseError, match="no_state|not_json"):
        naver.parse_page(b"imageSearchTabData={" + body)
    naver.to_json(body.decode())


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("127.0.0.1", True),
        ("[::1]", True),
        ("2130706433", True),
        ("0x7f.1", True),
        ("10.1.2.3", True),
        ("169.254.169.254", True),
        ("::ffff:192.168.0.1", True),
        ("localhost", True),
        ("a.localhost.", True),
        ("router.lan", True),
        ("8.8.8.8", False),
        ("example.org", False),
        ("1.2.3.4.example.org", False),
    ],
)
def test_names_that_lead_inside(host: str, inside: bool) -> None:
    assert names_inside(host) is inside


def test_a_name_is_looked_up() -> None:
    assert asyncio.run(leads_inside("localhost"))
    assert not asyncio.run(leads_inside("no-such-host.invalid"))


INTERRUPT = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.skipif(os.name != "posix", reason="a process sends itself a Ctrl-C in another way there")
@pytest.mark.parametrize("module", ["lib.cli", "lib.cli.output", "lib.workspace"])
@pytest.mark.parametrize("name", ["collect", "ingest", "sort"])
def test_ctrl_c_while_modules_are_loaded_is_a_sentence(tmp_path: Path, name: str, module: str) -> None:
    (tmp_path / "sitecustomize.py").write_text(INTERRUPT.format(module=module))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(ROOT / STEPS[name]), "--workspace", str(tmp_path / "w")],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=PATIENCE, check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (130, "stopped before anything was begun; run the same command again.\n")


def test_reasons_are_those_of_the_list(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{URLS[0]}\n{'x' * (LONGEST_LINE + 1)}")
    reasons: Counter[str] = Counter()
    assert [record.variants[0].url for record in list_records(tmp_path / "a.txt", Layout("text"), reasons)] == URLS[:1]
    assert reasons == {"broken_line": 1}


class Hostile(BaseHTTPRequestHandler):
    """A picture behind headers that are no UTF-8."""

    def do_GET(self) -> None:
        buffer = io.BytesIO()
        drawing(1).save(buffer, "PNG")
        found = self.path != "/robots.txt"
        self.wfile.write(b"HTTP/1.0 200 OK\r\n" if found else b"HTTP/1.0 404 \xff\r\n")
        self.wfile.write(b'ETag: "\xff\xfe"\r\nContent-Type: image/png; \xff\r\nLast-Modified: \xff\r\n\r\n')
        self.wfile.write(buffer.getvalue() if found else b"")

    def log_message(self, *_: object) -> None:
        pass


def test_headers_that_are_no_text_end_no_download(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (tmp_path / "a.txt").write_text(f"http://127.0.0.1:{server.server_port}/1.png\n")
        assert step.main(["--import", str(tmp_path / "a.txt"), "--workspace", str(tmp_path / "w"), "-q"]) == 0
        assert load_step("download").main(["--allow-private", "--workspace", str(tmp_path / "w"), "-q"]) == 0
        server.shutdown()
    assert as_rows(tmp_path / "w/gleaner.db", "SELECT state, etag FROM downloads") == [("done", '"\ufffd\ufffd"')]
