"""From what a model wrote to a verdict. Pure: text in, values out; models wrap their JSON in anything."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lib.text import storable

SCHEMA_VERSION = "1"
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
REASON_LENGTH, TAGS, TAG_LENGTH = 300, 16, 60
MOST_STARTS = 200  # braces that are tried; a model that repeats itself writes a hundred thousand
_THINKING = re.compile(r"<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)", re.DOTALL | re.IGNORECASE)


@dataclass(frozen=True)
class Verdict:
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


def verdict_of(text: str) -> Verdict | str:
    """The verdict in a text, or what is wrong with it: the first JSON object that is one counts."""
    wrong = "no JSON object"
    for found in _objects(_THINKING.sub("", text)):
        verdict = _checked(found)
        if isinstance(verdict, Verdict):
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


def _checked(found: Mapping[str, Any]) -> Verdict | str:
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
    return Verdict(decision == "keep", float(score), _line(found.get("reason", ""), REASON_LENGTH), words)


def _line(text: Any, length: int) -> str:
    try:
        said = str(text)
    except RecursionError:  # lists in lists
        said = ""
    return storable(" ".join(said.split())[:length])
