"""A host has one form everywhere, however it is spelled: cleanup rules, lists, reports, `--where`, `--host`."""

from __future__ import annotations

import unicodedata
from argparse import ArgumentTypeError
from pathlib import Path

import pytest
from support import as_rows, load_step
from yandex_answers import entity, make_workspace, results_page

from lib.cleanup.rules import is_private, url_fault
from lib.collect.options import host
from lib.db import open_database
from lib.db.where import parse_where
from lib.domains import chosen_domains, covers, read_list, shown_host
from lib.errors import UsageError
from lib.net.guard import names_inside
from lib.sort.export.card import DatasetCard

INGEST, CLEANUP, REPORT = load_step("ingest"), load_step("cleanup"), load_step("report")
BOOKS = "xn--bcher-kva.example"
STREET = "xn--strae-oqa.example"  # ß is a letter of its own, as browsers have it
RECORD = ("engine", "license", "license_url", "query", "title", "creator", "attribution", "image_url")
# One host in the spellings that lists, addresses and people use.
SPELLINGS = (
    "bücher.example",
    "BÜCHER.Example",
    "bücher.example.",
    "bücher。example",
    "bücher．example",
    "bücher｡example",
    "bücher.example。",
    "xn--bcher-kva.example",
    "XN--BCHER-KVA.example",
    unicodedata.normalize("NFD", "bücher.example"),
    "ｂücher.example",
)


@pytest.fixture
def books(tmp_path: Path) -> Path:
    """A workspace of a picture on each spelling's page and host, one on a street's, and one elsewhere."""
    hosts = [*SPELLINGS, "straße.example", "strasse.example"]
    found = []
    for number, name in enumerate(hosts):
        made = entity(number)
        made["snippet"] = {**made["snippet"], "url": f"https://www.{name}/{number}", "domain": name}
        made["origUrl"] = f"https://img.{name}/{number}.jpg"
        made["viewerData"] = {}
        found.append(made)
    make_workspace(tmp_path, {("q", 0, "page"): results_page(found)})
    assert INGEST.main(["--workspace", str(tmp_path), "-q"]) == 0
    return tmp_path


def listed(folder: Path, *lines: str) -> str:
    path = folder / "list.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)


def test_a_blocked_host_is_found_in_every_spelling(books: Path) -> None:
    for name in [*SPELLINGS, "https://bücher.example/", "http://BÜCHER.example:80", "bücher.example:8080"]:
        path = listed(books, name)
        assert read_list(Path(path)) == {BOOKS}, name
    assert CLEANUP.main(["--workspace", str(books), "--rule", "blocked_domain", "--blocklist", path, "-q"]) == 0
    left = as_rows(books / "gleaner.db", "SELECT domain FROM images ORDER BY domain")
    assert left == [("www.strasse.example",), (f"www.{STREET}",)]


def test_an_allowed_host_is_found_in_every_spelling(books: Path) -> None:
    path = listed(books, "STRASSE.example.", "https://BÜCHER。example")
    assert CLEANUP.main(["--workspace", str(books), "--rule", "blocked_domain", "--allowlist", path, "-q"]) == 0
    assert as_rows(books / "gleaner.db", "SELECT count(*) FROM images") == [(len(SPELLINGS) + 1,)]
    assert as_rows(books / "gleaner.db", "SELECT count(*) FROM images WHERE domain LIKE ?", f"%{STREET}") == [(0,)]


@pytest.mark.parametrize("name", ["www.bücher.example", "WWW.BÜCHER.EXAMPLE", "https://www.bücher.example"])
def test_a_host_below_covers_itself_alone(tmp_path: Path, name: str) -> None:
    names = read_list(Path(listed(tmp_path, name)))
    assert names == {f"www.{BOOKS}"}
    assert covers(names, "a.www.BÜCHER.example") and not covers(names, "bücher.example")


@pytest.mark.parametrize(
    "name", ["https://bücher.example/photos", "a b.example", "/photos", "bücher.example/x", "https://"]
)
def test_what_names_no_host_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no domain"):
        read_list(Path(listed(tmp_path, name)))
    with pytest.raises(UsageError, match="is neither a domain nor a family"):
        chosen_domains([name])


def test_reports_take_a_domain_in_every_spelling(books: Path) -> None:
    wanted = books / "of.txt"
    for name in [*SPELLINGS, "https://bücher.example/", "bücher.example:443"]:
        assert REPORT.main(["--workspace", str(books), "--of", name, "--blocklist", str(wanted), "-q"]) == 0
        assert wanted.read_text(encoding="utf-8").splitlines()[1:] == [BOOKS], name


def test_a_report_shows_hosts_in_their_own_script(books: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert REPORT.main(["--workspace", str(books), "-q"]) == 0
    out = capsys.readouterr().out
    assert "bücher.example" in out and "straße.example" in out and "xn--" not in out
    # What mixes scripts, or leads back to another name, is shown as it is asked for.
    assert shown_host("xn--pple-43d.example") == "xn--pple-43d.example"


@pytest.mark.parametrize("test", ["domain = '{}'", "domain in ('x', '{}')", "domain like '{}'", "not domain <> '{}'"])
def test_a_condition_takes_a_domain_in_every_spelling(books: Path, test: str) -> None:
    for name in SPELLINGS:
        assert chosen(books, test.format(name)) == set(range(len(SPELLINGS))), name


def test_a_pattern_of_a_domain_is_compared_with_what_is_shown_too(books: Path) -> None:
    for pattern in ("%büch%", "%BÜCH%", "bücher.%", "%xn--bcher%", unicodedata.normalize("NFD", "%üch%")):
        assert chosen(books, f"domain like '{pattern}'") == set(range(len(SPELLINGS))), pattern
        assert chosen(books, f"domain not like '{pattern}'") == {len(SPELLINGS), len(SPELLINGS) + 1}, pattern


def chosen(books: Path, text: str) -> set[int]:
    """The pictures that a condition chooses; each is given a file, whose content is its number."""
    contents = [str(number) for number in range(len(SPELLINGS) + 2)]
    with open_database(books / "gleaner.db") as db:
        for content in contents:
            db.execute(
                "INSERT OR IGNORE INTO files VALUES (?, ?, 1, 'jpeg', 1, 1, 1, 1, 'present', '')", (content, content)
            )
        db.execute("UPDATE downloads SET state = 'done', sha256 = CAST(image_id - 1 AS TEXT)")
        return {int(content) for content in parse_where(text).matching(db, contents)}


@pytest.mark.parametrize(
    "url",
    [
        "http://127。0。0。1/", "http://１２７.0.0.1/", "http://１２７．０．０．１/", "http://LOCALHOST./", "http://ｌocalhost/",
        "http://localhost。/", "http://nas。local/", "http://u:p@192｡168｡0｡1:80/x", "http://127%2e0.0.1/", "http://０x7f.1/",
    ],
)  # fmt: skip
def test_a_private_host_is_known_in_every_spelling(url: str) -> None:
    assert is_private(url)
    assert names_inside(url.partition("//")[2].rpartition("@")[2].partition("/")[0].partition(":")[0])


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://a..example/x.jpg", "impossible_host"), ("http://-a.example/x", "impossible_host"),
        ("https://" + "a" * 64 + ".example/", "impossible_host"), ("http://xn--a.example/", "impossible_host"),
        ("http://256.1.1.1/x", "impossible_host"), ("http://a_b.example/", ""), ("http://bücher。example/", ""),
        ("http://1.2.3.4/", ""), ("http://[::1]/", ""),
        ("http://[::g]/", "impossible_host"), ("http://a,b/", "impossible_host"),
        ("http://a%20b.example/", "impossible_host"), ("http://2130706433/", "impossible_host"),
    ],
)  # fmt: skip
def test_an_impossible_host_is_a_broken_address(url: str, reason: str, tmp_path: Path) -> None:
    assert url_fault(url)[1] == reason


def test_the_cleanup_finds_impossible_hosts(books: Path) -> None:
    with open_database(books / "gleaner.db") as db:
        for url in ("http://a..example/1.jpg", "https://" + "b" * 70 + ".example/1.jpg", "https://fine.example/1.jpg"):
            db.execute("INSERT INTO image_variants (image_id, kind, url) VALUES (1, 'dup', ?)", (url,))
    assert CLEANUP.main(["--workspace", str(books), "--rule", "broken_url", "-q"]) == 0
    left = [url for (url,) in as_rows(books / "gleaner.db", "SELECT url FROM image_variants WHERE kind = 'dup'")]
    assert left == ["https://fine.example/1.jpg"]


@pytest.mark.parametrize(
    ("typed", "asked"),
    [
        ("YANDEX.ru.", "https://yandex.ru"), ("yandex。ru", "https://yandex.ru"), ("ｙandex.ru:443", "https://yandex.ru:443"),
        ("http://Яндекс.рф/", "http://xn--d1acpjx3f.xn--p1ai"), ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://127.0.0.1:80/", "http://127.0.0.1:80"), ("localhost:8080", "https://localhost:8080"),
    ],
)  # fmt: skip
def test_the_host_of_a_search_has_that_form_too(typed: str, asked: str) -> None:
    assert host(typed) == asked


@pytest.mark.parametrize("typed", ["a..b", "-a.ru", "xn--a.ru", "a b", "http://", "a" * 64 + ".ru", "http://256.1.1.1"])
def test_an_impossible_host_of_a_search_is_refused(typed: str) -> None:
    with pytest.raises(ArgumentTypeError):
        host(typed)


def test_the_card_of_an_export_counts_a_site_once(tmp_path: Path) -> None:
    card = DatasetCard(tmp_path, ())
    for name in SPELLINGS:
        card.add("train", "1.jpg", {**dict.fromkeys(RECORD, ""), "page_url": f"https://{name}/1"})
    assert card.hosts == {"bücher.example": len(SPELLINGS)}
    card.write(title="t", filters=(), history=())
