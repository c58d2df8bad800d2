"""The engines beside Yandex against the gallery, which speaks their protocols: alone, and through the steps."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from support import as_rows, drawing, run_step

from demo import keys
from demo.app import Gallery, running_gallery
from lib.engines import NAMES
from lib.engines.base import Engine, PageOutcome, SearchRequest, load_engine
from lib.web.direct import DirectSettings, DirectWeb

NEW = tuple(name for name in NAMES if name != "yandex")
CLOUD = {"YANDEX_CLOUD_API_KEY": keys.YANDEX_CLOUD_KEY, "YANDEX_CLOUD_FOLDER_ID": keys.YANDEX_CLOUD_FOLDER}
HUB = {"NAVER_HUB_KEY_ID": keys.NAVER_ID, "NAVER_HUB_KEY": keys.NAVER_SECRET}
OLD = {"NAVER_CLIENT_ID": keys.NAVER_ID, "NAVER_CLIENT_SECRET": keys.NAVER_SECRET}
CONTACT = "someone@example.org"
EVERY_KEY = {**CLOUD, **HUB, "GLEANER_CONTACT": CONTACT}


@pytest.fixture(scope="module")
def gallery() -> Iterator[Gallery]:
    with running_gallery(pictures=320, results=300) as made:
        yield made


@pytest.fixture
def calm(gallery: Gallery) -> Iterator[Gallery]:
    gallery.site.board.asked.clear()
    yield gallery
    gallery.clear_faults()


def query(kind: str, word: str = "photo") -> SearchRequest:
    if kind == "keyword":
        return SearchRequest("keyword", word)
    body = io.BytesIO()
    drawing(3).save(body, "JPEG")
    return SearchRequest("image", picture=body.getvalue(), mime="image/jpeg")


@dataclass
class Harvest:
    """What a search brought: ids in order, how it ended, and every address that was answered."""

    verdict: PageOutcome
    ids: list[str]
    urls: list[str]
    skipped: int = 0


async def search(
    engine: Engine, host: str, ask: SearchRequest, pages: int = 50, cursor: dict[str, Any] | None = None
) -> Harvest:
    """Page after page to the end, as `lib.collect` does it."""
    found = Harvest(PageOutcome("ok"), [], [])
    async with DirectWeb(DirectSettings(None, 20.0, CONTACT, engine.keeps_cookies)) as direct:
        if ask.kind == "image" and cursor is None:
            sent = await engine.upload(direct, host, ask, 0)
            found.verdict = engine.classify(sent)
            if found.verdict.outcome != "ok":
                return found
            cursor = engine.read_upload(sent)
        for page in range(min(pages, engine.most_pages)):
            got = await engine.fetch(direct, host, ask, cursor or {}, page)
            found.verdict = engine.classify(got)
            found.urls.append(got.url)
            if found.verdict.outcome != "ok":
                return found
            parsed = engine.parse(got.part, got.body)
            new = [image.engine_id for image in parsed.images if image.engine_id not in found.ids]
            assert got.part == engine.part(page)
            if not new:
                found.verdict = PageOutcome("end", "no_new_results")
                return found
            found.ids += new
            found.skipped += parsed.skipped
            if engine.is_last_page(got.part, got.body, parsed):
                found.verdict = PageOutcome("end", "said")
                return found
    return found


@pytest.mark.parametrize(
    ("name", "kind", "ended"),
    [
        ("openverse", "keyword", "said"),
        ("commons", "keyword", "said"),
        ("yandex-cloud", "keyword", "no_more_results"),
        ("yandex-cloud", "image", "no_more_results"),
        ("naver-api", "keyword", "said"),
        ("baidu", "keyword", "no_new_results"),
        ("baidu-graph", "image", "no_more_results"),
        ("naver", "keyword", "no_more_results"),
        ("bing", "keyword", "no_new_results"),
    ],
)
def test_pages_join_without_loss_or_repeats(calm: Gallery, name: str, kind: str, ended: str) -> None:
    engine, ask = load_engine(name, EVERY_KEY), query(kind)
    found = asyncio.run(search(engine, calm.url, ask))
    assert (found.verdict.outcome, found.verdict.detail) == ("end", ended)
    expected = len(calm.site.by_words("photo", {})) if kind == "keyword" else calm.options.results
    assert expected > 2 * engine.page_size or name == "naver-api"
    assert len(found.ids) == expected
    if name in ("openverse", "commons", "naver-api", "yandex-cloud"):
        pages = [count for label, count in calm.counters["asked"].items() if label.startswith(f"{name}/api")]
        assert set(pages) == {1}, "no page is paid for twice"


@pytest.mark.parametrize("name", [name for name in NEW if name != "baidu-graph"])
def test_nothing_found_is_empty_and_nothing_else(calm: Gallery, name: str) -> None:
    found = asyncio.run(search(load_engine(name, EVERY_KEY), calm.url, query("keyword", "zzzqqq")))
    assert (found.verdict.outcome, found.ids) == ("empty", [])


@pytest.mark.parametrize(
    ("name", "fault", "outcome"),
    [
        ("openverse", "429@1", "blocked"),
        ("openverse", "changed_shape@1", "parse_error"),
        ("commons", "blocked@1", "blocked"),
        ("commons", "429@1", "blocked"),
        ("yandex-cloud", "blocked@1", "blocked"),
        ("yandex-cloud", "changed_shape@0", "parse_error"),
        ("naver-api", "429@0", "blocked"),
        ("naver-api", "changed_shape@0", "parse_error"),
        ("baidu", "captcha@1", "captcha"),
        ("baidu", "captcha_page@1", "captcha"),
        ("baidu", "blocked@1", "blocked"),
        ("baidu", "consent", "consent"),
        ("baidu", "not_json@1", "blocked"),
        ("baidu", "changed_shape@1", "parse_error"),
        ("baidu-graph", "captcha@0", "captcha"),
        ("baidu-graph", "captcha_page@2", "captcha"),
        ("baidu-graph", "expired@1", "parse_error"),
        ("baidu-graph", "expired=403@1", "blocked"),
        ("baidu-graph", "upload_rejected", "upload_rejected"),
        ("baidu-graph", "upload_rejected=soft", "empty"),
        ("baidu-graph", "changed_shape@1", "parse_error"),
        ("naver", "captcha@1", "captcha"),
        ("naver", "consent@0", "consent"),
        ("naver", "blocked@1", "blocked"),
        ("naver", "changed_shape@1", "parse_error"),
        ("bing", "captcha@1", "captcha"),
        ("bing", "consent@0", "consent"),
        ("bing", "500@1", "network"),
    ],
)
def test_faults_end_in_their_outcomes(calm: Gallery, name: str, fault: str, outcome: str) -> None:
    calm.set_fault(fault)
    engine = load_engine(name, EVERY_KEY)
    found = asyncio.run(search(engine, calm.url, query("keyword" if "keyword" in engine.kinds else "image")))
    assert found.verdict.outcome == outcome


@pytest.mark.parametrize("name", ["yandex-cloud", "baidu-graph"])
def test_a_search_by_picture_goes_on_with_what_its_upload_left(calm: Gallery, name: str) -> None:
    engine, ask = load_engine(name, EVERY_KEY), query("image")

    async def upload() -> dict[str, Any]:
        async with DirectWeb(DirectSettings(None, 20.0, CONTACT, engine.keeps_cookies)) as direct:
            return engine.read_upload(await engine.upload(direct, calm.url, ask, 0))

    cursor = json.loads(json.dumps(asyncio.run(upload())))
    later = asyncio.run(search(load_engine(name, EVERY_KEY), calm.url, SearchRequest("image"), cursor=cursor))
    assert len(later.ids) == calm.options.results


@pytest.mark.parametrize(
    ("name", "filters", "gallery_filters"),
    [
        ("openverse", {"type": "photo"}, {"type": "photo"}),
        ("naver-api", {"size": "large"}, {"isize": "large"}),
        ("yandex-cloud", {"orientation": "portrait"}, {"iorient": "vertical"}),
        ("baidu", {"size": "large"}, {"isize": "large"}),
        ("bing", {"size": "small", "orientation": "landscape"}, {"isize": "small", "iorient": "horizontal"}),
        ("commons", {"type": "photo"}, {"itype": "jpg"}),
    ],
)
def test_filters_reach_the_engine(
    calm: Gallery, name: str, filters: dict[str, str], gallery_filters: dict[str, str]
) -> None:
    expected = len(calm.site.by_words("photo", gallery_filters))
    found = asyncio.run(
        search(load_engine(name, EVERY_KEY), calm.url, SearchRequest("keyword", "photo", filters=filters))
    )
    assert len(found.ids) == expected < len(calm.site.by_words("photo", {}))


def test_openverse_signs_in_where_it_can_and_says_where_its_key_is_refused(calm: Gallery) -> None:
    good = {"OPENVERSE_CLIENT_ID": keys.OPENVERSE_ID, "OPENVERSE_CLIENT_SECRET": keys.OPENVERSE_SECRET}
    found = asyncio.run(search(load_engine("openverse", good), calm.url, query("keyword")))
    assert found.verdict.outcome == "end" and not any("demo-openverse" in url for url in found.urls)
    bad = {**good, "OPENVERSE_CLIENT_SECRET": "wrong"}
    found = asyncio.run(search(load_engine("openverse", bad), calm.url, query("keyword")))
    assert (found.verdict.outcome, found.verdict.detail) == ("blocked", "key_refused")


def test_blanks_around_a_key_do_no_harm(calm: Gallery) -> None:
    environ = {name: f" {value}\n" for name, value in CLOUD.items()}
    found = asyncio.run(search(load_engine("yandex-cloud", environ), calm.url, query("keyword")))
    assert found.verdict.outcome == "end"


@pytest.mark.parametrize(("name", "environ"), [("yandex-cloud", CLOUD), ("naver-api", HUB), ("naver-api", OLD)])
def test_a_refused_key_blocks(calm: Gallery, name: str, environ: dict[str, str]) -> None:
    wrong = dict.fromkeys(environ, "wrong-key")
    found = asyncio.run(search(load_engine(name, wrong), calm.url, query("keyword")))
    assert (found.verdict.outcome, found.verdict.detail) == ("blocked", "key_refused")


def test_baidu_is_refused_without_its_cookies(calm: Gallery) -> None:
    async def scene() -> PageOutcome:
        engine = load_engine("baidu", {})
        async with DirectWeb(DirectSettings(cookies=False)) as direct:
            return engine.classify(await engine.fetch(direct, calm.url, query("keyword"), {}, 0))

    assert asyncio.run(scene()) == PageOutcome("blocked", "anti_flag")


def run_quietly(step: str, workspace: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """A step with the gallery's keys and no others."""
    quiet = {name: "" for name in os.environ if name.startswith(("NAVER_", "YANDEX_CLOUD_", "OPENVERSE_"))}
    done = run_step(step, "--workspace", workspace, *arguments, **{**quiet, **EVERY_KEY})
    assert done.returncode == 0, done.stderr
    return done


def test_from_the_command_line_to_the_database(calm: Gallery, tmp_path: Path) -> None:
    """All at once: by words with seven sources, by picture with two; then the database, then nothing is left to do."""
    by_words = [name for name in NEW if "keyword" in load_engine(name, {}).kinds]
    by_picture = [name for name in NEW if "image" in load_engine(name, {}).kinds]
    drawing(3).save(tmp_path / "query.png")
    workspace, here = tmp_path / "work", ("--host", calm.url, "--max-pages", 50)
    searches = (
        (*here, "--engine", *by_words, "--keywords", "photo"),
        (*here, "--engine", *by_picture, "--images", tmp_path / "query.png"),
    )
    said = [run_quietly("collect", workspace, *asked) for asked in searches]
    run_quietly("ingest", workspace)
    for kind, names, expected in (
        ("keyword", by_words, len(calm.site.by_words("photo", {}))),
        ("image", by_picture, calm.options.results),
    ):
        counted = as_rows(
            workspace / "gleaner.db",
            "SELECT engine, count(*), count(DISTINCT rank) FROM results JOIN queries ON queries.id = query_id"
            " WHERE kind = ? GROUP BY engine",
            kind,
        )
        assert sorted(counted) == [(name, expected, expected) for name in sorted(names)]
    said += [again := run_quietly("collect", workspace, *searches[0])]
    assert f"{len(by_words)} skipped" in again.stderr and "0 pages" in again.stderr
    secrets = (keys.YANDEX_CLOUD_KEY, keys.NAVER_ID, keys.NAVER_SECRET)
    for path in (path for path in workspace.rglob("*") if path.is_file()):
        assert not any(secret.encode() in path.read_bytes() for secret in secrets), path
    assert not any(secret in done.stdout + done.stderr for secret in secrets for done in said)


@pytest.mark.parametrize(
    ("name", "fault", "outcome"),
    [("baidu", "captcha@2x1", "captcha"), ("openverse", "429=90@3x1", "blocked"), ("bing", "captcha@1x1", "captcha")],
)
def test_a_stop_is_told_and_a_second_try_fetches_only_what_is_missing(
    calm: Gallery, tmp_path: Path, name: str, fault: str, outcome: str
) -> None:
    calm.site.board.served.clear()
    calm.set_fault(fault)
    here = ("--workspace", tmp_path / "work", "--engine", name, "--host", calm.url, "--max-pages", 50)
    stopped = run_step("collect", *here, "--keywords", "photo", **EVERY_KEY)
    assert stopped.returncode == 4 and f"1 {outcome}" in stopped.stderr
    done = run_step("collect", *here, "--retry", outcome, **EVERY_KEY)
    assert done.returncode == 0 and "1 end" in done.stderr
    pages = as_rows(
        tmp_path / "work" / "gleaner.db", "SELECT page, count(*) FROM responses WHERE outcome = 'ok' GROUP BY 1"
    )
    assert [page for page, _ in pages] == list(range(len(pages))) and {count for _, count in pages} == {1}
    served = calm.counters["served"]
    assert {count for label, count in served.items() if " text:photo" in label} == {1}


@pytest.mark.parametrize(
    ("name", "variable"), [("yandex-cloud", "YANDEX_CLOUD_API_KEY"), ("naver-api", "NAVER_HUB_KEY")]
)
def test_without_a_key_nothing_starts(tmp_path: Path, name: str, variable: str) -> None:
    empty = dict.fromkeys((*CLOUD, *HUB, *OLD), "")
    done = run_step("collect", "--workspace", tmp_path, "--engine", name, "--keywords", "a", **empty)
    assert done.returncode == 2 and variable in done.stderr and "Traceback" not in done.stderr
