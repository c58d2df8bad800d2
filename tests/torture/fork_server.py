"""A process that has loaded what the steps need and forks a run for every job: a run then costs a tenth of a second.

`ForkServer` starts it; started as a program it reads jobs from stdin and answers on stdout, one JSON object a line.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import json
import os
import pkgutil
import re
import select
import signal
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
PATIENCE = 240.0
CRASHED = 70  # the exit code of a run that ended in a traceback
AS_ASKED = "as asked"  # what is typed is the number that a step asks for

for wanted in (HERE.parent, HERE.parents[1], ROOT):
    if str(wanted) not in sys.path:
        sys.path.insert(0, str(wanted))


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code or minus its signal, what it said, and the points that it reached."""

    code: int
    out: str
    err: str
    points: tuple[str, ...] = ()

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    def __str__(self) -> str:
        return f"exit {self.code}; {self.err.strip()[-1500:] or self.out.strip()[-500:]}"


class ForkServer:
    """Runs steps, one at a time or beside each other, in processes forked from a warm one."""

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="torture-")
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(HERE.parent / "hook")  # for the steps' workers
        for name in [name for name in environment if name.startswith("GLEANER_")]:
            del environment[name]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.number = 0
        self.prepared: dict[str, Any] = {}  # what torture.py has prepared
        self.tally: Counter[str] = Counter()  # disturbances by kind

    def run(
        self, step: str, arguments: Sequence[object], *, kind: str = "", at: int = 0, root: Path | None = None,
        answer: str = "",
    ) -> Ended:  # fmt: skip
        """Runs a step to its end. With `kind` it is disturbed at point `at` below `root`, see points.py."""
        return self.run_together([(step, arguments)], kind=kind, at=at, root=root, answer=answer)[0]

    def run_together(
        self, commands: Sequence[tuple[str, Sequence[object]]], *, kind: str = "", at: int = 0,
        root: Path | None = None, answer: str = "",
    ) -> list[Ended]:  # fmt: skip
        """Starts every command at once and waits for all."""
        self.number += 1
        base = Path(self.folder.name) / str(self.number % 8)
        jobs = [
            {"step": step, "arguments": [str(word) for word in words], "base": f"{base}.{number}", "answer": answer,
             "kind": kind, "at": at, "root": str(root or "")}
            for number, (step, words) in enumerate(commands)
        ]  # fmt: skip
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()
        answer_line = self.process.stdout.readline()
        assert answer_line, "the fork server has ended"
        return [self._ended(job, code) for job, code in zip(jobs, json.loads(answer_line), strict=True)]

    def _ended(self, job: dict[str, Any], code: int) -> Ended:
        texts = []
        for suffix in (".out", ".err", ".points"):
            path = Path(job["base"] + suffix)
            texts.append(path.read_text("utf-8", "replace") if path.exists() else "")
            path.unlink(missing_ok=True)
        return Ended(code, texts[0], texts[1], tuple(line.rstrip() for line in texts[2].splitlines()))

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()
        self.folder.cleanup()


def serve() -> None:
    """Forks a run for every job of a line and answers when all have ended."""
    steps = _warm()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints while it is loaded
    for line in sys.stdin:
        children = [_fork(steps, job) for job in json.loads(line)]
        answers.write(json.dumps([_wait(child) for child in children]) + "\n")
        answers.flush()


def _warm() -> dict[str, Any]:
    """Loads the steps and all of `lib` but the models, which bring torch along."""
    import PIL.Image
    from support import STEPS, load_step

    import lib

    for found in pkgutil.walk_packages(lib.__path__, "lib."):
        if not found.name.startswith("lib.models."):
            importlib.import_module(found.name)
    PIL.Image.init()
    gc.freeze()  # a collection in a child would copy every page
    return {name: load_step(name) for name in STEPS if name != "collect"}


def _fork(steps: dict[str, Any], job: dict[str, Any]) -> int:
    child = os.fork()
    if child:
        return child
    code = CRASHED
    try:
        os.setsid()
        code = _run(steps[job["step"]], job)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)


def _run(step: Any, job: dict[str, Any]) -> int:
    base = job["base"]
    with open(base + ".in", "w+") as answer:
        answer.write(job["answer"])
        answer.seek(0)
        os.unlink(base + ".in")
        for number, name in enumerate(("", ".out", ".err")):
            taken = answer.fileno() if not number else os.open(base + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(taken, number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)  # noqa: SIM115
    sys.argv = [step.__file__, *job["arguments"]]
    if job["answer"] == AS_ASKED:
        sys.stdin = _Person(base + ".err")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if job["kind"]:
        import points

        points.install(job["kind"], job["at"], job["root"], base + ".points")
    return int(step.main())


class _Person(io.TextIOBase):
    """Types the number that a step has just asked for: after a disturbed run it is another one."""

    def __init__(self, asked: str):
        self.asked = asked

    def readline(self, size: int | None = -1, /) -> str:
        return re.findall(r"Type (\d+) to do it", Path(self.asked).read_text())[-1] + "\n"


def _wait(child: int) -> int:
    """Its exit code, or minus the signal. What it started goes with it; what hangs is killed and says so."""
    watched = os.pidfd_open(child)
    try:
        if not select.select([watched], [], [], PATIENCE)[0]:
            os.kill(child, signal.SIGABRT)
    finally:
        os.close(watched)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    return code


if __name__ == "__main__":
    serve()
