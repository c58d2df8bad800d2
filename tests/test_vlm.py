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
from support import PATIENCE, all_rows, as_rows, drawing, flat, load_step, snapshot, touched

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
    return flat(capsys.readouterr().out)


def test_pictures_are_asked_about_once_and_small(pictures: Path, tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("MY_KEY", "secret-key")
    decisions = iter([GOOD, GOOD | {"score": 0.5}, GOOD | {"decision": "reject"}])
    with Server(lambda number, body: told(next(decisions))) as server:
        assert sort(tmp_path / "ws", pictures, server.url, "--vlm-key-env", "MY_KEY") == 0
        captured = capsys.readouterr()
        assert f"127.0.0.1:{server.port} (this machine) will see all pictures" in captured.err
        told_all = flat(captured.out)
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
        assert found["counts"].get("left_out", 0) == 0 and found["buckets"] == {"keep": 3}


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


def picture_of(body: Any) -> Image.Image:
    """The picture that a question is about."""
    uri = body["messages"][0]["content"][1]["image_url"]["url"]
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def is_tiny(body: Any) -> bool:
    return min(picture_of(body).size) < 28


def refusing(answer: Callable[[], web.Response]) -> Callable[[int, Any], Any]:
    """A server that refuses tiny pictures and answers about others."""
    return lambda number, body: answer() if is_tiny(body) else told(GOOD)


def some_pictures(folder: Path, tiny: int, good: int) -> Path:
    folder.mkdir()
    for number in range(tiny):
        Image.new("RGB", (number + 1, 1), (number, 7, 7)).save(folder / f"tiny-{number}.png")
    for number in range(good):
        drawing(number, 90, 60).save(folder / f"good-{number}.png")
    return folder


def left_out(workspace: Path) -> dict[str, str]:
    data = json.loads((workspace / "reports/sort_vlm.json").read_text())
    return {Path(entry["path"]).name: entry["reason"] for entry in data["left_out"]}


REFUSALS = {
    "400 in words": (error(400, "image: height or width must be larger than 28"), "http_400"),
    "400 about its format": (error(400, "unsupported image format"), "http_400"),
    "400 without words": (lambda: web.Response(status=400), "http_400"),
    "413": (error(413, "Payload too large"), "http_413"),
    "415": (error(415, "Unsupported media"), "http_415"),
    "422": (error(422, "cannot process the image"), "http_422"),
    "500": (error(500, "height:1 or width:1 must be larger than factor:28"), "http_500"),
    "moderated": (error(403, "your input was flagged"), "http_403"),
    "an error in a good answer": (lambda: web.json_response({"error": {"message": "bad image"}}), "http_200 bad image"),
    "half an answer": (lambda: raw('{"choices": [{'), "the answer is no JSON"),
}


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", [n for n in REFUSALS if n != "moderated"])
def test_one_refused_picture_costs_the_others_nothing(name: str, workers: int, tmp_path: Path, capsys: Any) -> None:
    answer, reason = REFUSALS[name]
    folder = some_pictures(tmp_path / "pictures", 1, 4)
    with Server(refusing(answer)) as server:
        assert sort(tmp_path / "ws", folder, server.url, "--vlm-workers", workers) == 0
    assert result(capsys)["buckets"] == {"keep": 4}
    kinds = [body.get("response_format", {}).get("type") for body in server.asked if not is_tiny(body)]
    assert kinds == ["json_schema"] * 4
    assert list(left_out(tmp_path / "ws")) == ["tiny-0.png"]
    assert reason in left_out(tmp_path / "ws")["tiny-0.png"]
    assert sum(map(is_tiny, server.asked)) <= 5


def test_a_picture_that_is_refused_as_if_the_key_were_is_its_own_reason(tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 2, 3)
    moderated = REFUSALS["moderated"][0]
    # The first answer shows that the key is good.
    with Server(lambda n, b: told(GOOD) if n == 0 or not is_tiny(b) else moderated()) as server:
        assert sort(tmp_path / "ws", folder, server.url, "--vlm-workers", 1) == 0
    reasons = left_out(tmp_path / "ws")
    assert reasons and set(reasons.values()) == {"no_answer: http_403 your input was flagged"}
    assert result(capsys)["buckets"] == {"keep": 5 - len(reasons)}


def test_a_schema_that_a_server_does_not_know_is_told_from_a_picture_that_it_refuses(
    tmp_path: Path, capsys: Any
) -> None:
    """Both at once: tiny pictures are refused in any format, all others in words alone are answered."""
    folder = some_pictures(tmp_path / "pictures", 2, 4)

    def answer(number: int, body: Any) -> web.Response:
        kind = body.get("response_format", {}).get("type")
        return error(400)() if is_tiny(body) or kind == "json_schema" else told(GOOD)

    with Server(answer) as server:
        assert sort(tmp_path / "ws", folder, server.url, "--vlm-workers", 1) == 0
    assert result(capsys)["buckets"] == {"keep": 4} and set(left_out(tmp_path / "ws")) == {"tiny-0.png", "tiny-1.png"}
    good = [body.get("response_format", {}).get("type") for body in server.asked if not is_tiny(body)]
    assert good.count("json_schema") <= 1 and good.count("json_object") == 4


def test_pictures_without_an_answer_are_named(tmp_path: Path, capsys: Any) -> None:
    folder, workspace = some_pictures(tmp_path / "pictures", 14, 2), tmp_path / "ws"
    words = (folder, "--vlm-model", "m", "--subject", "lakes", "--vlm-workers", "1", "--workspace", workspace)

    def answer(number: int, body: Any) -> web.Response:
        if not is_tiny(body):
            return told(GOOD)
        return error(400, "too small")() if picture_of(body).width % 2 else told("never JSON")

    with Server(answer) as server:
        arguments = [*map(str, words), "--vlm-url", server.url]
        assert step.main(["vlm", *arguments]) == 0
        shown = capsys.readouterr()
        named = [line for line in shown.out.splitlines() if line.startswith("no answer")]
        assert len(named) == 11 and named[-1] == "no answer  4 more pictures; -v names them all"
        assert "tiny-0.png  (" in named[0] and "14 unanswered (" in shown.err
        told_by_reason = shown.err.partition("14 unanswered (")[2].partition(")")[0]
        counts = [int(part.split()[0]) for part in told_by_reason.split(", ")]
        assert sum(counts) == 14 and all(word in told_by_reason for word in ("http 400", "invalid"))
        assert step.main(["vlm", *arguments, "-v"]) == 0
        assert sum(line.startswith("no answer  ") for line in capsys.readouterr().out.splitlines()) == 14
        assert step.main(["vlm", *arguments, "--json"]) == 0
    found = result(capsys)["unanswered"]
    assert len(found) == 14 and all(entry["reason"].startswith("no_answer: ") for entry in found)


def test_scores_and_tags_choose_pictures(tmp_path: Path, capsys: Any) -> None:
    folder, workspace = some_pictures(tmp_path / "pictures", 1, 3), tmp_path / "ws"
    tags = (["Sofa", "window"], ["sofa bed", "LAMPE"], [])

    def answer(number: int, body: Any) -> web.Response:
        if is_tiny(body):
            return error(400, "too small")()
        answered.append(1)
        number = (len(answered) - 1) % 3
        return told(GOOD | {"score": (9, 7, 2)[number] / 10, "tags": tags[number], "reason": f"number {number}"})

    answered: list[int] = []
    with Server(answer) as server:
        assert sort(workspace, folder, server.url, "--vlm-workers", 1) == 0
        result(capsys)
        first = {name: found(workspace, folder, name, capsys) for name in CONDITIONS}
        assert first == CONDITIONS
        # Another question has other words: those count that the label was made of.
        tags = (["sofa"], ["sofa"], ["sofa"])
        (tmp_path / "other.txt").write_text("Is it a sofa? Answer in JSON.", encoding="utf-8")
        assert sort(workspace, folder, server.url, "--vlm-workers", 1, "--vlm-prompt", tmp_path / "other.txt") == 0
        result(capsys)
        assert found(workspace, folder, "vlm.tags has sofa", capsys) == 3
        assert sort(workspace, folder, server.url, "--vlm-workers", 1) == 0
        capsys.readouterr()
        assert found(workspace, folder, "vlm.tags has sofa", capsys) == 1


CONDITIONS = {
    "vlm.score >= 0.7": 2, "vlm.score < 0.7": 1, "vlm.score is null": 1, "vlm = keep": 2, "vlm.reason like '%2%'": 1,
    "vlm.tags has sofa": 1, "vlm.tags has 'Sofa Bed'": 1, "vlm.tags = SOFA": 1, "vlm.tags in (window, lampe)": 2,
    "vlm.tags like 'sofa%'": 2, "not vlm.tags has sofa": 3, "vlm.tags is null": 2, "vlm.tags is not null": 2,
    "vlm.tags has sofa and vlm.score > 0.8 or vlm.tags has lampe": 2, "vlm.tags has 7": 0,
}  # fmt: skip


def found(workspace: Path, folder: Path, condition: str, capsys: Any) -> int:
    words = ["orientation", str(folder), "--where", condition, "--workspace", str(workspace), "-n", "--json", "-q"]
    assert step.main(words) == 0
    return sum(result(capsys)["buckets"].values())


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("vlm.tag has sofa", "is not understood at"), ("quality.tags has sofa", "knows no 'quality.tags'"),
        ("title has sofa", "only vlm.tags has words"), ("vlm.tags has", "ends too early"),
        ("vln.tags has sofa", "Did you mean 'vlm.tags'?"), ("qualty = high", "Did you mean 'quality'?"),
        ("tecnical.score > 3", "Did you mean 'technical.score'?"), ("licens = CC0", "Did you mean 'license'?"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_told_with_the_one_that_was_meant(
    condition: str, words: str, tmp_path: Path, capsys: Any
) -> None:
    folder = some_pictures(tmp_path / "pictures", 0, 1)
    arguments = ["orientation", str(folder), "--where", condition, "--workspace", str(tmp_path / "ws"), "-q"]
    assert step.main(arguments) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("status", [400, 413, 500])
def test_refused_pictures_stand_last_and_are_let_be_after_some_runs(status: int, tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 3, 4)
    workspace = tmp_path / "ws"
    with Server(refusing(error(status, "too small"))) as server:
        asked = []
        for _ in range(8):
            before = len(server.asked)
            assert sort(workspace, folder, server.url, "--max-images", 2, "--vlm-workers", 1) == 0
            capsys.readouterr()
            asked.append(len({picture_of(body).tobytes() for body in server.asked[before:] if is_tiny(body)}))
        # The good ones are through after the fourth run at the latest: no tiny one is asked about twice before them.
        kept = as_rows(workspace / "gleaner.db", "SELECT count(*) FROM scores WHERE value IS NOT NULL")
        assert kept == [(4,)]
        before = len(server.asked)
        assert sort(workspace, folder, server.url) == 0
        assert result(capsys)["counts"]["left_out"] == 3 and len(server.asked) == before
        assert set(left_out(workspace).values()) == {f"no_answer: http_{status} too small, in 3 runs"}
        # A person may insist.
        assert sort(workspace, folder, server.url, "--vlm-tries", 4) == 0
        assert len(server.asked) > before
    assert sum(asked) == 9  # three pictures, three runs each


def test_the_good_ones_come_before_a_second_try(tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 3, 5)
    with Server(refusing(error(422, "too small"))) as server:
        for _ in range(4):
            assert sort(tmp_path / "ws", folder, server.url, "--max-images", 2, "--vlm-workers", 1) == 0
    capsys.readouterr()
    kept = as_rows(tmp_path / "ws/gleaner.db", "SELECT count(*) FROM scores WHERE value IS NOT NULL")
    assert kept == [(5,)]


def test_many_refused_pictures_in_a_row_do_not_end_the_run(tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 30, 1)
    with Server(refusing(error(500, "too small"))) as server:
        assert sort(tmp_path / "ws", folder, server.url, "--vlm-workers", 4) == 0
    assert result(capsys)["buckets"] == {"keep": 1} and len(left_out(tmp_path / "ws")) == 30


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (error(400, "this model knows no pictures"), "answers about no picture, a plain one of our own neither"),
        (error(500, "out of memory"), "answers about no picture, a plain one of our own neither"),
        (error(503, "loading"), "answers about no picture, a plain one of our own neither"),
    ],
)
def test_a_server_that_answers_nobody_is_no_fault_of_the_pictures(
    answer: Any, sentence: str, tmp_path: Path, capsys: Any
) -> None:
    folder = some_pictures(tmp_path / "pictures", 0, 14)
    with Server(lambda n, b: answer()) as server:
        for _ in range(4):
            assert sort(tmp_path / "ws", folder, server.url) == 1
            assert sentence in capsys.readouterr().err
        server.answer = lambda n, b: told(GOOD)
        assert sort(tmp_path / "ws", folder, server.url) == 0
    assert result(capsys)["buckets"] == {"keep": 14}


@pytest.mark.parametrize("fault", [error(503), error(429), error(500), lambda: web.Response(text="<html>portal")])
def test_what_is_asked_while_a_server_is_down_is_asked_again(fault: Any, tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 0, 2)
    with Server(lambda n, b: fault()) as server:
        for _ in range(4):
            assert sort(tmp_path / "ws", folder, server.url) == 0
        server.answer = lambda n, b: told(GOOD)
        capsys.readouterr()
        assert sort(tmp_path / "ws", folder, server.url) == 0
    assert result(capsys)["buckets"] == {"keep": 2}


def test_a_server_that_a_picture_brings_down_is_asked_about_the_others_first(tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 2, 3)
    down = [0]

    def answer(number: int, body: Any) -> Any:
        if is_tiny(body):
            down[0] = 8  # so many questions later it is up again
        down[0] -= 1
        return error(502)() if down[0] > 0 else told(GOOD)

    with Server(answer) as server:
        for _ in range(5):
            sort(tmp_path / "ws", folder, server.url, "--max-images", 1, "--vlm-workers", 1)
            down[0] = 0
    kept = as_rows(tmp_path / "ws/gleaner.db", "SELECT count(*) FROM scores WHERE value IS NOT NULL")
    assert kept == [(3,)]


BAD = {"decision": "reject", "score": 0.1, "reason": "thought", "tags": []}
good, bad = json.dumps(GOOD), json.dumps(BAD)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>{bad}</think>{good}",
        f"<think>one</think><think>{bad}</think>\n\n{good}",
        f"<think>a <think>b {bad}</think> c {bad}</think>{good}",
        f"The form is {bad}, I think.</think>\n{good}",  # the mark stood in the prompt
        f"{good}<think>was that right? {bad}</think>",
        f"{good}\n<think>but {bad}",
        f"<thinking>{bad}</thinking><answer>{good}</answer>",
        f"<Thought>{bad}</Thought>{good}",
        f"<reasoning>{bad}</reasoning>{good}",
        f"<seed:think>{bad}</seed:think>{good}",
        f"[THINK]{bad}[/THINK]{good}",
        f"◁think▷{bad}◁/think▷{good}",
        f"<|begin_of_thought|>{bad}<|end_of_thought|><|begin_of_solution|>{good}<|end_of_solution|>",
        f"<|START_THINKING|>{bad}<|END_THINKING|><|START_RESPONSE|>{good}<|END_RESPONSE|>",
        f"{good}<|START_THINKING|>{bad}",
        f"<|start_of_thought|>{bad}<|end_of_thought|>{good}",
        f"<analysis>{bad}</analysis>{good}<analysis>{bad}",
        f"<SUMMARY>s</SUMMARY><REASONING>{bad}</REASONING><CONCLUSION>{good}</CONCLUSION>",
        f"Thinking...\n{bad}\n...done thinking.\n\n{good}",
        f"<|channel|>analysis<|message|>{bad}<|end|><|start|>assistant<|channel|>final<|message|>{good}<|return|>",
        f"<|channel|>final <|constrain|>json<|message|>{good}<|end|><|channel|>analysis<|message|>{bad}",
        f"<|start|>assistant<|channel|>commentary<|message|>{bad}<|channel|>final<|message|>{good}",
        f"analysisWe need JSON like {bad}.assistantfinal{good}",
        f"<|channel>thought\n{bad}<channel|>{good}",
        f"Such as {bad}. Now the answer:\n```json\n{good}\n```\nAnything else?",
        f"{bad}\n{good}\n",
        f'{good}\n{{"note": "done"}}',
        f"{{not json}} {{}} {good}",
        f"{good} and then {good[:30]}",
        f"<|begin_of_box|>{good}<|end_of_box|>",
        good.replace("a lake", "a <think> lake"),
        good.replace('"a lake"', '"a\nlake"'),
        '[{"box": [1, 2]}]' * 300 + good,
    ],
)
def test_the_last_object_outside_of_thoughts_is_the_answer(text: str) -> None:
    verdict = verdict_of(text)
    assert isinstance(verdict, ModelAnswer), verdict
    assert verdict.keep and verdict.score == 0.9 and "lake" in verdict.reason


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"<think>{good}",
        f"<think>{good}</think>",
        f"<think>a</think><think>{good}",
        f"{good}</think>",
        f"[THINK]{good}",
        f"<|START_THINKING|>{good}",
        f"<|start_of_thought|>{good}<|end_of_thought|>",
        f"<analysis>{good}</analysis>",
        f"<cot>{good}",
        f"Thinking...\n{good}\n...done thinking.\n\n",
        f"<|channel|>analysis<|message|>{good}",
        f"<|channel|>analysis<|message|>{good}<|end|><|start|>assistant<|channel|>final<|message|>",
        f"analysisThe form is {good}",
        f'{{"example": {good}, "decision": "rej',
        f'{{"thought": {good}, "answer": "unfinished',
        good[:-1],
        f'{good}\n{{"decision": "perhaps", "score": 1}}',
        f'{good}\n{{"decision": "keep", "score": 80}}',
    ],
)
def test_no_answer_is_made_of_a_thought_or_of_half_an_object(text: str) -> None:
    assert isinstance(verdict_of(text), str)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("content", [None, ""])
def test_a_field_for_thoughts_is_no_answer(field: str, content: Any, tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 0, 1)
    message = {"content": content, field: good}
    with Server(lambda n, b: web.json_response({"choices": [{"message": message}]})) as server:
        assert sort(tmp_path / "ws", folder, server.url) == 0
    assert result(capsys)["buckets"] == {}
    assert left_out(tmp_path / "ws")["good-0.png"].startswith("no_answer: ")


def test_parts_for_thoughts_are_no_answer() -> None:
    thought = [{"type": "thinking", "thinking": [{"type": "text", "text": bad}]}, {"type": "reasoning", "text": bad}]
    said = {"type": "text", "text": good}
    assert content_of({"choices": [{"message": {"content": [*thought, said]}}]}) == good
    assert content_of({"choices": [{"message": {"content": [said, *thought]}}]}) == good


def test_a_model_that_was_cut_off_while_it_thought_gets_more_room(tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 0, 3)

    def answer(number: int, body: Any) -> web.Response:
        enough = body["max_tokens"] >= 4000
        text = f"<think>{bad}</think>{good}" if enough else f"<think>{bad}"
        reason = "stop" if enough else "length"
        return web.json_response({"choices": [{"message": {"content": text}, "finish_reason": reason}]})

    with Server(answer) as server:
        assert sort(tmp_path / "ws", folder, server.url, "--vlm-workers", 1) == 0
    assert result(capsys)["buckets"] == {"keep": 3} and len(server.asked) == 4


def test_a_limit_that_one_picture_exceeds_is_not_changed_for_the_others(tmp_path: Path, capsys: Any) -> None:
    folder = some_pictures(tmp_path / "pictures", 1, 3)
    words = "'max_tokens' or 'max_completion_tokens' is too large: the context length is 2048 tokens"
    with Server(refusing(error(400, words))) as server:
        assert sort(tmp_path / "ws", folder, server.url, "--vlm-workers", 1) == 0
    assert result(capsys)["buckets"] == {"keep": 3}
    assert all(body["max_tokens"] == 400 for body in server.asked if not is_tiny(body))


def test_a_second_run_asks_nothing_and_writes_nothing(pictures: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "ws"
    with Server(lambda number, body: told(GOOD)) as server:
        assert sort(workspace, pictures, server.url) == 0
        asked, before, rows = len(server.asked), touched(workspace), all_rows(workspace / "gleaner.db")
        assert sort(workspace, pictures, server.url) == 0
        assert len(server.asked) == asked == 3
    assert touched(workspace) == before and all_rows(workspace / "gleaner.db") == rows


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "TIFF"])
def test_a_server_is_shown_a_white_sign_on_clear(form: str, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    sign = Image.new("RGBA", (800, 320), (255, 255, 255, 0))
    sign.paste((255, 255, 255, 255), (200, 80, 600, 240))
    options = {"lossless": True} if form == "WEBP" else {}
    sign.save(folder / f"sign.{form.lower()}", form, **options)
    with Server(lambda number, body: told(GOOD)) as server:
        assert sort(tmp_path / "ws", folder, server.url) == 0
        seen = picture_of(server.asked[0]).convert("L")
    inside, outside = (seen.getpixel((seen.width * x // 10, seen.height // 2)) for x in (5, 1))
    assert inside - outside > 60
