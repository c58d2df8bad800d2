"""Step 7 asks a vision model: against a local server that misbehaves in every way that real ones were seen to."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from PIL import Image
from support import PATIENCE, as_rows, drawing, load_step, snapshot

from lib.models import vlm as client_module
from lib.models.vlm import ModelAnswer, content_of, verdict_of
from lib.sort.criteria.judges import key_for

step = load_step("sort")
GOOD = {"decision": "keep", "score": 0.9, "reason": "a lake", "tags": ["water", "sky"]}


def told(content: Any) -> web.Response:
    text = content if isinstance(content, str | list) else json.dumps(content)
    return web.json_response({"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 11}})


class Server:
    """`answer(number, body)` gives the response to the n-th question; all questions are kept."""

    def __init__(self, answer: Callable[[int, Any], Any]):
        self.answer, self.asked, self.headers = answer, list[Any](), list[Any]()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        assert self.ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _serve(self) -> None:
        self.loop = asyncio.new_event_loop()
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/v1/chat/completions", self._handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self.loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self.loop.run_until_complete(site.start())
        self.port = runner.addresses[0][1]
        self.ready.set()
        self.loop.run_forever()
        self.loop.run_until_complete(runner.cleanup())
        self.loop.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.asked.append(body)
        self.headers.append(dict(request.headers))
        answer = self.answer(len(self.asked) - 1, body)
        return await answer if asyncio.iscoroutine(answer) else answer


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        drawing(number, 1600, 900).save(folder / f"{number}.jpg")
    (folder / "broken.jpg").write_bytes(b"nothing")
    return folder


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "FIRST_WAIT", 0.001)


def sort(workspace: Path, folder: Path, url: str, *arguments: object) -> int:
    options = ["--vlm-url", url, "--vlm-model", "m", "--subject", "lakes", "--vlm-workers", "2", "--json", *arguments]
    return step.main(["vlm", str(folder), *map(str, options), "--workspace", str(workspace)])


def result(capsys: Any) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_pictures_are_asked_about_once_and_small(pictures: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_KEY", "secret-key")
    decisions = iter([GOOD, GOOD | {"score": 0.5}, GOOD | {"decision": "reject"}])
    with Server(lambda number, body: told(next(decisions))) as server:
        assert sort(tmp_path / "ws", pictures, server.url, "--vlm-key-env", "MY_KEY") == 0
        captured = capsys.readouterr()
        assert f"127.0.0.1:{server.port} (this machine) will see all pictures" in captured.err
        told_all = json.loads(captured.out)
        assert told_all["buckets"] == {"drop": 2, "keep": 1}
        assert {action["reason"] for action in told_all["actions"]} == {"a lake [water, sky]"}
        assert [entry["reason"] for entry in told_all["unreadable"]] == ["not_an_image"]
        for body in server.asked:
            text, image = body["messages"][0]["content"]
            assert "lakes" in text["text"] and body["response_format"]["type"] == "json_schema"
            content = base64.b64decode(image["image_url"]["url"].partition(",")[2])
            assert Image.open(io.BytesIO(content)).size == (768, 432)
        assert all(headers["Authorization"] == "Bearer secret-key" for headers in server.headers)
        # Other thresholds ask nothing; another question asks again.
        assert sort(tmp_path / "ws", pictures, server.url, "--vlm-min-score", "0.4") == 0
        assert result(capsys)["buckets"] == {"drop": 1, "keep": 2} and len(server.asked) == 3
    kept = as_rows(tmp_path / "ws/gleaner.db", "SELECT detail, metric FROM scores WHERE value IS NOT NULL")
    assert len(kept) == 3 and all("secret" not in detail and metric == "vlm m" for detail, metric in kept)
    assert "secret-key" not in (tmp_path / "ws/gleaner.db").read_bytes().decode("latin-1")


def test_the_budget_holds_and_a_dry_run_sends_nothing(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    with Server(lambda number, body: told(GOOD)) as server:
        before = snapshot(tmp_path)
        assert sort(tmp_path / "ws", pictures, server.url, "--dry-run") == 0
        assert snapshot(tmp_path) == before and not server.asked
        capsys.readouterr()
        for asked in (2, 3):
            assert sort(tmp_path / "ws", pictures, server.url, "--max-images", 2) == 0
            found = result(capsys)
            assert len(server.asked) <= asked
        assert found["summary"].get("left_out", 0) == 0 and found["buckets"] == {"keep": 3}


def flaky(*first: Any) -> Callable[[int, Any], Any]:
    """Gives these answers first, then good ones."""
    return lambda number, body: (
        (first[number]() if callable(first[number]) else first[number]) if number < len(first) else told(GOOD)
    )


def error(status: int, text: str = "no", **headers: str) -> Callable[[], web.Response]:
    return lambda: web.json_response({"error": {"message": text}}, status=status, headers=headers)


async def slow() -> web.Response:
    await asyncio.sleep(PATIENCE)
    return told(GOOD)


async def endless() -> web.Response:
    return web.Response(text="x" * 3_000_000)


def unless(
    allowed: Callable[[Any], bool], sentence: str = "response_format is not supported"
) -> Callable[[int, Any], Any]:
    """A server that knows some answer formats only."""
    return lambda number, body: told(GOOD) if allowed(body) else error(400, sentence)()


@pytest.mark.parametrize(
    ("name", "answer", "most"),
    [
        ("fenced", lambda n, b: told(f"Sure!\n```json\n{json.dumps(GOOD)}\n```\nAnything else?"), 1),
        ("thinking", lambda n, b: told('<think>{"decision": "reject", "score": 1}</think>' + json.dumps(GOOD)), 1),
        ("parts", lambda n, b: told([{"type": "text", "text": json.dumps(GOOD)}]), 1),
        ("braces before", lambda n, b: told("{not json} {} " + json.dumps(GOOD | {"score": "0.8"})), 1),
        ("no schema", unless(lambda b: b.get("response_format", {}).get("type") == "json_object"), 2),
        ("no format at all", unless(lambda b: "response_format" not in b), 3),
        ("chatty once", flaky(lambda: told("I like it.")), 2),
        ("rate limited", flaky(error(429, "slow down", **{"Retry-After": "0.2"}), error(429)), 3),
        ("limited until a date", flaky(error(503, **{"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})), 2),
        ("broken for a while", flaky(error(500), error(502), error(408)), 4),
        ("slow once", flaky(slow), 2),
        (
            "other limit",
            unless(lambda b: "max_completion_tokens" in b, "Use 'max_completion_tokens', not 'max_tokens'"),
            2,
        ),
        ("no temperature", unless(lambda b: "temperature" not in b, "'temperature' does not support 0"), 2),
    ],
)
def test_what_a_server_does_wrong_is_borne(
    name: str, answer: Any, most: int, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    for path in list(pictures.iterdir())[1:]:
        path.unlink()
    drawing(7, 90, 60).save(pictures / "one.png")
    for path in pictures.glob("*.jpg"):
        path.unlink()
    with Server(answer) as server:
        started = time.monotonic()
        patience = 8 if name == "slow once" else PATIENCE  # of both answers: the second is to come in time
        assert sort(tmp_path / "ws", pictures, server.url, "--vlm-timeout", patience) == 0
        if name == "rate limited":
            assert time.monotonic() - started > 0.2
        assert result(capsys)["buckets"] == {"keep": 1}
        assert len(server.asked) == most


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda n, b: told("never JSON"), "no_answer: invalid, no JSON object"),
        (lambda n, b: told(GOOD | {"decision": "perhaps"}), "no_answer: invalid, decision is 'perhaps'"),
        (lambda n, b: told(GOOD | {"score": 70}), "no_answer: invalid, score is not from 0 to 1"),
        (lambda n, b: web.Response(text="<html>Welcome"), "no_answer: the answer is no JSON"),
        (lambda n, b: web.json_response({"choices": []}), "no_answer: the answer has no message"),
        (lambda n, b: endless(), "no_answer: the answer is no JSON"),
        (lambda n, b: error(413, "too large")(), "no_answer: http_413 too large"),
        (lambda n, b: error(400, "bad image")(), "no_answer: http_400 bad image"),
        (lambda n, b: error(500)(), "no_answer: http_500 no"),
        (lambda n, b: error(429, **{"Retry-After": "3600"})(), "no_answer: http_429 no, asks to wait 3600 s"),
    ],
)
def test_no_verdict_is_no_rejection(answer: Any, reason: str, pictures: Path, tmp_path: Path, capsys: Any) -> None:
    with Server(answer) as server:
        assert sort(tmp_path / "ws", pictures, server.url, "--max-images", 1) == 0
    found = result(capsys)
    assert found["buckets"] == {} and not (tmp_path / "ws/sorted").exists()
    data = json.loads((tmp_path / "ws/reports/sort_vlm.json").read_text())
    assert reason in {entry["reason"] for entry in data["left_out"]}
    assert as_rows(tmp_path / "ws/gleaner.db", "SELECT count(*) FROM scores WHERE reason LIKE 'no_answer%'") == [(0,)]


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda n, b: error(401, "bad key")(), "refuses the key (http_401 bad key)"),
        (lambda n, b: error(402, "no credits")(), "wants to be paid first (http_402 no credits)"),
        (
            lambda n, b: web.json_response({"error": {"code": "insufficient_quota", "message": "quota"}}, status=429),
            "wants to be paid first (http_429 quota)",
        ),
        (lambda n, b: error(404, "model m not found")(), "knows no such address or model (http_404 model m not found)"),
        (
            lambda n, b: web.Response(status=307, headers={"Location": "http://127.0.0.1:9/v1"}),
            "sends pictures elsewhere",
        ),
    ],
)
def test_what_every_picture_would_meet_ends_the_run(
    answer: Any, sentence: str, pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    with Server(answer) as server:
        assert sort(tmp_path / "ws", pictures, server.url) == 1
        assert sentence in capsys.readouterr().err
        assert len(server.asked) <= 2


def test_answers_are_kept_when_the_key_is_taken_away(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    with Server(lambda n, b: told(GOOD) if n == 0 else error(401)()) as server:
        assert sort(tmp_path / "ws", pictures, server.url, "--vlm-workers", "1") == 1
    assert as_rows(tmp_path / "ws/gleaner.db", "SELECT count(*) FROM scores WHERE value IS NOT NULL") == [(1,)]


def test_a_server_that_falls_silent_ends_the_run_and_what_it_said_is_kept(
    pictures: Path, tmp_path: Path, capsys: Any
) -> None:
    for number in range(30):
        drawing(number + 10, 90, 60).save(pictures / f"more-{number}.png")
    with Server(lambda n, b: told(GOOD) if n < 2 else error(503)()) as server:
        assert sort(tmp_path / "ws", pictures, server.url, "--vlm-workers", "1") == 1
        assert "answers no more (http_503 no)" in capsys.readouterr().err
        assert len(server.asked) == 2 + client_module.SILENCES * client_module.ATTEMPTS
    assert as_rows(tmp_path / "ws/gleaner.db", "SELECT count(*) FROM scores WHERE value IS NOT NULL") == [(2,)]


@pytest.mark.parametrize(
    ("host", "variable", "key"),
    [
        ("api.openai.com", None, "sk"),
        ("localhost", None, ""),
        ("api.openai.com.evil.example", None, ""),
        ("other.example", "OPENAI_API_KEY", "sk"),
    ],
)
def test_a_key_goes_to_its_own_host_unless_it_is_named(host: str, variable: Any, key: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk")
    assert key_for(host, variable) == key


def test_a_server_that_is_not_there_is_one_sentence(pictures: Path, tmp_path: Path, capsys: Any) -> None:
    assert sort(tmp_path / "ws", pictures, "http://127.0.0.1:9/v1") == 1
    assert "127.0.0.1:9 cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["vlm", "--subject", "x"], "vlm needs --vlm-model"),
        (["vlm", "--vlm-model", "m"], "say what the dataset is about with --subject"),
        *(
            (["vlm", "--vlm-model", "m", "--subject", "x", "--vlm-url", url], f"{url!r} is no address")
            for url in ("localhost", "ftp://x", "http://[::1", "http://x:99999/v1", "http://:80/v1", "http://x /v1")
        ),
        (["vlm", "--vlm-model", "m", "--vlm-prompt", "/nowhere"], "/nowhere cannot be read"),
        (["vlm", "--vlm-model", "m", "--subject", "x", "--vlm-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY of --vlm-key-env"),
    ],
)
def test_what_is_missing_is_said_before_anything(
    arguments: list[str], sentence: str, tmp_path: Path, capsys: Any
) -> None:
    assert step.main([*arguments, "--workspace", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


NESTED = "[" * 100_000 + "]" * 100_000


def raw(body: str, status: int = 200, **headers: str) -> web.Response:
    return web.Response(text=body, status=status, content_type="application/json", headers=headers)


def completed(content: str, tokens: str = "1") -> web.Response:
    """An answer whose text is written into the JSON as it is."""
    body = '{"choices": [{"message": {"content": %s}}], "usage": {"total_tokens": %s}}'
    return raw(body % (content, tokens))


HOSTILE = {
    "half an emoji in the reason": (
        lambda: told(json.dumps(GOOD | {"reason": "half \ud83d of it"})),
        "half \ufffd of it",
    ),
    "half an emoji in a tag": (lambda: told(json.dumps(GOOD | {"tags": ["\udc00"]})), "a lake"),
    "a NUL": (lambda: told(json.dumps(GOOD | {"reason": "a\x00b"})), "ab"),
    "half an emoji as the message": (lambda: completed(r'"\ud800 no"'), None),
    "half an emoji as the decision": (lambda: told(json.dumps(GOOD | {"decision": "\ud800"})), None),
    "parts of half an emoji": (lambda: completed(r'[{"text": "\ud83d"}, {"text": 1e999}]'), None),
    "half an emoji as the error": (lambda: raw(r'{"error": {"message": "no \ud83d"}}', 418), None),
    "a nested error": (lambda: raw(NESTED, 418), None),
    "a nested error message": (lambda: raw('{"error": %s}' % ("[" * 900 + "]" * 900), 418), None),
    "a nested answer": (lambda: raw(NESTED), None),
    "nested tags": (lambda: told(json.dumps(GOOD)[:-1] + ', "tags": ' + NESTED + "}"), None),
    "more tokens than fit": (lambda: completed(json.dumps(json.dumps(GOOD)), "9" * 30), "a lake"),
    "fewer tokens than none": (lambda: completed(json.dumps(json.dumps(GOOD)), "-5"), "a lake"),
    "more digits than fit": (lambda: completed(json.dumps(json.dumps(GOOD)), "9" * 5000), None),
    "an infinite score": (lambda: told('{"decision": "keep", "score": 1e999, "reason": "", "tags": []}'), None),
    "no score": (lambda: told('{"decision": "keep", "score": NaN, "reason": "", "tags": []}'), None),
    "a score of many digits": (lambda: told('{"decision": "keep", "score": %s}' % ("9" * 5000)), None),
    "a date beyond the calendar": (lambda: raw("{}", 418, **{"Retry-After": "Fri, 31 Dec 99999999 23:59:59"}), None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_answer_ends_the_run(name: str, tmp_path: Path, capsys: Any) -> None:
    answer, reason = HOSTILE[name]
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        drawing(number, 60, 40).save(folder / f"{number}.png")

    def respond(number: int, body: Any) -> web.Response:
        first = not server.asked[:-1] or server.asked[0]["messages"][0] == body["messages"][0]
        return answer() if first else told(GOOD)

    with Server(respond) as server:
        assert sort(tmp_path / "ws", folder, server.url, "--vlm-workers", "1") == 0
    assert result(capsys)["buckets"] == {"keep": 1 if reason is None else 2}
    kept = as_rows(tmp_path / "ws/gleaner.db", "SELECT reason FROM scores WHERE value IS NOT NULL")
    assert sorted(text for (text,) in kept) == sorted([*([reason] if reason is not None else []), "a lake"])


@pytest.mark.parametrize("body", [None, [], {}, {"choices": [None]}, {"choices": [{"message": {"content": 3}}]}])
def test_answers_of_other_shapes_have_no_text(body: Any) -> None:
    assert content_of(body) is None


def test_verdicts_are_cut_to_size_and_deep_nesting_is_no_crash() -> None:
    verdict = verdict_of(json.dumps(GOOD | {"reason": "very " * 500, "tags": ["x" * 500] * 50}))
    assert isinstance(verdict, ModelAnswer)
    assert len(verdict.reason) <= 300 and len(verdict.tags) == 16 and len(verdict.tags[0]) == 60
    assert verdict_of('{"a":' * 100_000) == "no JSON object"
    assert isinstance(verdict_of("{" * 150 + json.dumps(GOOD)), ModelAnswer)
