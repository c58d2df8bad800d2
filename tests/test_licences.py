"""A licence has one name, however a source writes it: on cards and records, in reports and in `--where`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import drawing, load_step

from lib.db import open_database
from lib.db.files import FileRow, add_file
from lib.db.where import parse_where
from lib.files.pictures import sha256_of
from lib.text import license_id

ZERO = "https://creativecommons.org/publicdomain/zero/1.0/"
BY_4 = "https://creativecommons.org/licenses/by/4.0/"


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            ("CC0", "cc0", "CC0 1.0", "CC-0", "CC Zero", "CC0-1.0", ZERO, ZERO[6:], "http://creativecommons.org/publicdomain/zero/1.0/deed.en",
             "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "Creative Commons Zero v1.0 Universal",
             "Public Domain Dedication (CC0)", "Creative Commons CC0 1.0 Universal"), "CC0-1.0",
        ),
        (
            ("CC BY-SA 4.0", "cc-by-sa-4.0", "CC BY-SA 4.0 International", "by-sa 4.0", "CC BY–SA 4.0",
             "CC-BY-SA 4.0 DEED",
             "Creative Commons Attribution-ShareAlike 4.0 International Public License",
             "https://creativecommons.org/licenses/by-sa/4.0/legalcode.fr", "creativecommons.org/licenses/by-sa/4.0"),
            "CC-BY-SA-4.0",
        ),
        (
            ("CC BY-NC-ND 2.0", "Attribution-NonCommercial-NoDerivs 2.0 Generic", "CC BY-ND-NC 2.0", "cc by nc nd 2.0",
             "https://creativecommons.org/licenses/by-nc-nd/2.0/deed.de"), "CC-BY-NC-ND-2.0",
        ),
        # What holds in one country is another licence than the one without.
        (("CC BY 3.0 DE", "CC-BY-3.0-DE", "cc-by-3.0-de", "Creative Commons Attribution 3.0 Germany",
          "https://creativecommons.org/licenses/by/3.0/de/deed.en"), "CC-BY-3.0-DE"),
        (("CC BY-SA 3.0 IGO", "https://creativecommons.org/licenses/by-sa/3.0/igo/"), "CC-BY-SA-3.0-IGO"),
        (("CC BY 3.0", "CC BY 3.0 Unported", "https://creativecommons.org/licenses/by/3.0/"), "CC-BY-3.0"),
        (("CC BY", "cc-by", "Creative Commons Attribution"), "CC BY"),  # a version that nobody has told is none
        (("CC SA 1.0",), "CC-SA-1.0"),
    ],
)  # fmt: skip
def test_the_spellings_of_a_licence_are_one(names: tuple[str, ...], expected: str) -> None:
    assert {name: license_id(name) for name in names} == dict.fromkeys(names, expected)
    assert license_id(expected) == expected


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Public domain",
            "PDM",
            "Public Domain Mark 1.0",
            "GFDL",
            "GFDL 1.2",
            "All rights reserved",
            "FAL",
            "MIT",
            "",
        ),
        *(
            "Attribution",
            "by",
            "CC BY-SA 4.0,3.0,2.5",
            "© Ann, CC BY 4.0",
            "CC BY 4.0 or later",
            "CC-BY-SA-3.0-migrated",
        ),
        *(
            "https://example.org/licenses/by/4.0/",
            "https://creativecommons.org/licenses/sampling+/1.0/",
            "CC",
            "x" * 500,
        ),
    ],
)
def test_any_other_licence_stays_as_it_is(name: str) -> None:
    assert license_id(name) == name


@pytest.mark.parametrize(
    ("name", "address", "expected"),
    [
        ("", BY_4, "CC-BY-4.0"), ("CC BY", BY_4, "CC-BY-4.0"), ("Attribution License", BY_4, "CC-BY-4.0"),
        ("CC BY", "https://creativecommons.org/licenses/by-sa/4.0/", "CC BY"),  # they contradict each other
        ("CC BY 2.0", BY_4, "CC-BY-2.0"), ("Public domain", ZERO, "Public domain"), ("", "https://x.example/", ""),
    ],
)  # fmt: skip
def test_an_address_tells_what_a_name_does_not(name: str, address: str, expected: str) -> None:
    assert license_id(name, address) == expected


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Five downloaded pictures under three licences, each as another source writes it, and one without."""
    root = tmp_path / "ws"
    (root / "images").mkdir(parents=True)
    stated = [("CC0", ""), ("cc0 1.0", ""), ("", ZERO), ("CC BY-SA 4.0", ""), ("GFDL", ""), ("", "")]
    with open_database(root / "gleaner.db") as db:
        for number, (name, address) in enumerate(stated):
            path = root / f"images/{number}.png"
            drawing(number, 60, 50).save(path)
            sha256 = sha256_of(path)
            add_file(db, FileRow(sha256, f"images/{path.name}", path.stat().st_size, "png", 60, 50))
            db.execute(
                "INSERT INTO images (id, key, engine, license, license_url, first_seen_at)"
                " VALUES (?, ?, 'bing', ?, ?, '')",
                (number + 1, f"b:{number}", name, address),
            )
            db.execute(
                "INSERT INTO downloads (image_id, state, sha256, final_url, updated_at)"
                " VALUES (?, 'done', ?, 'https://x/', '')",
                (number + 1, sha256),
            )
    return root


def test_rows_of_all_spellings_are_counted_as_one(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert load_step("report").main(["--by", "licence", "--workspace", str(workspace), "--json", "-q"]) == 0
    found = json.loads(capsys.readouterr().out)["result"]
    rows = {row["key"]: (row["pictures"], row["files"]) for row in found["rows"]}
    assert rows == {"CC0-1.0": (3, 3), "CC-BY-SA-4.0": (1, 1), "GFDL": (1, 1), "(unknown)": (1, 1)}


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        *((f"license = {spelling!r}", {0, 1, 2}) for spelling in ("CC0", "cc0 1.0", "CC0-1.0", ZERO)),
        ("licence = CC0", {0, 1, 2}),
        ("license in (cc0, GFDL)", {0, 1, 2, 4}),
        ("license = cc-by-sa-4.0", {3}), ("license like 'CC BY%'", {3}), ("license like 'CC-BY%'", {3}),
        ("license = ''", {5}), ("license != CC0", {3, 4, 5}),
    ],
)  # fmt: skip
def test_a_condition_finds_a_licence_in_any_spelling(condition: str, numbers: set[int], workspace: Path) -> None:
    with open_database(workspace / "gleaner.db") as db:
        contents = {row["sha256"]: int(row["path"][7]) for row in db.rows("SELECT sha256, path FROM files")}
        assert {contents[one] for one in parse_where(condition).matching(db, list(contents))} == numbers
