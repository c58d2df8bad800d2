"""Sort by what a model sees: the objects that a detector finds, or the answer of a vision model to a question.

A vision model is asked about each picture once for a prompt and a model, within a budget.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lib.errors import UsageError
from lib.models.vlm import SCHEMA_VERSION, SILENCES, Blame, Client, as_uri
from lib.models.weights import WeightsFolder
from lib.quality.measure import Measure
from lib.sort.criteria import Criterion, Label
from lib.work import Result
from lib.work.stream import Parallelism

if TYPE_CHECKING:
    from lib.models.detector import Detector

log = logging.getLogger("gleaner.models")

PROMPTS = Path(__file__).parents[2] / "models" / "prompts"
BUILT_IN = "keep-1"
LONG_SIDE = 768  # pixels; what services reduce to themselves, and a tenth of a photograph's bytes
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Vlm(Criterion):
    """`prompt` is the whole question. At most `budget` pictures are asked about in a run; None for all of them.

    A picture that the server would not answer about, while it answered about others, is let be after `tries` runs.
    """

    url: str
    model: str
    prompt: str
    key: str = ""
    min_score: float = 0.6
    budget: int | None = None
    workers: int = 4
    timeout: float = 120.0
    tries: int = 3

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
        client = Client(self.url, self.model, self.key, self.timeout)
        loop = asyncio.new_event_loop()
        doubtful = _Doubtful(client, loop)
        open_tasks: dict[Any, Path] = {}
        left = self.budget
        try:
            for path in paths:
                if left == 0:
                    yield self._result(path, Measure(None, "not_asked: the budget is used up"))
                    continue
                left = None if left is None else left - 1
                open_tasks[loop.create_task(self._ask(client, path))] = path
                while len(open_tasks) >= self.workers:
                    yield from self._finished(loop, open_tasks, doubtful)
            while open_tasks:
                yield from self._finished(loop, open_tasks, doubtful)
            yield from (self._result(*one) for one in doubtful.judged())
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

    def _result(self, path: Path, measure: Measure) -> Result[Path, Mapping[str, Measure]]:
        return Result(path, {self.metric: measure}, "")

    def _finished(
        self, loop: Any, open_tasks: dict[Any, Path], doubtful: _Doubtful
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        done, _ = loop.run_until_complete(asyncio.wait(open_tasks, return_when=asyncio.FIRST_COMPLETED))
        for task in done:
            path = open_tasks.pop(task)
            measure, blame = task.result()  # what ends the run is raised here
            yield from (self._result(*one) for one in doubtful.sort_out(path, measure, blame))

    async def _ask(self, client: Client, path: Path) -> tuple[Measure, Blame | None]:
        """The measure of a picture and who is to blame where it has no verdict; None where nobody was asked."""
        from lib.images.decode import DecodeError

        try:
            uri, measure = await asyncio.to_thread(_as_sent, path)
        except DecodeError as error:
            return Measure(None, error.reason), None
        asked = await client.ask(self.prompt, uri)
        if (answer := asked.verdict) is None:
            return replace(measure, value=None, reason=asked.reason), asked.blame
        detail = {"keep": answer.keep, "tags": list(answer.tags), "tokens": asked.tokens}
        return replace(measure, value=answer.score, reason=answer.reason, detail=detail), asked.blame


@dataclass
class _Doubtful:
    """Pictures that a server would not answer about, until it is known whether it answers about any.

    Where it does, the refusal is a try of the picture's; a server that is down is no picture's fault.
    """

    client: Client
    loop: Any
    waiting: list[tuple[Path, Measure]] = field(default_factory=list)

    def sort_out(self, path: Path, measure: Measure, blame: Blame | None) -> Iterator[tuple[Path, Measure]]:
        """Yields the outcomes that are certain after this one. Raises GleanerError where the server has gone."""
        if blame is Blame.OPEN:
            self.waiting.append((path, measure))
            if len(self.waiting) >= SILENCES:
                yield from self.judged(go_on=False)
            return
        if blame in (Blame.NOBODY, Blame.PICTURE):
            yield from self._told(tried=True)
        yield path, replace(measure, tries=1) if blame is Blame.PICTURE else measure

    def judged(self, *, go_on: bool = True) -> Iterator[tuple[Path, Measure]]:
        """All that wait, after the server was asked about a plain picture."""
        if self.waiting:
            words = self.waiting[-1][1].reason.removeprefix("no_answer: ")
            answers = self.loop.run_until_complete(self.client.answers_others())
            yield from self._told(tried=answers)
            if not answers and not go_on:
                raise self.client.gone(words)

    def _told(self, *, tried: bool) -> Iterator[tuple[Path, Measure]]:
        while self.waiting:
            path, measure = self.waiting.pop(0)
            yield path, replace(measure, tries=int(tried))


async def _end(tasks: Iterable[Any], client: Any) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.close()


def _as_sent(path: Path) -> tuple[str, Measure]:
    """The picture as it is sent, a data URI of a small JPEG, and its real size."""
    from PIL import Image

    from lib.images.decode import decode

    picture = decode(path, long_side=LONG_SIDE, background=None)
    width, height = picture.header.upright_size
    return as_uri(Image.fromarray(picture.rgb)), Measure(None, "", width, height, picture.header.format)


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


@dataclass
class Objects(Criterion):
    """`classes` are the detector's own names, all of them where none is given; `most` None is without bound."""

    detector: str
    place: WeightsFolder
    device: str = "auto"
    classes: Sequence[str] = ()
    least: int = 1
    most: int | None = None
    confidence: float = 0.5
    loaded: list[Detector] = field(default_factory=list)

    name = "objects"

    @property
    def net(self) -> Detector:
        if not self.loaded:
            from lib.models.detector import load_detector

            self.loaded.append(load_detector(self.detector, self.place, self.device))
        return self.loaded[0]

    @property
    def metric(self) -> str:
        return f"objects {self.detector}"

    @property
    def keys(self) -> list[tuple[str, str]]:
        return [(self.metric, self.net.version)]

    def preflight(self) -> None:
        """Loads the model and knows its classes. Raises MissingWeights, UsageError."""
        from lib.models.detector import check_classes

        check_classes(self.classes, self.net.classes)

    def measure_all(
        self, paths: Iterable[Path], missing: Sequence[str], spread: Parallelism
    ) -> Iterator[Result[Path, Mapping[str, Measure]]]:
        from lib.models.batches import BatchPipeline

        for outcome in BatchPipeline(self.net, self.net.looking(), spread).outcomes(paths):
            measure = Measure(None, outcome.error)
            if outcome.value is not None:
                seen, found = outcome.value
                detail = {"found": [list(row) for row in found]}
                measure = Measure(float(len(found)), "", seen.width, seen.height, seen.format, detail)
            yield Result(outcome.item, {self.metric: measure}, "")

    def label(self, measure: Measure) -> Label | None:
        rows = [row for row in measure.detail.get("found", ()) if row[1] >= self.confidence]
        counts = Counter(row[0] for row in rows)
        wanted = sum(count for name, count in counts.items() if not self.classes or name in self.classes)
        keep = wanted >= self.least and (self.most is None or wanted <= self.most)
        words = ", ".join(f"{count} {name}" for name, count in counts.most_common(8)) or "nothing found"
        return Label("keep" if keep else "drop", float(wanted), words)

    def buckets(self) -> list[tuple[str, str]]:
        what = " or ".join(self.classes) or "any object"
        bound = "or more" if self.most is None else f"to {self.most}"
        return [("keep", f"{self.least} {bound} of {what}, sure by {self.confidence:g}"), ("drop", "all others")]
