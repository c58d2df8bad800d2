"""One question to a vision model: retries that honour Retry-After, and answer formats to fall back to.

What is wrong with one picture is an `Asked` with a reason; what is wrong with the address, the key or the model ends
the run with one sentence, since every further picture would meet the same. Redirects are not followed: a picture goes
to the host that was named and to no other.

`verdict_of` reads a verdict out of what a model wrote: text in, values out. Models wrap their JSON in anything.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from lib.engines.parsing import LARGEST
from lib.errors import GleanerError
from lib.text import storable
from lib.times import retry_after

RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
ATTEMPTS = 5
LONGEST_WAIT = 120.0  # seconds; a server that asks for more is asked again by the next run
FIRST_WAIT, MOST_WAIT = 1.0, 30.0
MOST_BYTES = 1_000_000  # of an answer
MOST_TOKENS = 400
MOST_TOKENS_THINKING = 4000  # of models that count what they think and know `max_completion_tokens` only
SILENCES = 12  # pictures in a row that a server answers with nothing but failures: it has gone

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "decision": {"type": "string", "enum": ["keep", "reject"]},
        "score": {"type": "number"},
        "reason": {"type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["decision", "score", "reason", "tags"],
    "additionalProperties": False,
}

RESPONSE_FORMATS: tuple[dict[str, Any], ...] = (
    {"response_format": {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA, "strict": True}}},
    {"response_format": {"type": "json_object"}},
    {},
)
AGAIN = "That was not the JSON object asked for. Answer with the JSON object alone."

SCHEMA_VERSION = "1"

REASON_LENGTH, TAGS, TAG_LENGTH = 300, 16, 60
MOST_STARTS = 200  # braces that are tried; a model that repeats itself writes a hundred thousand
_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """The outcome of one question: a verdict, or a short reason; with the tokens it took."""

    verdict: ModelAnswer | None
    reason: str = ""
    tokens: int = 0


@dataclass
class Client:
    """`url` is the base, such as http://localhost:11434/v1; `key` is sent as a bearer token where it is not empty."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    format: int = 0  # which of RESPONSE_FORMATS is asked for
    answered: bool = False
    limit: dict[str, int] = field(default_factory=lambda: {"max_tokens": MOST_TOKENS})
    sampling: dict[str, int] = field(default_factory=lambda: {"temperature": 0})
    silences: int = 0
    quiet_until: float = 0.0
    session: aiohttp.ClientSession | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    async def ask(self, prompt: str, image: str) -> Asked:
        """The verdict on a picture (a data URI). Raises GleanerError where no question can be answered."""
        content: Any = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": image}}]
        question = {"role": "user", "content": content}
        messages = [question]
        tokens, wrong = 0, ""
        for _ in range(2):  # asked once more where the answer is no verdict
            body = await self._complete(messages)
            if isinstance(body, str):
                return Asked(None, f"no_answer: {body}", tokens)
            tokens += _tokens(body)
            content = content_of(body)
            if content is None:
                return Asked(None, "no_answer: the answer has no message", tokens)
            verdict = verdict_of(content)
            if isinstance(verdict, ModelAnswer):
                return Asked(verdict, "", tokens)
            wrong = verdict
            said = {"role": "assistant", "content": content[:2000]}
            messages = [question, said, {"role": "user", "content": AGAIN}]
        return Asked(None, f"no_answer: invalid, {wrong}", tokens)

    async def close(self) -> None:
        if self.session:
            await self.session.close()

    async def _complete(self, messages: list[dict[str, Any]]) -> Any:
        """The answer's JSON, or why there is none. Falls back to the next format where a server refuses one."""
        failure, attempt = "", 0
        while attempt < ATTEMPTS:
            await asyncio.sleep(max(0.0, self.quiet_until - time.monotonic()))
            asked = self.format  # others may change it meanwhile
            status, after, text = await self._post({"messages": messages} | RESPONSE_FORMATS[asked])
            if status == 200:
                self.answered, self.silences = True, 0
                try:
                    return json.loads(text)
                except (ValueError, RecursionError):
                    return "the answer is no JSON"
            failure = text if status == 0 else f"http_{status} {_said(text)}".strip()
            if status in (400, 422) and self._asks_otherwise(failure, asked):
                continue
            self._refuse_for_good(status, failure, text)
            if status not in RETRIED and status != 0:
                return failure
            attempt += 1
            wait = after if after is not None else random.uniform(0, min(MOST_WAIT, FIRST_WAIT * 2**attempt))
            if wait > LONGEST_WAIT:
                return f"{failure}, asks to wait {wait:.0f} s"
            if attempt < ATTEMPTS:
                if after is not None:
                    self.quiet_until = max(self.quiet_until, time.monotonic() + wait)
                await asyncio.sleep(wait)
        if not self.answered and failure.startswith("unreachable"):
            raise GleanerError(f"{self.host} cannot be reached ({failure}); start the server or correct --vlm-url.")
        self.silences += 1
        if self.silences >= SILENCES:
            raise GleanerError(f"{self.host} answers no more ({failure}); what it has answered is kept, run it again.")
        return failure

    def _asks_otherwise(self, failure: str, asked: int) -> bool:
        """Changes the way of asking for what a server has just refused; False where there is no other way left."""
        if "max_tokens" in failure and "max_tokens" in self.limit:
            self.limit = {"max_completion_tokens": MOST_TOKENS_THINKING}
        elif "temperature" in failure and self.sampling:
            self.sampling = {}
        elif asked < len(RESPONSE_FORMATS) - 1:
            self.format = max(self.format, asked + 1)
        else:
            return False
        return True

    async def _post(self, extra: dict[str, Any]) -> tuple[int, float | None, str]:
        """(status, seconds of Retry-After or None, text); status 0 where the connection failed."""
        body = {"model": self.model, **self.sampling, **self.limit, **extra}
        try:
            address = f"{self.url.rstrip('/')}/chat/completions"
            async with self._open().post(address, json=body, allow_redirects=False) as answer:
                content = await answer.content.read(MOST_BYTES)
                while len(content) < MOST_BYTES and (more := await answer.content.read(MOST_BYTES - len(content))):
                    content += more
                after = _seconds(answer.headers.get("Retry-After"))
                return answer.status, after, content.decode("utf-8", "replace")
        except TimeoutError:
            return 0, None, f"timeout after {self.timeout:g} s"
        except aiohttp.ClientConnectorError as error:
            return 0, None, f"unreachable, {type(error.os_error).__name__}"
        except (aiohttp.ClientError, OSError) as error:
            return 0, None, f"connection failed, {type(error).__name__}"

    def _open(self) -> aiohttp.ClientSession:
        if self.session is None:
            headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
            self.session = aiohttp.ClientSession(
                headers=headers, timeout=aiohttp.ClientTimeout(total=self.timeout, sock_connect=20)
            )
        return self.session

    def _refuse_for_good(self, status: int, failure: str, text: str) -> None:
        if status == 402 or (status == 429 and "insufficient_quota" in text):
            raise GleanerError(f"{self.host} wants to be paid first ({failure}); what it has answered is kept.")
        if status in (401, 403):
            raise GleanerError(
                f"{self.host} refuses the key ({failure}); set it in the environment, see --vlm-key-env."
            )
        if status == 404 and not self.answered:
            raise GleanerError(
                f"{self.host} knows no such address or model ({failure}); check --vlm-url and --vlm-model."
            )
        if 300 <= status < 400:
            raise GleanerError(
                f"{self.host} sends pictures elsewhere ({failure}); give the final address as --vlm-url."
            )


def _seconds(text: str | None) -> float | None:
    """Retry-After as seconds from now: a number, or a date."""
    try:
        return max(0.0, float(text or ""))  # also a fraction, which HTTP does not know
    except ValueError:
        seconds = retry_after(text)
        return None if seconds is None else max(0.0, seconds)


def _said(text: str) -> str:
    """The error message of an answer, short."""
    try:
        found = json.loads(text)
        message = found["error"]["message"] if isinstance(found["error"], dict) else found["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = text
    try:
        return storable(" ".join(str(message).split())[:120])
    except RecursionError:  # lists in lists
        return ""


def _tokens(body: Any) -> int:
    usage = body.get("usage") if isinstance(body, dict) else None
    total = usage.get("total_tokens") if isinstance(usage, dict) else 0
    return total if isinstance(total, int) and 0 <= total <= LARGEST else 0


@dataclass(frozen=True)
class ModelAnswer:
    """`score` is 0..1: how well the picture fits."""

    keep: bool
    score: float
    reason: str
    tags: tuple[str, ...] = ()


def content_of(body: Any) -> str | None:
    """The text of a chat completion; None where the answer has another shape."""
    try:
        content = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    if isinstance(content, list):  # parts, as some servers send them
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))
    return content if isinstance(content, str) else None


def verdict_of(text: str) -> ModelAnswer | str:
    """The verdict in a text, or what is wrong with it: the first JSON object that is one counts."""
    wrong = "no JSON object"
    for found in _objects(_THINKING.sub("", text)):
        verdict = _checked(found)
        if isinstance(verdict, ModelAnswer):
            return verdict
        wrong = verdict
    return wrong


def _objects(text: str) -> Iterator[dict[str, Any]]:
    decoder, start = json.JSONDecoder(), text.find("{")
    for _ in range(MOST_STARTS):
        if start < 0:
            return
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if isinstance(found, dict):
                yield found
        start = text.find("{", end)


def _checked(found: Mapping[str, Any]) -> ModelAnswer | str:
    decision = str(found.get("decision", "")).strip().lower()
    if decision not in ("keep", "reject"):
        return f"decision is {decision[:20]!r}"
    score = found.get("score")
    if isinstance(score, str):
        try:
            score = float(score)
        except ValueError:
            score = None
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        return "score is not from 0 to 1"
    tags = found.get("tags") or []
    words = tuple(_line(tag, TAG_LENGTH) for tag in tags[:TAGS]) if isinstance(tags, list) else ()
    return ModelAnswer(decision == "keep", float(score), _line(found.get("reason", ""), REASON_LENGTH), words)


def _line(text: Any, length: int) -> str:
    try:
        said = str(text)
    except RecursionError:  # lists in lists
        said = ""
    return storable(" ".join(said.split())[:length])
