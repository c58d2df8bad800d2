"""Sort by what a vision model answers: each picture is asked about once for a prompt and a model, within a budget."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lib.errors import UsageError
from lib.models.vlm import SCHEMA_VERSION
from lib.quality.measure import Measure
from lib.sort.criteria import Criterion, Label
from lib.work.stream import Parallelism

if TYPE_CHECKING:
    from lib.work import Result

log = logging.getLogger("gleaner.models")

PROMPTS = Path(__file__).parents[2] / "models" / "prompts"
BUILT_IN = "keep-1"
LONG_SIDE = 768  # pixels; what services reduce to themselves, and a tenth of a photograph's bytes
JPEG_QUALITY = 85
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Vlm(Criterion):
    """`prompt` is the whole question. At most `budget` pictures are asked about in a run; None for all of them."""

    url: str
    model: str
    prompt: str
    key: str = ""
    min_score: float = 0.6
    budget: int | None = None
    workers: int = 4
    timeout: float = 120.0

    name = "vlm"

    @property
    def metric(self) -> str:
        return f"vlm {self.model}"

    @property
    def keys(self) -> list[tuple[str, str]]:
        digest = hashlib.sha256(self.prompt.encode()).hexdigest()[:12]
        return [(self.metric, f"{SCHEMA_VERSION}-{digest}-{LONG_SIDE}")]

    def preflight(self) -> None:
        """Names the host that will see the pictures."""
        address = urlsplit(self.url)
        if self.budget == 0:
            return
        where = "this machine" if address.hostname in LOCAL else "NOT this machine"
        most = "all pictures" if self.budget is None else f"at most {self.budget} pictures"
        log.warning("%s (%s) will see %s that it has not judged yet", address.netloc.rpartition("@")[2], where, most)

    def measure_all(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        """Asks about several pictures at once; the answers come as they come."""
        from lib.models.vlm import Client
        from lib.work import Result

        client = Client(self.url, self.model, self.key, self.timeout)
        loop = asyncio.new_event_loop()
        open_tasks: dict[Any, Path] = {}
        left = self.budget
        try:
            for path in paths:
                if left == 0:
                    yield Result(path, {self.metric: Measure(None, "not_asked: the budget is used up")}, "")
                    continue
                left = None if left is None else left - 1
                open_tasks[loop.create_task(self._ask(client, path))] = path
                while len(open_tasks) >= self.workers:
                    yield from self._finished(loop, open_tasks)
            while open_tasks:
                yield from self._finished(loop, open_tasks)
        finally:
            loop.run_until_complete(_end(open_tasks, client))
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    def label(self, measure: Measure) -> Label | None:
        keep = bool(measure.detail.get("keep")) and (measure.value or 0.0) >= self.min_score
        tags = ", ".join(measure.detail.get("tags", ()))
        words = f"{measure.reason} [{tags}]" if tags else measure.reason
        return Label("keep" if keep else "drop", measure.value, words)

    def buckets(self) -> list[tuple[str, str]]:
        return [("keep", f"the model keeps it with a score of at least {self.min_score:g}"), ("drop", "all others")]

    def _finished(self, loop: Any, open_tasks: dict[Any, Path]) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        from lib.work import Result

        done, _ = loop.run_until_complete(asyncio.wait(open_tasks, return_when=asyncio.FIRST_COMPLETED))
        for task in done:
            path = open_tasks.pop(task)
            yield Result(path, {self.metric: task.result()}, "")  # what ends the run is raised here

    async def _ask(self, client: Any, path: Path) -> Measure:
        from lib.images.decode import DecodeError

        try:
            uri, measure = await asyncio.to_thread(_as_sent, path)
        except DecodeError as error:
            return Measure(None, error.reason)
        asked = await client.ask(self.prompt, uri)
        if asked.verdict is None:
            return replace(measure, value=None, reason=asked.reason)
        verdict = asked.verdict
        detail = {"keep": verdict.keep, "tags": list(verdict.tags), "tokens": asked.tokens}
        return replace(measure, value=verdict.score, reason=verdict.reason, detail=detail)


async def _end(tasks: Iterable[Any], client: Any) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def _as_sent(path: Path) -> tuple[str, Measure]:
    """The picture as it is sent, a data URI of a small JPEG without any of the file's metadata, and its real size."""
    from PIL import Image

    from lib.images.decode import decode

    picture = decode(path, long_side=LONG_SIDE)
    buffer = io.BytesIO()
    Image.fromarray(picture.rgb).save(buffer, "JPEG", quality=JPEG_QUALITY)
    width, height = picture.header.upright_size
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return uri, Measure(None, "", width, height, picture.header.format)


def host_of(url: str) -> str:
    """The name of the host in an address. Raises UsageError for what is none."""
    try:
        address = urlsplit(url)
        fits = address.scheme in ("http", "https") and address.hostname and (address.port or 1) > 0
    except ValueError:  # a broken bracket, or a port that there is not
        fits = False
    if not fits or any(letter.isspace() for letter in url):
        raise UsageError(f"--vlm-url {url!r} is no address; it looks like http://localhost:11434/v1.")
    return address.hostname or ""


def key_for(host: str, variable: str | None) -> str:
    """The key from the environment. OpenAI's goes to OpenAI alone unless it is named: no other host is to see it."""
    if variable is None:
        return os.environ.get("OPENAI_API_KEY", "") if host == "api.openai.com" else ""
    if variable not in os.environ:
        raise UsageError(f"the environment variable {variable} of --vlm-key-env is not set; export the key in it.")
    return os.environ[variable]


def read_prompt(file: Path | None, subject: str | None) -> str:
    """The question: a file, or the built-in one; `{subject}` in it is replaced."""
    path = file or PROMPTS / f"{BUILT_IN}.txt"
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as text ({error}); give a file with a prompt.") from error
    if "{subject}" in text and not subject:
        raise UsageError("say what the dataset is about with --subject; the prompt asks for it.")
    return text.replace("{subject}", subject or "").strip()
