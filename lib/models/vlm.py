"""One question to a vision model: retries that honour Retry-After, and answer formats to fall back to.

What is wrong with one picture is an `Asked` with a reason; what is wrong with the address, the key or the model ends
the run with one sentence, since every further picture would meet the same. Redirects are not followed: a picture goes
to the host that was named and to no other.

A refusal may be about the picture (a pixel is too small for most models) or about the way of asking (a server that
knows no JSON schema). It is about the way of asking where the error names it, or where the same picture is answered
otherwise and no other picture was answered that way; so one refused picture never costs the others their schema.

`verdict_of` reads a verdict out of what a model wrote: text in, values out. Models wrap their JSON in anything, and
think aloud before they answer.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from lib.engines.parsing import LARGEST
from lib.errors import GleanerError
from lib.text import storable
from lib.times import retry_after

BUSY = (408, 425, 429, 503, 529)  # statuses that say nothing of the picture
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
ATTEMPTS = 5
ATTEMPTS_AT_A_PICTURE = 3  # where a server answers that it failed, or works and does not come to an end
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

JPEG_QUALITY = 85
REASON_LENGTH, TAGS, TAG_LENGTH = 300, 16, 60
MOST_STARTS = 200  # braces that are tried in vain; a model that repeats itself writes a hundred thousand

# The name of the parameter in an error, not the word alone: "unsupported image format" is about the picture.
TEXT_PARTS = ("text", "output_text")
# The marks that models put around their thoughts, and the braces between them. Thoughts: <think> and its kin (DeepSeek,
# Qwen, GLM, Seed), [THINK] (Magistral), signs of Kimi and Gemma, <|begin_of_thought|>, <|START_THINKING|> (Command A),
# the end as Ollama prints it. Channels: OpenAI's harmony, where all but `final` are thoughts until the message ends.
_MARKS = re.compile(
    r"<\|channel\|>\s*(?P<channel>\w+)"
    r"|(?P<turn><\|(?:end|start|return|call)\|>)"
    r"|(?P<close></(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|cot)\s*>"
    r"|\[/THINK\]|◁/think▷|<\|end_(?:of_thought|thinking)\|>|<channel\|>|<unused95>|\.{3}done thinking\.)"
    r"|(?P<open><(?:\w+:)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflection|scratchpad|analysis|cot)\b[^<>]*>"
    r"|\[THINK\]|◁think▷|<\|(?:begin_of_thought|start_of_thought|start_thinking)\|>|<\|channel>|<unused94>)"
    r"|(?P<brace>\{)",
    re.IGNORECASE,
)
# What is left of harmony's marks where a server takes them out: "analysisThe user asks … assistantfinal{…}".
_MERGED, MERGED_FINAL = re.compile(r"\s*analysis(?=[A-Z])"), "assistantfinal"
_FORMAT_NAMED = re.compile(
    r"response.?format|json.?schema|json.?object|structured.?output|guided|grammar", re.IGNORECASE
)


class Blame(Enum):
    """The party at fault where a question got no verdict. OPEN: the picture, if the server answers others."""

    NOBODY, PICTURE, OPEN, SERVER = range(4)


@dataclass(frozen=True)
class Asked:
    """The outcome of one question: a verdict, or a short reason; with the tokens it took."""

    verdict: ModelAnswer | None
    reason: str = ""
    tokens: int = 0
    blame: Blame = Blame.NOBODY


@dataclass(frozen=True)
class Way:
    """A way of asking: one of RESPONSE_FORMATS, the parameter that bounds an answer, and whether sampling is named."""

    format: int = 0
    limit: tuple[str, int] = ("max_tokens", MOST_TOKENS)
    sampling: bool = True

    def parameters(self) -> dict[str, Any]:
        name, most = self.limit
        return {name: most, **({"temperature": 0} if self.sampling else {}), **RESPONSE_FORMATS[self.format]}

    def without(self, failure: str) -> Way | None:
        """The way that leaves out what an error names; None where it names nothing of this way."""
        if "max_tokens" in failure and self.limit[0] == "max_tokens":
            return replace(self, limit=("max_completion_tokens", MOST_TOKENS_THINKING))
        if "temperature" in failure and self.sampling:
            return replace(self, sampling=False)
        return self.plainer() if _FORMAT_NAMED.search(failure) else None

    def plainer(self) -> Way | None:
        """The way with the next format; None after the last."""
        return replace(self, format=self.format + 1) if self.format + 1 < len(RESPONSE_FORMATS) else None


@dataclass(frozen=True)
class Failure:
    """The cause of a question without an answer. `status` is that of HTTP, 0 where the connection failed."""

    status: int
    words: str
    blame: Blame
    wait: float | None = None  # seconds that the server asks for


@dataclass
class Client:
    """`url` is the base, such as http://localhost:11434/v1; `key` is sent as a bearer token where it is not empty."""

    url: str
    model: str
    key: str = field(default="", repr=False)
    timeout: float = 120.0
    way: Way = field(default_factory=Way)
    answered: bool = False  # and so is known to work, as it is asked now
    answered_at: float = 0.0  # when last, by the monotonic clock
    silences: int = 0
    quiet_until: float = 0.0
    session: aiohttp.ClientSession | None = None

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc.rpartition("@")[2]

    async def ask(self, prompt: str, image: str) -> Asked:
        """The verdict on a picture (a data URI). Raises GleanerError where no question can be answered."""
        question = _question(prompt, image)
        messages, way = [question], None
        tokens, wrong, started = 0, "", time.monotonic()
        for _ in range(2):  # asked once more where the answer is no verdict
            body = await self._complete(messages, way)
            if isinstance(body, Failure):
                if wrong:  # the first answer is what there is to say of the picture
                    break
                return Asked(None, f"no_answer: {body.words}", tokens, self._settled(body.blame, started))
            tokens += _tokens(body)
            content = content_of(body)
            if content is None:
                return Asked(None, f"no_answer: {_no_message(body)}", tokens, Blame.PICTURE)
            verdict = verdict_of(content)
            if isinstance(verdict, ModelAnswer):
                if way:
                    self.way = replace(self.way, limit=way.limit)
                return Asked(verdict, "", tokens)
            wrong = verdict
            if thought_too_long(body, content):
                way = replace(self.way, limit=(self.way.limit[0], MOST_TOKENS_THINKING))
            said = {"role": "assistant", "content": content[:2000]}
            messages = [question, said, {"role": "user", "content": AGAIN}]
        return Asked(None, f"no_answer: invalid, {wrong}", tokens, Blame.PICTURE)

    def _settled(self, blame: Blame, since: float) -> Blame:
        """The blame, which is the picture's where another one was answered meanwhile."""
        return Blame.PICTURE if blame is Blame.OPEN and self.answered_at > since else blame

    async def answers_others(self) -> bool:
        """True where the server answers about a plain picture of our own, so that it was the others it could not bear.

        Raises GleanerError where no question can be answered.
        """
        body = await self._complete([_question("Which colour do you see? Answer with one word.", plain_picture())])
        return not isinstance(body, Failure) and content_of(body) is not None

    async def close(self) -> None:
        if self.session:
            await self.session.close()

    async def _complete(self, messages: list[dict[str, Any]], way: Way | None = None) -> Any:
        """The answer's JSON, or a Failure. Asks in other ways where a server may not know this one."""
        way = way or self.way
        proven, first = self.answered, None
        while way is not None:
            found = await self._insist(messages, way, 1 if first else ATTEMPTS)
            if not isinstance(found, Failure):
                self.silences, self.answered_at = 0, time.monotonic()
                if not self.answered:
                    self.answered, self.way = True, way
                return found
            # All ways refused: the first one is what is said, the others may be refused for another reason.
            first = first or found
            may_differ = found.status in (400, 422, 500, 501)
            way = (way.without(found.words) or (None if proven else way.plainer())) if may_differ else None
        assert first is not None
        return await self._given_up(first)

    async def _insist(self, messages: list[dict[str, Any]], way: Way, attempts: int) -> Any:
        """Asks in one way, again where that may help; the answer's JSON, or a Failure."""
        for attempt in range(1, attempts + 1):
            await asyncio.sleep(max(0.0, self.quiet_until - time.monotonic()))
            status, after, text = await self._post({"messages": messages} | way.parameters())
            found = _read(status, text)
            if not isinstance(found, Failure):
                return found
            self._refuse_for_good(found, text)
            at_fault = found.blame is Blame.OPEN
            if status not in (*RETRIED, 0) or attempt >= min(attempts, ATTEMPTS_AT_A_PICTURE if at_fault else attempts):
                return found
            wait = after if after is not None else random.uniform(0, min(MOST_WAIT, FIRST_WAIT * 2**attempt))
            if wait > LONGEST_WAIT:
                return replace(found, words=f"{found.words}, asks to wait {wait:.0f} s", blame=Blame.SERVER, wait=wait)
            if after is not None:
                self.quiet_until = max(self.quiet_until, time.monotonic() + wait)
            await asyncio.sleep(wait)
        return found

    async def _given_up(self, failure: Failure) -> Failure:
        """The failure, unless it means that no other picture would be answered."""
        words = failure.words
        if not self.answered and words.startswith("unreachable"):
            raise GleanerError(f"{self.host} cannot be reached ({words}); start the server or correct --vlm-url.")
        if failure.blame is Blame.SERVER and failure.wait is None:
            self.silences += 1
            if self.silences >= SILENCES:
                raise self.gone(words)
        return failure

    def gone(self, words: str) -> GleanerError:
        """The error for a server that answers nobody."""
        if self.answered:
            return GleanerError(f"{self.host} answers no more ({words}); what it has answered is kept, run it again.")
        return GleanerError(
            f"{self.host} answers about no picture, a plain one of our own neither ({words}); check --vlm-model."
        )

    async def _post(self, extra: dict[str, Any]) -> tuple[int, float | None, str]:
        """(status, seconds of Retry-After or None, text); status 0 where the connection failed."""
        body = {"model": self.model, **extra}
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

    def _refuse_for_good(self, failure: Failure, text: str) -> None:
        status, words = failure.status, failure.words
        if status == 402 or (status == 429 and "insufficient_quota" in text):
            raise GleanerError(f"{self.host} wants to be paid first ({words}); what it has answered is kept.")
        if status == 401 or (status == 403 and not self.answered):
            raise GleanerError(f"{self.host} refuses the key ({words}); set it in the environment, see --vlm-key-env.")
        if status == 404 and not self.answered:
            raise GleanerError(
                f"{self.host} knows no such address or model ({words}); check --vlm-url and --vlm-model."
            )
        if 300 <= status < 400:
            raise GleanerError(f"{self.host} sends pictures elsewhere ({words}); give the final address as --vlm-url.")


def _question(prompt: str, image: str) -> dict[str, Any]:
    content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": image}}]
    return {"role": "user", "content": content}


@lru_cache(maxsize=1)
def plain_picture() -> str:
    """A picture that every vision model can take, as a data URI: a red disc on white, 256 pixels a side."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(image).ellipse((64, 64, 192, 192), fill="red")
    return as_uri(image)


def as_uri(image: Any) -> str:
    """A picture of Pillow's as a JPEG in a data URI, without any of the file's metadata."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _read(status: int, text: str) -> Any:
    """The answer's JSON, or a Failure with who is to blame."""
    if status != 200:
        if status == 0:
            server = text.startswith("unreachable")
            return Failure(0, text, Blame.SERVER if server else Blame.OPEN)
        words = f"http_{status} {_said(text)}".strip()
        return Failure(status, words, Blame.SERVER if status in BUSY else Blame.OPEN)
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return Failure(200, "the answer is no JSON", Blame.OPEN)
    if not isinstance(body, dict) or not body.get("choices"):  # routers to many servers answer 200 with an error
        error = isinstance(body, dict) and body.get("error")
        return Failure(200, f"http_200 {_said(text)}" if error else "the answer has no message", Blame.OPEN)
    return body


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
    """The text of a chat completion; None where the answer has another shape. Parts and fields for thoughts are not
    the answer."""
    try:
        content = body["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError):
        return None
    if isinstance(content, list):  # parts, as some servers send them
        parts = (part for part in content if isinstance(part, Mapping))
        content = "".join(str(part.get("text", "")) for part in parts if part.get("type", "text") in TEXT_PARTS)
    return content if isinstance(content, str) else None


def _no_message(body: Any) -> str:
    """The reason that a chat completion gives for having no text."""
    try:
        choice = body["choices"][0]
        message = choice["message"]
        if refusal := message.get("refusal"):
            return f"the model refuses, {_line(refusal, 120)}"
        if any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking")):
            return "the model thought and did not answer"
        if choice.get("finish_reason") == "content_filter":
            return "the server's filter stopped the answer"
    except (KeyError, IndexError, TypeError, AttributeError):
        pass
    return "the answer has no message"


def thought_too_long(body: Any, content: str) -> bool:
    """True for an answer that was cut off before the model had done with thinking."""
    try:
        cut_off = body["choices"][0]["finish_reason"] == "length"
    except (KeyError, IndexError, TypeError):
        return False
    return cut_off and (not content.strip() or _MARKS.search(content) is not None)


def verdict_of(text: str) -> ModelAnswer | str:
    """The verdict in a text, or what is wrong with it.

    Only what stands outside of thoughts counts, and of that the last complete JSON object with a decision: models
    quote the form, try an answer and correct themselves. Where the last one is wrong, no earlier one is taken for it.
    """
    found = list(_objects(text))
    answers = [one for one in found if "decision" in one] or found
    return _checked(answers[-1]) if answers else "no JSON object"


def _objects(text: str) -> list[dict[str, Any]]:
    """The complete JSON objects outside of thoughts, the outermost ones, in their order."""
    if _MERGED.match(text):
        text = text.rpartition(MERGED_FINAL)[2] if MERGED_FINAL in text else ""
    decoder = json.JSONDecoder(strict=False)  # a line break within a text is what models write
    found: list[dict[str, Any]] = []
    depth, at, failures = 0, 0, 0
    while (mark := _MARKS.search(text, at)) and failures < MOST_STARTS:
        at = mark.end()
        kind = mark.lastgroup
        if kind == "channel":
            depth = 0 if mark["channel"].lower() == "final" else 1
        elif kind == "turn":
            depth = 0
        elif kind == "open":
            depth += 1
        elif kind == "close":
            if not depth:  # the beginning mark stood in the prompt: all before was a thought
                found.clear()
            depth = max(0, depth - 1)
        elif not depth:
            one, at = _object_at(decoder, text, mark.start())
            if one is None:
                failures += 1
            else:
                found.append(one)
    return found


def _object_at(decoder: json.JSONDecoder, text: str, start: int) -> tuple[dict[str, Any] | None, int]:
    """(the object that begins there, its end); None for what is none. One that breaks off has no end: what it holds
    is a part of it, and no answer."""
    try:
        one, end = decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        broken_off = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string")
        return None, len(text) if broken_off else start + 1
    except (ValueError, RecursionError):
        return None, start + 1
    return one, end


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
