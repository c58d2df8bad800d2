"""The HTML pages: values, escaping and links as text, and behaviour in a real Chromium without a network."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from support import PATIENCE, wait_until

from lib.pages.index import render_index
from lib.pages.model import (
    BrokenReason,
    Bucket,
    Card,
    DatasetView,
    DomainRow,
    FamilyRow,
    GroupView,
    Heading,
    MemberView,
    ReportEntry,
    SampleView,
    SheetItem,
    StepView,
)
from lib.pages.render import (
    TEMPLATES,
    filesize,
    moment,
    number,
    percent,
    picture_url,
    script_json,
    web_link,
    write_page,
)
from lib.pages.reports import (
    render_contact_sheet,
    render_dedup_report,
    render_domain_report,
    squarify,
)
from lib.pages.thumbnails import thumbnail_data_uri
from lib.web.find_browser import find_browser, launch_arguments

HOSTILE = "</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> ' \" & \u202eevil\u2028 {{ 7*7 }}"
ODD_NAMES = ["plain.png", "a b#c?d%e&f.png", 'it\'s "quoted".png', "c:olon.png", "тест – 猫.png", "<b>.png", "-n.png"]


def draw(path: Path, colour: tuple[int, ...] = (40, 90, 160), size: tuple[int, int] = (96, 64), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, colour)
    ImageDraw.Draw(picture).ellipse((8, 8, size[0] // 2, size[1] - 8), fill=(220, 190, 60))
    picture.save(path, **options)
    return path


def decoded(uri: str) -> Image.Image:
    kind, _, body = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


# Thumbnails


@pytest.mark.parametrize(
    ("mode", "colour", "seen", "name"),
    [
        ("RGB", (200, 30, 30), (200, 30, 30), "a.jpg"),
        ("L", 128, (128, 128, 128), "a.png"),
        ("RGBA", (200, 30, 30, 0), (255, 255, 255), "a.png"),
        ("LA", (10, 0), (255, 255, 255), "a.png"),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0), "a.jpg"),
        ("I;16", 65535, (255, 255, 255), "a.png"),
        ("I;16", 32896, (128, 128, 128), "a.tif"),
        ("F", 100.0, (100, 100, 100), "a.tif"),
        ("1", 1, (255, 255, 255), "a.png"),
    ],
)
def test_thumbnails_of_every_mode(tmp_path: Path, mode: str, colour: Any, seen: tuple[int, ...], name: str) -> None:
    Image.new(mode, (300, 100), colour).save(tmp_path / name)
    small = decoded(thumbnail_data_uri(tmp_path / name, 60))
    assert (small.mode, small.size) == ("RGB", (60, 20))
    assert all(abs(a - b) <= 4 for a, b in zip(small.getpixel((30, 10)), seen, strict=True))


def test_thumbnails_are_upright_and_show_palette_transparency_as_white(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(tmp_path / "turned.jpg", size=(400, 200), exif=exif)
    assert decoded(thumbnail_data_uri(tmp_path / "turned.jpg", 100)).size == (50, 100)
    palette = Image.new("P", (50, 50), 0)
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.save(tmp_path / "clear.gif", transparency=0)
    assert decoded(thumbnail_data_uri(tmp_path / "clear.gif")).getpixel((25, 25)) == (255, 255, 255)


def test_what_cannot_be_decoded_has_no_thumbnail(tmp_path: Path) -> None:
    whole = draw(tmp_path / "whole.png", size=(300, 300)).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    for name in ("cut.png", "text.jpg", "empty.png", "folder.png", "missing.png", "nul\0.png"):
        assert thumbnail_data_uri(tmp_path / name) == "", name


# Values as text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(1234567), "1,234,567"),
        (number(3.14159), "3.14"),
        (number(None), "–"),
        (percent(0.1234), "12.3 %"),
        (percent(0.00001), "< 0.1 %"),
        (percent(0), "0.0 %"),
        (filesize(999), "999 B"),
        (filesize(999_999), "1.0 MB"),
        (filesize(12_345_678), "12 MB"),
        (filesize(0), "0 B"),
        (moment("2025-03-01T12:00:05.1Z"), "2025-03-01 12:00 UTC"),
        (moment("yesterday"), "yesterday"),
        (web_link("https://example.org/a?b=1"), "https://example.org/a?b=1"),
        (web_link("javascript:alert(1)"), ""),
        (web_link("http://[broken"), ""),
    ],
)
def test_values_as_a_person_reads_them(text: str, expected: str) -> None:
    assert text == expected


def test_json_in_a_script_element_cannot_end_it() -> None:
    text = str(script_json({HOSTILE: [HOSTILE]}))
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {HOSTILE: [HOSTILE]}


def test_links_to_pictures_are_relative_and_quoted(tmp_path: Path) -> None:
    page = tmp_path / "reports" / "page.html"
    assert picture_url(tmp_path / "images" / "a b#c?.png", page) == "./../images/a%20b%23c%3F.png"
    assert picture_url(tmp_path / "reports" / "x:y.png", page) == "./x%3Ay.png"
    assert picture_url(None, page) == ""


@pytest.mark.skipif(os.name != "posix", reason="names that are no Unicode exist on POSIX only")
def test_names_that_are_no_unicode_are_linked_and_written(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    page = tmp_path / "page.html"
    assert picture_url(tmp_path / name, page) == "./caf%E9.png"
    write_page(page, render_contact_sheet(page, Heading("Sheet"), [], [SheetItem(None, name, "any")]))
    assert "caf?.png" in page.read_text(encoding="utf-8")


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    page = write_page(tmp_path / "new" / "page.html", "first")
    with pytest.raises(AttributeError):
        write_page(page, None)  # type: ignore[arg-type]
    assert page.read_text() == "first"
    assert [path.name for path in page.parent.iterdir()] == ["page.html"]


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=60), st.floats(50, 2000), st.floats(50, 2000))
def test_a_treemap_fills_its_box_in_proportion(values: list[int], width: float, height: float) -> None:
    values.sort(reverse=True)
    tiles = squarify(values, width, height)
    assert [tile.index for tile in tiles] == list(range(len(values)))
    for value, tile in zip(values, tiles, strict=True):
        assert tile.width * tile.height == pytest.approx(value / sum(values) * width * height, rel=1e-6)
        assert tile.x >= -1e-6 and tile.x + tile.width <= width * (1 + 1e-9) + 1e-6
        assert tile.y >= -1e-6 and tile.y + tile.height <= height * (1 + 1e-9) + 1e-6
    for place, one in enumerate(tiles):
        for other in tiles[place + 1 :]:
            across = min(one.x + one.width, other.x + other.width) - max(one.x, other.x)
            down = min(one.y + one.height, other.y + other.height) - max(one.y, other.y)
            assert min(across, down) <= 1e-6, "two tiles overlap"


def test_no_values_make_no_tiles() -> None:
    assert squarify([], 100, 100) == []
    assert squarify([0, 0], 100, 100) == []


# Colours


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [("text", g) for g in ("ground", "surface", "raised", "accent-soft", "amber-soft")]
    + [("muted", g) for g in ("ground", "surface", "raised")]
    + [("accent", g) for g in ("ground", "surface")]
    + [("on-accent", "accent"), ("red", "red-soft"), ("amber", "amber-soft"), ("green", "green-soft")],
)
def test_text_is_readable_in_both_themes(theme: int, text: str, ground: str) -> None:
    """WCAG 2 level AA: a contrast of at least 4.5 to 1 for text of any size."""
    css = (TEMPLATES / "common.css").read_text(encoding="utf-8")
    colours = {name: re.findall(rf"--{name}: (#[0-9a-f]{{6}})", css)[theme] for name in (text, ground)}
    light, dark = sorted((luminance(colour) for colour in colours.values()), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5, colours


# Pages, as text


def pages(folder: Path, text: str = "plain", files: list[Path] | None = None, **limits: int) -> dict[str, Path]:
    """One page of each kind with `text` in every place that takes any, written under `folder`/reports."""
    files = files or [draw(folder / "images" / name) for name in ODD_NAMES]
    reports = folder / "reports"
    heading = Heading(text, text, text, [Card(text, 1234, text), Card("Share", text)], [text])
    domains = [
        DomainRow("ten.example", 5, 0.5, 0.5, 4, "Pinterest", 3, 1, "96 × 64", files[:2]),
        DomainRow(f"b {text}", 3, 0.3, 0.8, None, text, None, None, text),
        DomainRow("a.example", 2, 0.2, 1.0, 1),
    ]
    members = [
        MemberView(f"images/{f.name}", f, kind, decision, distance, 96, 64, 1000 * (n + 1), "PNG", text, text)
        for n, (f, kind, decision, distance) in enumerate(
            zip(files[1:4], ("same", "edited", "bytes"), ("remove", "review", "remove"), (3, 30, 0), strict=True)
        )
    ]
    keeper = MemberView(str(files[0]), files[0], page_url="https://example.org/?a=1&b=2")
    groups = [
        GroupView(f"g1 {text}", keeper, members[:1]),
        GroupView("g2", MemberView(f"gone/{text}", None), members[1:]),
    ]
    broken = [BrokenReason(text, files), BrokenReason("truncated", [folder / text.replace("/", "")])]
    items = [
        SheetItem(f, f.name, "high" if n % 2 else "low", 10.0 * n, text, 96, 64, text) for n, f in enumerate(files)
    ]
    items.append(SheetItem(None, text, text, None, "not_an_image"))
    made = {name: reports / f"{name}.html" for name in ("domains", "dedup", "sheet", "index")}
    buckets = [Bucket("high", note=text), Bucket("low")]
    html = {
        "domains": render_domain_report(
            made["domains"], heading, domains, [FamilyRow(text, 3, 0.3, 1, text)], **limits
        ),
        "dedup": render_dedup_report(made["dedup"], heading, groups, run=text, broken=broken, **limits),
        "sheet": render_contact_sheet(made["sheet"], heading, buckets, items, **limits),
    }
    for name, page in html.items():
        write_page(made[name], page)
    reports_made = [ReportEntry(made[name], text, text, text, [Card(text, 1)]) for name in html]
    steps = [StepView(1, text, text, "keep", text, text, text), StepView(2, text, "never run")]
    datasets = [DatasetView(text, folder / "ds", text, 3, text), DatasetView(text, folder / "gone", missing=True)]
    samples = [SampleView("ab" * 32, files[0], thumbnail_data_uri(files[0]))]
    html["index"] = render_index(
        made["index"], heading, steps, reports_made, following=text, datasets=datasets, samples=samples
    )
    write_page(made["index"], html["index"])
    return made


@pytest.mark.parametrize("limit", [2000, 0], ids=["embedded", "linked"])
def test_pages_refer_to_nothing_on_the_network(tmp_path: Path, limit: int) -> None:
    for name, page in pages(tmp_path, embed_limit=limit).items():
        html = page.read_text(encoding="utf-8")
        references = re.findall(r"""(?:src|href|srcset|action|data-large)\s*=\s*["']([^"']*)""", html)
        found_at = "https://example.org/?a=1&amp;b=2"  # given as a page to go to, not as something to load
        allowed = [r for r in references if r.startswith(("data:", "./", "#")) or r in ("", found_at)]
        assert references == allowed, name
        assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|WebSocket|import\(", html), name


def test_beyond_the_limit_thumbnails_are_files_beside_the_page(tmp_path: Path) -> None:
    few, many = pages(tmp_path)["sheet"].read_text(), pages(tmp_path, embed_limit=3)["sheet"].read_text()
    assert few.count('src="data:image/jpeg') == len(ODD_NAMES) and many.count('src="data:image/jpeg') == 0
    assert many.count('<img src="./sheet_thumbnails/') == len(ODD_NAMES) and '<img src="./../images/' not in many
    assert many.count('loading="lazy"') == len(ODD_NAMES)


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    for name, page in pages(tmp_path, HOSTILE).items():
        html = page.read_text(encoding="utf-8")
        assert "<script>alert" not in html and "<img src=x" not in html and "<!--" not in html, name
        assert "{{ 7*7 }}" in html, name


def test_a_page_says_how_much_it_leaves_out(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    items = [SheetItem(None, str(n), "a" if n < 90 else "b", None) for n in range(100)]
    html = render_contact_sheet(page, Heading("Sheet"), [Bucket("a"), Bucket("b")], items, item_limit=20)
    assert "20 of 100 pictures are shown" in html
    assert html.count('<figure class="tile"') == 20 and 'data-name="99"' in html, "the small bucket stays whole"
    groups = [GroupView(str(n), MemberView("k"), [MemberView("m", kind="same")]) for n in range(30)]
    html = render_dedup_report(page, Heading("Repeats"), groups, group_limit=7)
    assert "The first 7 of 30 groups" in html and html.count('<section class="group"') == 7


# Pages in Chromium


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    choice = find_browser()
    assert choice is not None, "these tests need a browser; python3 0_setup.py finds or installs one"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=choice.executable_path, args=launch_arguments())
        yield browser
        browser.close()


class Visit:
    """A tab without a network that notes everything a page should not do."""

    def __init__(self, chromium: Any, **options: Any) -> None:
        self.context = chromium.new_context(offline=True, accept_downloads=True, **options)
        self.tab = self.context.new_page()
        self.trouble: list[str] = []
        self.tab.on("console", lambda m: m.type in ("error", "warning") and self.trouble.append(f"console: {m.text}"))
        self.tab.on("pageerror", lambda error: self.trouble.append(f"error: {error}"))
        self.tab.on("dialog", lambda dialog: (self.trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        self.tab.on("request", self._request)
        self.tab.set_default_timeout(PATIENCE * 1000)

    def _request(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            self.trouble.append(f"request: {request.url}")

    def open(self, page: Path) -> Any:
        self.tab.goto(page.as_uri())
        return self.tab

    def reload_until(self, true: str) -> None:
        """Opens the page again until it has what it stored before.

        The browser may load it in another process, to which it hands stored values over in its own time, and now and
        then not at all. So what the page has stored, all of it and nothing else, is put back before each try.
        """
        stored = self.tab.evaluate("Object.entries(localStorage)")
        assert stored, "the page stored nothing"

        def holds() -> bool:
            self.tab.evaluate("all => all.forEach(([name, value]) => localStorage.setItem(name, value))", stored)
            self.tab.reload()
            return bool(self.tab.evaluate(true))

        wait_until(holds, true)


@pytest.fixture
def visit(chromium: Any) -> Iterator[Visit]:
    visit = Visit(chromium)
    yield visit
    visit.context.close()
    assert visit.trouble == []


@pytest.mark.parametrize("name", ["domains", "dedup", "sheet", "index"])
@pytest.mark.parametrize(
    "options",
    [
        {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
        {"color_scheme": "dark", "viewport": {"width": 390, "height": 844}},
    ],
    ids=["light-wide", "dark-narrow"],
)
def test_hostile_pages_open_without_trouble_and_fit_the_window(
    tmp_path: Path, chromium: Any, name: str, options: dict[str, Any]
) -> None:
    visit = Visit(chromium, **options)
    try:
        tab = visit.open(pages(tmp_path, HOSTILE)[name])
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page scrolls sideways"
        broken = "[...document.images].filter(i => i.src && i.complete && !i.naturalWidth).map(i => i.src)"
        assert tab.evaluate(broken) == []
        assert tab.locator("h1").count() == 1
        assert visit.trouble == []
    finally:
        visit.context.close()


@pytest.mark.parametrize("name", ["domains", "index"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_accessible(tmp_path: Path, chromium: Any, name: str, scheme: str) -> None:
    """By axe-core's rules, those on landmarks that stand twice among them."""
    from axe_playwright_python.sync_playwright import Axe

    visit = Visit(chromium, color_scheme=scheme)
    found = Axe().run(visit.open(pages(tmp_path)[name])).response
    visit.context.close()
    assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []


def test_the_policy_lets_no_injected_script_run(tmp_path: Path, chromium: Any) -> None:
    """What escaping should never let through is stopped a second time."""
    page = pages(tmp_path)["index"]
    page.write_text(page.read_text().replace("<main", "<script>document.title='owned'</script><main"))
    visit = Visit(chromium)
    assert visit.open(page).title() == "plain"
    assert any("Content Security Policy" in line for line in visit.trouble)
    visit.context.close()


def test_the_chosen_theme_is_remembered(tmp_path: Path, visit: Visit) -> None:
    tab = visit.open(pages(tmp_path)["index"])
    ground = "getComputedStyle(document.body).backgroundColor"
    before = tab.evaluate(ground)
    tab.click("#theme")
    after = tab.evaluate(ground)
    assert before != after
    visit.reload_until(f"{ground} === {json.dumps(after)}")


def test_domains_sort_by_keyboard_and_filter(tmp_path: Path, visit: Visit) -> None:
    tab = visit.open(pages(tmp_path)["domains"])
    first_column = "[...document.querySelectorAll('#domains tbody tr:not([hidden]) th')].map(c => c.textContent)"
    assert tab.evaluate(first_column) == ["ten.example", "b plain", "a.example"]
    tab.focus("#domains thead th:nth-child(1) button")
    tab.keyboard.press("Enter")
    assert tab.evaluate(first_column) == ["a.example", "b plain", "ten.example"]
    tab.keyboard.press("Enter")
    assert tab.evaluate(first_column) == ["ten.example", "b plain", "a.example"]
    states = "[...document.querySelectorAll('#domains [aria-sort]')].map(c => c.getAttribute('aria-sort'))"
    assert tab.evaluate(states)[:3] == ["descending", "none", "none"]
    tab.click("#domains thead th:nth-child(6) button")
    assert tab.evaluate(first_column) == ["ten.example", "a.example", "b plain"], "unknown counts go last"
    tab.fill("#filter", "PINTER")
    assert tab.evaluate(first_column) == ["ten.example"]
    assert tab.inner_text("#matches") == "1 of 3"


def test_repeats_are_filtered_ordered_and_decided_by_keyboard(tmp_path: Path, visit: Visit) -> None:
    tab = visit.open(pages(tmp_path)["dedup"])
    shown = "[...document.querySelectorAll('.group:not([hidden])')].map(g => g.dataset.index)"
    tab.select_option("#kind", "edited")
    assert tab.evaluate(shown) == ["2"]
    tab.select_option("#decision", "remove")
    assert tab.evaluate(shown) == [] and tab.is_visible("#none")
    tab.select_option("#kind", "")
    tab.select_option("#decision", "")
    tab.select_option("#order", "weakest")
    assert tab.evaluate(shown) == ["2", "1"]
    tab.locator("#order").evaluate("e => e.blur()")
    tab.keyboard.press("j")  # group 2: both of its pictures are meant
    tab.keyboard.press("x")
    tab.keyboard.press("j")
    tab.keyboard.press("r")
    tab.keyboard.press("k")
    tab.focus(".group.current .member:nth-child(3) .thumb")
    tab.keyboard.press("v")  # only the picture in focus
    visit.reload_until("document.getElementById('save').textContent === 'Save 3 choices'")  # a closed tab loses none
    with tab.expect_download() as download:
        tab.click("#save")
    saved = json.loads(Path(download.value.path()).read_text())
    assert saved["version"] == 1 and saved["run"] == "plain"
    assert {(d["group"], d["path"], d["decision"]) for d in saved["decisions"]} == {
        ("g1 plain", f"images/{ODD_NAMES[1]}", "remove"),
        ("g2", f"images/{ODD_NAMES[2]}", "keep"),
        ("g2", f"images/{ODD_NAMES[3]}", "review"),
    }
    assert saved["decisions"][0]["keeper"].endswith(ODD_NAMES[0])


def test_repeats_are_compared_large(tmp_path: Path, visit: Visit) -> None:
    tab = visit.open(pages(tmp_path)["dedup"])
    tab.click("#group-1 .member .thumb")
    tab.wait_for_function("['left', 'right'].every(id => document.getElementById(id).naturalWidth === 96)")
    assert tab.get_attribute("#right", "src").endswith("/images/a%20b%23c%3Fd%25e%26f.png")
    for mode in ("slider", "difference", "side"):
        tab.click(f"[data-mode={mode}]")
        assert mode in tab.get_attribute("#stage", "class")
    tab.keyboard.press("x")
    assert tab.get_attribute("#large-choices [data-choice=keep]", "aria-pressed") == "true"
    tab.keyboard.press("j")
    assert tab.inner_text("#compare-title") == "Group 2, 1 of 2"
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#compare-title") == "Group 2, 2 of 2"
    tab.keyboard.press("Escape")
    tab.wait_for_selector("#compare", state="hidden")
    tab.wait_for_function("document.activeElement.className === 'thumb'")  # focus is back where it was


def test_a_difference_is_black_where_pictures_agree(tmp_path: Path, visit: Visit) -> None:
    one, other = draw(tmp_path / "one.png", size=(600, 400)), draw(tmp_path / "other.png", size=(300, 200))
    members = [MemberView("other", other, "same", "remove", 1, 300, 200)]
    groups = [GroupView("g", MemberView("one", one), members)]
    page = tmp_path / "page.html"
    tab = visit.open(write_page(page, render_dedup_report(page, Heading("Repeats"), groups)))
    tab.click(".member .thumb")
    tab.click("[data-mode=difference]")
    tab.click("#amplify")
    tab.evaluate("Promise.all(['left', 'right'].map(id => document.getElementById(id).decode()))")
    seen = Image.open(io.BytesIO(tab.locator("#stage").screenshot())).convert("L")
    assert seen.getpixel((seen.width // 2 + 60, seen.height // 2)) <= 3


def test_contact_sheet_filters_orders_and_shows_large(tmp_path: Path, visit: Visit) -> None:
    tab = visit.open(pages(tmp_path)["sheet"])
    names = "[...document.querySelectorAll('.tile')].filter(t => t.offsetParent).map(t => t.dataset.name)"
    assert len(tab.evaluate(names)) == len(ODD_NAMES) + 1
    tab.fill("#low", "20")
    tab.fill("#high", "40")
    assert sorted(tab.evaluate(names)) == sorted(ODD_NAMES[2:5])
    assert tab.inner_text("#shown") == f"3 of {len(ODD_NAMES) + 1} pictures"
    tab.fill("#low", "")
    tab.fill("#high", "")
    tab.click(".legend button >> nth=1")
    assert tab.evaluate(names) == [*ODD_NAMES[1::2], "plain"]
    tab.select_option("#order", "best")
    assert tab.evaluate(names) == [*ODD_NAMES[1::2][::-1], "plain"]
    tab.fill("#text", "not_an")
    assert tab.evaluate(names) == ["plain"]
    tab.fill("#text", "")
    tab.click(".tile button.thumb >> nth=0")
    large = "(() => { const i = document.getElementById('large-picture'); return i.complete && i.naturalWidth; })()"
    tab.wait_for_function(f"{large} === 96")
    title = tab.inner_text("#large-title")
    tab.keyboard.press("ArrowRight")
    assert tab.inner_text("#large-title") != title


@pytest.mark.parametrize("kind", ["domains", "dedup", "sheet", "index"])
def test_pages_with_nothing_to_show_say_so(tmp_path: Path, visit: Visit, kind: str) -> None:
    page = tmp_path / "page.html"
    heading = Heading("Nothing")
    html, sentence = {
        "domains": (render_domain_report(page, heading, []), "No pictures yet"),
        "dedup": (render_dedup_report(page, heading, []), "No repeats"),
        "sheet": (render_contact_sheet(page, heading, [Bucket("high")], []), "No pictures"),
        "index": (render_index(page, heading, []), "No reports yet"),
    }[kind]
    assert sentence in visit.open(write_page(page, html)).inner_text("main")


def test_thousands_of_groups_answer_at_once(tmp_path: Path, visit: Visit) -> None:
    picture = draw(tmp_path / "one.png")
    groups = [
        GroupView(str(n), MemberView(f"k{n}", picture), [MemberView(f"m{n}", picture, "same", "remove", n % 40)])
        for n in range(3000)
    ]
    page = tmp_path / "page.html"
    tab = visit.open(write_page(page, render_dedup_report(page, Heading("Repeats"), groups)))
    tab.select_option("#order", "weakest")
    assert tab.get_attribute(".group >> nth=0", "data-index") == "40"
    for _ in range(5):
        tab.keyboard.press("j")
    assert tab.inner_text("#shown") == "3000 groups"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif"])
@pytest.mark.parametrize("size", [(40, 30), (192, 192), (130, 192), (300, 10)])
def test_a_picture_that_needs_no_shrinking_has_a_thumbnail(tmp_path: Path, size: tuple[int, int], suffix: str) -> None:
    path = tmp_path / f"small.{suffix}"
    Image.new("RGB", size, (200, 80, 40)).save(path)
    assert thumbnail_data_uri(path, 192).startswith("data:image/jpeg;base64,")
