"""Sidecars of pictures on disk: Takeout's names, Hugging Face's lists, NFC and NFD, encodings, captions and XMP."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from support import as_rows, drawing, load_step

from lib.ingest.sidecars import Sidecars

step = load_step("ingest")
TAKEN = {"description": "On the hill", "imageViews": "3",
         "photoTakenTime": {"timestamp": "1500000000"}, "geoData": {},
         "url": "https://photos.google.com/photo/AF1"}  # fmt: skip


def put(folder: Path, *names: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing(number).save(path, "PNG")
    return paths


def facts_of(picture: Path, root: Path | None = None, encoding: str = "") -> Any:
    return Sidecars(encoding).of(picture, root)


LONG = "A very long name of a photograph that goes on and on and on (final version).jpg"
TAKEOUT = [
    ("IMG_1.jpg", "IMG_1.jpg.supplemental-metadata.json", "IMG_1.jpg"),
    ("IMG_1.jpg", "IMG_1.jpg.suppl.json", "IMG_1.jpg"),
    ("IMG_1.jpg", "IMG_1.jpg.supplemental-meta.json", "IMG_1.jpg"),
    ("IMG_1.jpg", "IMG_1.jpg.s.json", "IMG_1.jpg"),
    ("IMG_3(1).jpg", "IMG_3.jpg.supplemental-metadata(1).json", "IMG_3.jpg"),
    ("IMG_3(12).jpg", "IMG_3.jpg.suppl(12).json", "IMG_3.jpg"),
    ("IMG_3(1).jpg", "IMG_3.jpg(1).json", "IMG_3.jpg"),
    ("IMG_1-edited.jpg", "IMG_1.jpg.supplemental-metadata.json", "IMG_1.jpg"),
    ("IMG_1-bearbeitet.jpg", "IMG_1.jpg.json", "IMG_1.jpg"),
    ("IMG_1-edited(2).jpg", "IMG_1.jpg.supplemental-metadata(2).json", "IMG_1.jpg"),
    (LONG[:47] + ".jpg", LONG[:46] + ".json", LONG),
    (LONG, LONG[:46] + ".json", LONG),
    (LONG, LONG[:51] + ".json", LONG),
    (normalize("NFD", "Café.jpg"), "Café.jpg.supplemental-metadata.json", "Café.jpg"),
]


@pytest.mark.parametrize(("picture", "sidecar", "title"), TAKEOUT)
def test_takeouts_names_are_known(tmp_path: Path, picture: str, sidecar: str, title: str) -> None:
    (path,) = put(tmp_path, picture)
    (tmp_path / sidecar).write_text(json.dumps({**TAKEN, "title": title}))
    assert facts_of(path)["description"] == "On the hill"


OTHERS = [
    ("IMG_3.jpg", "IMG_3.jpg.supplemental-metadata(1).json", "IMG_3.jpg"),
    ("IMG_3(2).jpg", "IMG_3.jpg.supplemental-metadata(1).json", "IMG_3.jpg"),
    ("IMG_3(1).jpg", "IMG_3.jpg.supplemental-metadata.json", "IMG_3.jpg"),
    ("IMG_11.jpg", "IMG_1.jpg.json", "IMG_1.jpg"),
    (LONG.replace("final", "first"), LONG[:46] + ".json", LONG),
]


@pytest.mark.parametrize(("picture", "sidecar", "title"), OTHERS)
def test_the_facts_of_another_picture_are_not_taken(tmp_path: Path, picture: str, sidecar: str, title: str) -> None:
    (path,) = put(tmp_path, picture)
    (tmp_path / sidecar).write_text(json.dumps({**TAKEN, "title": title}))
    assert not facts_of(path)


def test_takeout_tells_a_page_and_neither_an_address_nor_a_title(tmp_path: Path) -> None:
    put(tmp_path / "photos", "IMG_1.png")
    (tmp_path / "photos" / "IMG_1.png.supplemental-metadata.json").write_text(
        json.dumps({**TAKEN, "title": "IMG_1.png"})
    )
    assert step.main(["--import-folder", str(tmp_path / "photos"), "--workspace", str(tmp_path / "w"), "-q"]) == 0
    found = as_rows(tmp_path / "w/gleaner.db", "SELECT page_url, title, snippet FROM images")
    assert found == [("https://photos.google.com/photo/AF1", "IMG_1", "On the hill")]
    assert not as_rows(tmp_path / "w/gleaner.db", "SELECT url FROM image_variants")


@pytest.mark.parametrize(("on_disk", "written"), [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD"), ("NFC", "NFC")])
@pytest.mark.parametrize("name", ["café", "ё-й", "각", "ñandú"])
@pytest.mark.parametrize("kind", ["list", "file"])
def test_names_are_matched_in_either_normal_form(
    tmp_path: Path, name: str, on_disk: Any, written: Any, kind: str
) -> None:
    (path,) = put(tmp_path, normalize(on_disk, name) + ".jpg")
    told = normalize(written, name) + ".jpg"
    if kind == "list":
        (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": told, "title": "T"}))
    else:
        (tmp_path / f"{told}.json").write_text('{"title": "T"}')
    assert facts_of(path) == {"title": "T"}


LISTED = {
    "train/b.png": ("metadata.jsonl", "train/b.png"),
    "train/deep/b.png": ("train/metadata.jsonl", "deep/b.png"),
    "train/c.png": ("train/metadata.jsonl", "./c.png"),
    "test/d.png": ("metadata.jsonl", "test\\d.png"),
}


@pytest.mark.parametrize("picture", LISTED)
def test_a_list_tells_of_pictures_below_it(tmp_path: Path, picture: str) -> None:
    (path,) = put(tmp_path, picture)
    place, name = LISTED[picture]
    (tmp_path / place).write_text(json.dumps({"file_name": name, "title": "T", "embedding": [0.5]}))
    assert facts_of(path, tmp_path) == {"title": "T"}
    if "/" not in place:
        assert not facts_of(path, path.parent)  # what lies above the folder that was named is not looked at


def test_the_nearest_list_counts(tmp_path: Path) -> None:
    first, second = put(tmp_path, "train/a.png", "train/b.png")
    (tmp_path / "metadata.jsonl").write_text(
        '{"file_name": "train/a.png", "title": "far"}\n{"file_name": "train/b.png", "title": "far"}\n'
    )
    (tmp_path / "train" / "metadata.csv").write_text('file_name,title\na.png,"near, with a comma"\n')
    found = Sidecars()
    assert found.of(first, tmp_path) == {"title": "near, with a comma"}
    assert found.of(second, tmp_path) == {"title": "far"}


ENCODINGS = [(codecs.BOM_UTF8, "utf-8", ""), (codecs.BOM_UTF16_LE, "utf-16-le", ""),
             (codecs.BOM_UTF16_BE, "utf-16-be", ""), (b"", "utf-16-le", ""), (b"", "cp1251", "cp1251")]  # fmt: skip


@pytest.mark.parametrize(("mark", "encoding", "given"), ENCODINGS)
@pytest.mark.parametrize("place", ["a.png.json", "metadata.jsonl", "metadata.csv", "a.txt"])
def test_sidecars_are_read_as_lists_are(tmp_path: Path, mark: bytes, encoding: str, given: str, place: str) -> None:
    (path,) = put(tmp_path, "a.png")
    content = {
        "metadata.jsonl": '{"file_name": "a.png", "title": "cat: Кот"}\n',
        "metadata.csv": "file_name,title\na.png,cat: Кот\n",
        "a.txt": "cat: Кот",
    }.get(place, '{"title": "cat: Кот"}')
    (tmp_path / place).write_bytes(mark + content.encode(encoding))
    assert list(facts_of(path, encoding=given).values()) == ["cat: Кот"]


def test_a_sidecar_in_an_unknown_encoding_is_counted_and_not_guessed(tmp_path: Path) -> None:
    (path,) = put(tmp_path, "a.png")
    (tmp_path / "a.json").write_bytes('{"title": "Кот", "url": "https://a.example/кот.jpg"}'.encode("cp1251"))
    found = Sidecars()
    assert found.of(path) == {} and found.broken == 1


def test_numbers_of_sidecars_stay_exact_and_nan_is_no_value(tmp_path: Path) -> None:
    (path,) = put(tmp_path, "a.png")
    (tmp_path / "a.json").write_text('{"title": "T", "id": 12345678901234567890123, "width": NaN}')
    assert facts_of(path) == {"title": "T", "id": 12345678901234567890123, "width": None}


XMP = """<?xpacket begin="\ufeff"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
 xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:xmpRights="http://ns.adobe.com/xap/1.0/rights/"><rdf:Description xmpRights:WebStatement="https://cc.example/by/4.0/">
 <dc:title><rdf:Alt><rdf:li xml:lang="x-default">A hill</rdf:li></rdf:Alt></dc:title>
 <dc:creator><rdf:Seq><rdf:li>Ann</rdf:li></rdf:Seq></dc:creator>
 <dc:subject><rdf:Bag><rdf:li>green</rdf:li><rdf:li>hill</rdf:li></rdf:Bag></dc:subject>
 </rdf:Description></rdf:RDF></x:xmpmeta>"""


@pytest.mark.parametrize("name", ["a.xmp", "a.png.xmp"])
def test_xmp_beside_a_picture_is_read(tmp_path: Path, name: str) -> None:
    (path,) = put(tmp_path, "a.png")
    (tmp_path / name).write_text(XMP)
    assert facts_of(path) == {
        "title": "A hill", "creator": "Ann", "keywords": ["green", "hill"], "license_url": "https://cc.example/by/4.0/",
    }  # fmt: skip


@pytest.mark.parametrize("body", [b"\x89PNG\r\n\x1a\n\x00", b"\x00\x01", b"", b" \n", b"x" * 100_000, b"caf\xe9"])
def test_a_text_that_is_no_caption_is_none(tmp_path: Path, body: bytes) -> None:
    (path,) = put(tmp_path, "a.png")
    (tmp_path / "a.txt").write_bytes(body)
    assert facts_of(path) == {}


ENDINGS = ["a.bin", "b", "c.jpg_large", "d.jpg!d", "e.php", "f.html", "g.txt", "h.png ", "i.tmp", "j.jpg-orig"]


def test_the_bytes_decide_what_is_a_picture_and_what_is_passed_over_is_counted(tmp_path: Path, capsys: Any) -> None:
    photos = tmp_path / "photos"
    put(photos, *ENDINGS, "raw.dng", "._k.png")
    (photos / "page.html").write_text("<html></html>")
    (photos / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    (photos / "a.json").write_text("{}")
    (photos / "link.png").symlink_to(photos / "b")
    place = ["--workspace", str(tmp_path / "w"), "--json"]
    assert step.main(["--import-folder", str(photos), *place]) == 0
    counts = json.loads(capsys.readouterr().out)["counts"]
    assert counts["new_pictures"] == len(ENDINGS) and counts["failed"] == 0
    left_out = {key.removeprefix("left_out_"): n for key, n in counts.items() if key.startswith("left_out_")}
    assert left_out == {"not_a_picture": 2, "camera_raw": 1, "hidden_file": 1, "no_plain_file": 1}


LISTS = {
    "semicolons": ("metadata.csv", "file_name;text\ntrain/a.png;one\ntrain/b.png;two\n"),
    "bars, Excel's line": ("metadata.csv", "sep=|\nfile_name|text\ntrain/a.png|one\ntrain/b.png|two\n"),
    "an open quotation mark": ("metadata.csv", 'file_name,text\nc.png,"19 inch\ntrain/a.png,one\ntrain/b.png,two\n'),
    "names again": ("metadata.csv", "\ufefffile_name,text\ntrain/a.png,one\n\ufefffile_name,text\ntrain/b.png,two\n"),
    "carriage returns": ("metadata.csv", "file_name,text\rtrain/a.png,one\rtrain/b.png,two\r"),
    "commas behind lines": (
        "metadata.jsonl", '{"file_name":"train/a.png","text":"one"},\n{"file_name":"train/b.png","text":"two",}\n'
    ),
    "marks in the middle": (
        "metadata.jsonl",
        '\ufeff{"file_name":"train/a.png","text":"one"}\n\ufeff{"file_name":"train/b.png","text":"two"}',
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_a_folder_s_list_is_read_by_the_rules_of_lists(tmp_path: Path, name: str, encoding: str) -> None:
    listed, content = LISTS[name]
    pictures = put(tmp_path, "train/a.png", "train/b.png")
    (tmp_path / listed).write_bytes(content.encode(encoding))
    beside = Sidecars()
    assert [beside.of(picture, tmp_path)["text"] for picture in pictures] == ["one", "two"]
    assert beside.broken == 0


def test_a_list_of_a_folder_that_names_no_files_is_none(tmp_path: Path) -> None:
    (picture,) = put(tmp_path, "a.png")
    for content in ("name,text\na.png,one\n", "", "file_name\n", "\n\n"):
        (tmp_path / "metadata.csv").write_text(content, encoding="utf-8")
        assert facts_of(picture) == {}
