"""One reader of lists: encodings, separators, headless tables, JSON, Parquet, and the columns that data sets have."""

from __future__ import annotations

import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import as_rows, load_step

from lib.ingest.columns import link_of, named, record_of, sides_of
from lib.ingest.tables import unmarked_encoding

step = load_step("ingest")
A, B, C = "https://a.example/1.jpg", "https://b.example/2.jpg", "https://c.example/3.jpg"
CYRILLIC = f"url,caption\n{A},кот\n{B},пёс\n"


def import_list(place: Path, content: bytes | str, *arguments: str, name: str = "list") -> int:
    path = place / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return step.main(["--import", str(path), "--workspace", str(place / "w"), "--json", *arguments])


def stored(place: Path, columns: str = "v.url, i.title") -> list[tuple[Any, ...]]:
    tables = "image_variants v JOIN images i ON i.id = v.image_id"
    return as_rows(place / "w/gleaner.db", f"SELECT {columns} FROM {tables} WHERE v.kind = 'original' ORDER BY v.id")


def reasons(said: str) -> dict[str, int]:
    counts = json.loads(said)["counts"]
    return {key.removeprefix("failed_"): count for key, count in counts.items() if key.startswith("failed_")}


ENCODED = {
    "UTF-8 with a mark": (codecs.BOM_UTF8 + CYRILLIC.encode(), ()),
    "UTF-16, little": (codecs.BOM_UTF16_LE + CYRILLIC.encode("utf-16-le"), ()),
    "UTF-16, big": (codecs.BOM_UTF16_BE + CYRILLIC.encode("utf-16-be"), ()),
    "UTF-32, little": (codecs.BOM_UTF32_LE + CYRILLIC.encode("utf-32-le"), ()),
    "UTF-32, big": (codecs.BOM_UTF32_BE + CYRILLIC.encode("utf-32-be"), ()),
    "UTF-16 without a mark": (CYRILLIC.encode("utf-16-le"), ()),
    "UTF-16, big, without a mark": (CYRILLIC.encode("utf-16-be"), ()),
    "UTF-32 without a mark": (CYRILLIC.encode("utf-32-le"), ()),
    "Windows, named": (CYRILLIC.encode("cp1251"), ("--encoding", "cp1251")),
    "KOI8, named": (CYRILLIC.encode("koi8-r"), ("--encoding", "KOI8-R")),
    "Shift JIS, named": (CYRILLIC.replace("ё", "е").encode("shift_jis"), ("--encoding", "shift_jis")),
    "a mark beats a name": (codecs.BOM_UTF8 + CYRILLIC.encode(), ("--encoding", "cp1251")),
}


@pytest.mark.parametrize("name", ENCODED)
def test_letters_are_read_as_they_were_written(tmp_path: Path, name: str) -> None:
    content, arguments = ENCODED[name]
    assert import_list(tmp_path, content, *arguments) == 0
    assert [(url, title.replace("пес", "пёс")) for url, title in stored(tmp_path)] == [(A, "кот"), (B, "пёс")]


@pytest.mark.parametrize("encoding", ["cp1251", "latin-1", "shift_jis", "gb18030", "koi8-r"])
@pytest.mark.parametrize("layout", ["{}\n", "url,caption\n{},x\n", '{{"url": "{}"}}\n', '[{{"url": "{}"}}]'])
def test_an_unknown_encoding_is_refused_with_the_remedy(
    tmp_path: Path, encoding: str, layout: str, capsys: Any
) -> None:
    letter = "é" if encoding == "latin-1" else "д"
    content = layout.format(f"https://a.example/{letter * 3}.jpg").encode(encoding)
    assert import_list(tmp_path, content) == 2
    assert "is not UTF-8: line " in (said := capsys.readouterr().err) and "--encoding" in said


def test_a_bad_byte_in_a_list_of_utf_8_costs_its_own_address_only(tmp_path: Path, capsys: Any) -> None:
    content = f"{A}\nhttps://é.example/\nhttps://ü.example/\n".encode() + b"https://b.example/caf\xe9.jpg\n"
    assert import_list(tmp_path, content) == 0
    assert len(stored(tmp_path)) == 3 and reasons(capsys.readouterr().out) == {"bad_encoding": 1}


def test_lost_letters_are_no_address_whoever_lost_them(tmp_path: Path, capsys: Any) -> None:
    lines = [A, "https://b.example/caf\ufffd.jpg"]
    assert import_list(tmp_path, "\n".join(json.dumps({"url": line}) for line in lines)) == 0
    assert reasons(capsys.readouterr().out) == {"bad_encoding": 1} and [url for url, _ in stored(tmp_path)] == [A]


@pytest.mark.parametrize("name", ["nonsense", "rot13", "idna", "hex", ""])
def test_what_is_no_encoding_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        import_list(tmp_path, A, "--encoding", name)
    assert stopped.value.code == 2


@given(st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=30), st.sampled_from(["utf-16", "utf-32"]))
@settings(max_examples=60, deadline=None)
def test_wide_letters_are_told_without_a_mark(caption: str, encoding: str) -> None:
    for order in ("le", "be"):
        content = f"url,caption\n{A},{caption}\n{B},{caption}\n".encode(f"{encoding}-{order}")
        assert unmarked_encoding(content) == f"{encoding}-{order}"


TABLES = {
    "Excel's line": f"sep=;\r\nurl;caption\r\n{A};one, two\r\n{B};B\r\n",
    "Excel's line, quoted": f'"sep=,"\nurl,caption\n{A},"one, two"\n{B},B\n',
    "Excel's line, a tab": f"sep=\t\nurl\tcaption\n{A}\tone, two\n{B}\tB\n",
    "semicolons": f"caption;url\none, two;{A}\nB;{B}\n",
    "tabs under another ending": f"caption\turl\none, two\t{A}\nB\t{B}\n",
    "bars": f"caption|url\none, two|{A}\nB|{B}\n",
    "blank lines first": f"\n\nurl;caption\n{A};one, two\n{B};B\n",
    "remarks first": f'# by hand\n# twice, three times\nurl,caption\n{A},"one, two"\n{B},B\n',
    "names in a remark": f"#url\tcaption\n{A}\tone, two\n{B}\tB\n",
    "caption, tab, address": f"one, two\t{A}\nB\t{B}\n",
    "address, tab, caption": f"{A}\tone, two\n{B}\tB\n",
    "address, comma, caption": f'{A},"one, two"\n{B},B\n',
    "quotes that are none": f'one, two\t{A}\nB\t{B}\n"so\t{C}\n',
    "old Macs": f"url;caption\r{A};one, two\r{B};B\r",
}


@pytest.mark.parametrize("name", TABLES)
def test_columns_are_told_by_the_content(tmp_path: Path, name: str) -> None:
    assert import_list(tmp_path, TABLES[name], name="list.csv") == 0
    assert stored(tmp_path)[:2] == [(A, "one, two"), (B, "B")]
    assert len(stored(tmp_path)) == TABLES[name].count("https://")


def test_a_quoted_line_break_belongs_to_its_field(tmp_path: Path) -> None:
    for separator in ",;\t":
        table = f'url{separator}caption\n{A}{separator}"one\ntwo"\n{B}{separator}B\n'
        assert import_list(tmp_path, table) == 0
        assert stored(tmp_path) == [(A, "one two"), (B, "B")]


def test_a_number_beside_an_address_is_its_id_and_no_caption(tmp_path: Path) -> None:
    assert import_list(tmp_path, f"000060e3121c7305\t{A}\n12\t{B}\n") == 0
    assert stored(tmp_path, "v.url, i.title, i.extra ->> 'list_id'") == [(A, "", "000060e3121c7305"), (B, "", "12")]


def test_the_address_of_a_wide_table_without_names_is_the_picture(tmp_path: Path) -> None:
    # As YFCC100M is laid out: a page, a picture, a licence.
    rows = [
        f"{n}\tann\thttp://www.flickr.example/photos/{n}/\t{url}\thttp://cc.example/by/2.0/"
        for n, url in enumerate((A, B))
    ]
    assert import_list(tmp_path, "\n".join(rows)) == 0
    assert [url for url, _ in stored(tmp_path)] == [A, B]


def test_two_columns_of_addresses_without_names_have_to_be_told_apart(tmp_path: Path, capsys: Any) -> None:
    table = "https://p.example/1\thttps://i.example/1\nhttps://p.example/2\thttps://i.example/2\n"
    assert import_list(tmp_path, table) == 2 and "--url-column NUMBER" in capsys.readouterr().err
    assert import_list(tmp_path, table, "--url-column", "2") == 0
    assert [url for url, _ in stored(tmp_path)] == ["https://i.example/1", "https://i.example/2"]


def test_an_address_with_commas_is_not_taken_apart(tmp_path: Path) -> None:
    lines = [f"https://a.example/w_{n},h_{n}/{n}.jpg" for n in range(1, 4)]
    assert import_list(tmp_path, "\n".join(lines)) == 0
    assert [url for url, _ in stored(tmp_path)] == lines


def test_the_quotes_of_a_table_of_one_column_are_no_part_of_an_address(tmp_path: Path) -> None:
    assert import_list(tmp_path, f'url\n"https://a.example/w_1,h_1/1.jpg"\n{B}\n') == 0
    assert [url for url, _ in stored(tmp_path)] == ["https://a.example/w_1,h_1/1.jpg", B]


ROWS = [{"url": A, "caption": "A"}, {"url": B, "caption": "B"}]
DOCUMENTS = {
    "array": ROWS,
    "indented": json.dumps(ROWS, indent=1),
    "data": {"count": 2, "data": ROWS},
    "rows of a dataset server": {"features": [{"name": "url"}], "rows": [{"row": row} for row in ROWS]},
    "results in results": {"url": "https://api.example/?q=1", "results": {"next": None, "items": ROWS}},
    "by key": {"1": ROWS[0], "2": ROWS[1]},
    "COCO": {"info": {"year": 2017}, "images": [{"coco_url": A, "title": "A"}, {"coco_url": B, "title": "B"}]},
    "table of arrays": [["url", "caption"], [A, "A"], [B, "B"]],
    "pandas, split": {"columns": ["url", "caption"], "index": [0, 1], "data": [[A, "A"], [B, "B"]]},
    "objects in objects": [{"image": {"url": A}, "caption": "A"}, {"image": {"url": B}, "caption": "B"}],
    "UTF-16": codecs.BOM_UTF16_LE + json.dumps(ROWS).encode("utf-16-le"),
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json_is_read_in_whatever_it_is_wrapped(tmp_path: Path, name: str) -> None:
    content = DOCUMENTS[name]
    assert import_list(tmp_path, content if isinstance(content, str | bytes) else json.dumps(content)) == 0
    expected = [(A, "A"), (B, "B")]
    assert stored(tmp_path) == expected


def test_an_array_of_addresses_is_a_list(tmp_path: Path, capsys: Any) -> None:
    assert import_list(tmp_path, json.dumps([A, B, 5, None])) == 0
    assert [url for url, _ in stored(tmp_path)] == [A, B]
    assert reasons(capsys.readouterr().out) == {"no_address": 2}


def test_a_large_array_is_read_a_piece_at_a_time_and_what_breaks_off_is_said(tmp_path: Path, capsys: Any) -> None:
    rows = [{"url": f"https://a.example/{n}.jpg", "note": "x" * 500} for n in range(2000)]
    assert import_list(tmp_path, json.dumps(rows)[:-5000]) == 0
    assert len(stored(tmp_path)) > 1900 and reasons(capsys.readouterr().out) == {"broken_line": 1}


NUMBERS = {
    "NaN": ('{"url": "%s", "width": NaN, "height": 5}', (None, 5, None)),
    "Infinity": ('{"url": "%s", "width": Infinity, "height": -Infinity}', (None, None, None)),
    "23 digits": ('{"url": "%s", "id": 12345678901234567890123}', (None, None, "12345678901234567890123")),
    "beyond 2**53": ('{"url": "%s", "id": 9007199254740993}', (None, None, "9007199254740993")),
    "beyond 2**64": ('{"url": "%s", "id": 18446744073709551617, "width": 3}', (3, None, "18446744073709551617")),
    "an exponent": ('{"url": "%s", "id": 1.2e19}', (None, None, "1.2e19")),
    "below 0": ('{"url": "%s", "id": -12345678901234567890123}', (None, None, "-12345678901234567890123")),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("wrap", ["%s\n", "[%s]", '{"data": [%s]}'])
def test_numbers_of_json_stay_as_they_stand_and_nan_is_no_value(tmp_path: Path, name: str, wrap: str) -> None:
    line, expected = NUMBERS[name]
    assert import_list(tmp_path, wrap % (line % A)) == 0
    assert stored(tmp_path, "i.width, i.height, i.extra ->> 'list_id'") == [expected]


@pytest.mark.parametrize("number", ["1.2e19", "12345678901234567890123", "9007199254740993", "007"])
def test_numbers_of_csv_stay_as_they_stand(tmp_path: Path, number: str) -> None:
    assert import_list(tmp_path, f"id,url\n{number},{A}\n") == 0
    assert stored(tmp_path, "i.extra ->> 'list_id'") == [(number,)]


def write_parquet(place: Path, columns: dict[str, Any]) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), place / "list")


COLUMNS = {
    "binary": {"url": pyarrow.array([A.encode(), B.encode()])},
    "large binary": {"url": pyarrow.array([A.encode(), B.encode()], pyarrow.large_binary())},
    "structure": {"image": [{"url": A, "width": 5}, {"url": B, "width": None}]},
    "lists": {"url": [A, B], "captions": [["x", "y"], []], "caption": [["first", "second"], None]},
    "an address a list": {"url": [[A], [B]]},
    "dictionary": {"url": pyarrow.array([A, B]).dictionary_encode()},
    "capitals": {"Image URL": [A, B]},
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns_of_parquet_of_other_kinds(tmp_path: Path, name: str) -> None:
    write_parquet(tmp_path, COLUMNS[name])
    assert step.main(["--import", str(tmp_path / "list"), "--workspace", str(tmp_path / "w"), "-q"]) == 0
    assert [url for url, _ in stored(tmp_path)] == [A, B]
    if name == "lists":
        assert stored(tmp_path)[0][1] == "first"


def test_ids_of_parquet_are_exact_and_bytes_are_read_in_the_named_encoding(tmp_path: Path) -> None:
    write_parquet(tmp_path, {"url": [A], "caption": ["кот".encode("cp1251")], "id": [2**63 - 1]})
    arguments = ["--import", str(tmp_path / "list"), "--workspace", str(tmp_path / "w"), "--encoding", "cp1251", "-q"]
    assert step.main(arguments) == 0
    assert stored(tmp_path, "i.title, i.extra ->> 'list_id'") == [("кот", str(2**63 - 1))]


NO_ADDRESS = {
    "csv": "image,label\nx.jpg,1\ny.jpg,2\n",
    "tsv": "image\tlabel\nx.jpg\t1\n",
    "semicolons": "image;label\nx.jpg;1\n",
    "jsonl": '{"image": "x.jpg", "label": 1}\n{"image": "y.jpg", "label": 2}\n',
    "json": '[{"image": "x.jpg", "label": 1}]',
    "parquet": "",
}


@pytest.mark.parametrize("kind", NO_ADDRESS)
def test_a_list_without_a_column_of_addresses_is_refused_with_its_columns(
    tmp_path: Path, kind: str, capsys: Any
) -> None:
    if kind == "parquet":
        write_parquet(tmp_path, {"image": ["x.jpg"], "label": [1]})
    else:
        (tmp_path / "list").write_text(NO_ADDRESS[kind])
    assert step.main(["--import", str(tmp_path / "list"), "--workspace", str(tmp_path / "w")]) == 2
    said = capsys.readouterr().err
    assert "image, label" in said and "--url-column" in said


@pytest.mark.parametrize("kind", NO_ADDRESS)
def test_the_column_with_the_address_may_be_named(tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        write_parquet(tmp_path, {"image": [A, B], "label": [1, 2]})
    else:
        (tmp_path / "list").write_text(NO_ADDRESS[kind].replace("x.jpg", A).replace("y.jpg", B))
    arguments = ["--import", str(tmp_path / "list"), "--workspace", str(tmp_path / "w"), "-q", "--url-column", "Image"]
    assert step.main(arguments) == 0
    assert stored(tmp_path)[0][0] == A


SETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    # columns -> address, page, title, creator, licence, licence's address
    "LAION": ({"URL": A, "TEXT": "A cat", "LICENSE": "?", "NSFW": "UNLIKELY", "similarity": 0.3, "hash": -5},
              (A, "", "A cat", "", "", "")),
    "OpenImages": ({"ImageID": "0a", "OriginalURL": A, "OriginalLandingURL": B, "License": "https://creativecommons.org/licenses/by/2.0/",
                    "AuthorProfileURL": "https://f.example/p", "Author": "Ann", "Title": "T", "Thumbnail300KURL": C},
                   (A, B, "T", "Ann", "CC BY 2.0", "https://creativecommons.org/licenses/by/2.0/")),
    "Unsplash": ({"photo_id": "x", "photo_url": B, "photo_image_url": A, "photographer_first_name": "Ann",
                  "photographer_last_name": "Bo", "photo_description": "A hill"}, (A, B, "", "Ann Bo", "", "")),
    "WIT": ({"page_url": B, "image_url": A, "page_title": "Cats", "caption_reference_description": "A cat",
             "caption_attribution_description": "English: a cat"}, (A, B, "A cat", "", "", "")),
    "RedCaps": ({"url": A, "raw_caption": "my cat", "permalink": "/r/cats/1", "subreddit": "cats"},
                (A, "", "my cat", "", "", "")),
    "Commons": ({"url": A, "descriptionurl": B, "uploader": "Bot", "user": "Bot", "Credit": "Own", "license": "CC0"},
                (A, B, "", "", "CC0", "")),
    "Flickr": ({"url_o": A, "ownername": "Ann", "license": 4, "title": "T"}, (A, "", "T", "Ann", "", "")),
    "page beside picture": ({"url": B, "image_url": A, "creator": "N/A"}, (A, "", "", "", "", "")),
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_columns_of_known_sets(name: str) -> None:
    row, expected = SETS[name]
    (record,) = record_of(0, named(row))
    assert not isinstance(record, str)
    url = next(variant.url for variant in record.variants if variant.kind == "original")
    assert (url, record.page_url, record.title, record.creator, record.license, record.license_url) == expected


def test_a_page_does_not_stand_in_for_a_picture_that_is_missing() -> None:
    assert list(record_of(0, named({"image_url": "", "url": B}), "imageurl")) == ["no_address"]


SIDES = [
    ({"width": 256, "height": 256, "original_width": 900, "original_height": 700}, (900, 700)),
    ({"width": 256, "height": 256, "original_width": None, "original_height": None}, (None, None)),
    ({"width": 256, "height": 256, "status": "success", "key": "0"}, (None, None)),
    ({"WIDTH": "640.0", "HEIGHT": 480.0}, (640, 480)),
    ({"photo_width": 9, "photo_height": "8"}, (9, 8)),
]


@pytest.mark.parametrize(("row", "sides"), SIDES)
def test_a_width_that_a_tool_made_is_not_the_originals(row: dict[str, Any], sides: tuple[int | None, ...]) -> None:
    assert sides_of(named(row)) == sides


ENTITIES = [
    ("https://a.example/?a=1&amp;b=2&amp;copy=3", "https://a.example/?a=1&b=2&copy=3"),
    ("https://a.example/?a=1&amp;amp;b=2", "https://a.example/?a=1&amp;b=2"),
    ("https://a.example/?a=1&#38;b=2&#x26;c=3", "https://a.example/?a=1&b=2&c=3"),
    ("https://a.example/?a=1&b=2&amp;c=3", "https://a.example/?a=1&b=2&amp;c=3"),  # it was not escaped as a whole
    ("https://a.example/?a=1&copy=2&reg=3", "https://a.example/?a=1&copy=2&reg=3"),
    ("https://a.example/?a=1", "https://a.example/?a=1"),
]


@pytest.mark.parametrize(("written", "meant"), ENTITIES)
def test_an_address_that_was_escaped_is_unescaped_once(written: str, meant: str) -> None:
    assert link_of(written) == meant


@pytest.mark.parametrize(
    "address", ["https://creativecommons.org/publicdomain/zero/1.0/", "http://www.creativecommons.org/"]
)
def test_an_address_of_creative_commons_names_its_licence(address: str) -> None:
    (record,) = record_of(0, named({"url": A, "license_url": address}))
    assert not isinstance(record, str) and record.license_url == address
    assert record.license == ("CC0 1.0" if "zero" in address else "")


def test_a_packed_list_is_refused_with_the_remedy(tmp_path: Path, capsys: Any) -> None:
    assert import_list(tmp_path, gzip.compress(f"url\n{A}\n".encode())) == 2
    assert "is packed (gzip); unpack it" in capsys.readouterr().err


JOINED = {
    "addresses": (f"\ufeff{A}\n\ufeff{B}\n", "utf-8"),
    "addresses, the first without an end": (f"\ufeff{A}\ufeff{B}\n", "utf-8"),
    "addresses in UTF-16": (f"\ufeff{A}\r\n\ufeff{B}\r\n", "utf-16-le"),
    "tables with names": (f"\ufeffurl,title\n{A},x\n\ufeffurl,title\n{B},y\n", "utf-8"),
    "tables without a mark": (f"url,title\n{A},x\nurl,title\n{B},y\n", "utf-8"),
    "tables without names": (f"\ufeff{A}\tone cat\n\ufeff{B}\tone dog\n", "utf-8"),
    "JSON Lines": (f'\ufeff{{"url":"{A}"}}\n\ufeff{{"url":"{B}"}}\n', "utf-8"),
    "JSON objects": (f'{{\n"url":"{A}"\n}}\n\ufeff{{\n"url":"{B}"\n}}\n', "utf-8"),
    "JSON on one line": (f'{{"url":"{A}"}}{{"url":"{B}"}}', "utf-8"),
    "JSON arrays": (f'[{{"url":"{A}"}}]\n[{{"url":"{B}"}}]', "utf-8"),
    "JSON with commas": (f'{{"url":"{A}"}},\n{{"url":"{B}",}},\n', "utf-8"),
    "lines by other signs": (f"{A}\u2028{B}\x85", "utf-8"),
}


@pytest.mark.parametrize("name", JOINED)
def test_files_put_together_are_read_whole(tmp_path: Path, name: str, capsys: Any) -> None:
    content, encoding = JOINED[name]
    assert import_list(tmp_path, content.encode(encoding)) == 0
    assert [url for url, _ in stored(tmp_path)] == [A, B]
    assert reasons(capsys.readouterr().out) == {}


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("rows", [3, 40_000])
def test_a_quotation_mark_that_is_never_closed_takes_no_rows_along(tmp_path: Path, separator: str, rows: int) -> None:
    lines = [f"https://a.example/{number}.jpg{separator}word {number}\n" for number in range(rows)]
    lines[1] = lines[1].replace("word", '"19 inch')
    lines[0] = lines[0].replace("word 0", '"quoted"')
    assert import_list(tmp_path, f"url{separator}title\n" + "".join(lines)) == 0
    found = stored(tmp_path)
    assert len(found) == rows and found[1][1] == '"19 inch 1'
    assert found[2] == ("https://a.example/2.jpg", "word 2")


def test_titles_of_several_lines_stay_whole(tmp_path: Path) -> None:
    content = f'url,title\n{A},"one\ntwo, three\nfour"\n{B},"{C}\n{C}"\n'
    assert import_list(tmp_path, content) == 0
    assert stored(tmp_path) == [(A, "one two, three four"), (B, f"{C} {C}")]


LONG = '{"url": "https://a.example/0.jpg", "text": '


@pytest.mark.parametrize("first", [f'{LONG}"{"x" * 5_000_000}"}}', f"{LONG}{'[' * 5000}{']' * 5000}}}"])
def test_a_first_line_that_is_too_much_is_that_line_alone(tmp_path: Path, first: str, capsys: Any) -> None:
    assert import_list(tmp_path, first + f'\n{{"url": "{A}"}}\n') == 0
    assert stored(tmp_path) == [(A, "")] and reasons(capsys.readouterr().out) == {"broken_line": 1}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_a_wrong_name_of_an_encoding_is_said(tmp_path: Path, encoding: str, capsys: Any) -> None:
    assert import_list(tmp_path, CYRILLIC, "--encoding", encoding) == 2
    assert f"is not {encoding.upper()}" in capsys.readouterr().err
    assert import_list(tmp_path, CYRILLIC.encode(f"{encoding}-be"), "--encoding", encoding) == 0


def test_letters_that_look_like_utf_8_by_chance_are_refused(tmp_path: Path, capsys: Any) -> None:
    content = "url,title\nhttps://a.example/写真.jpg,日本の写真\nhttps://a.example/2.jpg,写\n".encode("gb18030")
    assert import_list(tmp_path, content) == 2 and "is not UTF-8: line 2" in capsys.readouterr().err


def test_a_title_that_says_nothing_is_none(tmp_path: Path) -> None:
    rows = "".join(
        f"https://a.example/{number}.jpg,{word}\n" for number, word in enumerate(("NaN", "n/a", "?", "nana"))
    )
    assert import_list(tmp_path, "url,title\n" + rows) == 0
    assert [title for _, title in stored(tmp_path)] == ["", "", "", "nana"]


def test_what_a_table_of_pictures_may_hold(tmp_path: Path) -> None:
    from datetime import datetime
    from decimal import Decimal

    table = pyarrow.table(
        {
            "url": [A, B, C],
            "id": pyarrow.array([Decimal("12345678901234567890123"), None, Decimal(1)], pyarrow.decimal128(38, 0)),
            "width": pyarrow.array([float("nan"), float("inf"), 640.0]),
            "height": pyarrow.array([Decimal("480.00"), Decimal(1), Decimal(480)]),
            "date": pyarrow.array([datetime(2020, 1, 2, 3, 4, 5), None, datetime(1970, 1, 1)]),
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "p")
    assert step.main(["--import", str(tmp_path / "p"), "--workspace", str(tmp_path / "w"), "-q"]) == 0
    columns = "coalesce(i.extra ->> 'list_id', ''), i.width, i.height, i.published_at"
    assert stored(tmp_path, columns) == [
        ("12345678901234567890123", None, 480, "2020-01-02 03:04:05.000000"),
        ("", None, 1, ""),
        ("1", 640, 480, "1970-01-01 00:00:00.000000"),
    ]


def test_dates_beyond_a_calendar_and_columns_of_one_name(tmp_path: Path) -> None:
    dates = pyarrow.array([0, 2**31 - 1], pyarrow.date32())
    table = pyarrow.table([pyarrow.array([A, B]), dates, pyarrow.array(["x", "y"])], names=["url", "date", "url"])
    pyarrow.parquet.write_table(table, tmp_path / "p")
    assert step.main(["--import", str(tmp_path / "p"), "--workspace", str(tmp_path / "w"), "-q"]) == 0
    assert stored(tmp_path, "v.url, i.published_at") == [(A, "1970-01-01"), (B, "")]


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_columns_without_a_dictionary_are_read(tmp_path: Path, encoding: str, version: str) -> None:
    table = pyarrow.table({"url": [A, B], "title": ["x", "y"]})
    pyarrow.parquet.write_table(
        table, tmp_path / "p", use_dictionary=False, column_encoding=encoding, data_page_version=version
    )
    assert step.main(["--import", str(tmp_path / "p"), "--workspace", str(tmp_path / "w"), "-q"]) == 0
    assert stored(tmp_path) == [(A, "x"), (B, "y")]
