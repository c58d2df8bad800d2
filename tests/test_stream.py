"""The bounded stream, with real processes that are really killed."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import PATIENCE, wait_until

from lib.errors import GleanerError, UsageError
from lib.work import WORKER_KILLED, Result
from lib.work.stream import in_threads, stream

ROOT = Path(__file__).resolve().parents[1]
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and process ids are POSIX here")
PREPARED: list[str] = []


def double(number: int) -> int:
    return number * 2


def prepare() -> None:
    PREPARED.append("yes")


def refuse_to_prepare() -> None:
    raise ValueError("no weights in models/")


def end_at_once() -> None:
    os._exit(7)


def prepared_double(number: int) -> tuple[list[str], int]:
    return PREPARED, number * 2


def fail_on_three(number: int) -> int:
    if number == 3:
        raise ValueError("three\nis not allowed")
    return number


def die_on_seven(number: int) -> int:
    if number == 7:
        os._exit(9)
    return number


def die_once(path: str) -> str:
    """Kill this process the first time; the marker makes the second time succeed."""
    if path.endswith("mark") and not os.path.exists(path):
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return path


def slow_when_small(number: int) -> int:
    time.sleep(0.2 if number < 2 else 0)
    return number


def unpicklable_on_two(number: int) -> object:
    return threading.Lock() if number == 2 else number


def note_and_sleep(folder: str) -> None:
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)


def sleep_in_folder(folder: str) -> None:
    if folder:
        note_and_sleep(folder)


def interrupt_self(number: int) -> int:
    os.kill(os.getpid(), signal.SIGINT)
    return number


def alive(pid: int) -> bool:
    """Whether the process still runs; one that ended and was not reaped yet does not count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ended just now, or this system has no such files
        return not Path("/proc/self/stat").exists()


EVERYWHERE = [("local", 1), ("local", 2), ("threads", 2), ("processes", 1)]


@pytest.mark.parametrize(("executor", "workers"), EVERYWHERE)
def test_every_item_comes_back_once(executor: str, workers: int) -> None:
    outcomes = list(stream(double, range(50), executor=executor, workers=workers, chunk=7))
    assert sorted((one.item, one.value) for one in outcomes) == [(n, 2 * n) for n in range(50)]
    assert all(one.ok and one.error == "" for one in outcomes)


@pytest.mark.parametrize(("executor", "workers"), EVERYWHERE)
def test_an_exception_is_the_outcome_of_its_item_alone(executor: str, workers: int) -> None:
    outcomes = {one.item: one for one in stream(fail_on_three, range(6), executor=executor, workers=workers, chunk=4)}
    assert outcomes[3] == Result(3, None, "ValueError: three is not allowed")
    assert [n for n, one in sorted(outcomes.items()) if one.ok] == [0, 1, 2, 4, 5]


@pytest.mark.parametrize(("executor", "workers"), EVERYWHERE)
def test_ordered_keeps_the_order_of_the_items(executor: str, workers: int) -> None:
    outcomes = stream(slow_when_small, range(12), executor=executor, workers=workers, chunk=1, ordered=True)
    assert [one.item for one in outcomes] == list(range(12))


@pytest.mark.parametrize(("executor", "workers"), EVERYWHERE)
def test_an_endless_source_is_read_only_as_far_as_the_bound(executor: str, workers: int) -> None:
    read = itertools.count()

    def source():
        while True:
            yield next(read)

    outcomes = stream(double, source(), executor=executor, workers=workers, chunk=3, in_flight=4)
    for taken, _ in enumerate(outcomes):
        seen = int(repr(read)[6:-1])
        assert seen - taken <= 4 * 3, "more was read ahead than four chunks of three"
        if taken == 100:
            break


@pytest.mark.parametrize(("executor", "workers"), EVERYWHERE)
def test_nothing_to_do_is_fine(executor: str, workers: int) -> None:
    assert list(stream(double, [], executor=executor, workers=workers)) == []


@pytest.mark.parametrize(("executor", "workers"), EVERYWHERE)
def test_a_source_that_fails_ends_the_stream_with_its_own_error(executor: str, workers: int) -> None:
    def source():
        yield from range(5)
        raise LookupError("the database went away")

    with pytest.raises(LookupError, match="went away"):
        list(stream(double, source(), executor=executor, workers=workers, chunk=2))


@pytest.mark.parametrize("workers", [1, 2])
def test_init_runs_before_the_first_item(workers: int) -> None:
    PREPARED.clear()
    for one in stream(prepared_double, range(8), workers=workers, chunk=1, init=prepare):
        assert one.value == (["yes"], one.item * 2)


def test_an_item_that_kills_its_worker_ends_alone() -> None:
    outcomes = {one.item: one for one in stream(die_on_seven, range(40), workers=2, chunk=8)}
    assert outcomes[7] == Result(7, None, WORKER_KILLED)
    assert sorted(n for n, one in outcomes.items() if one.ok) == [n for n in range(40) if n != 7]


def test_items_that_kill_workers_one_after_the_other_all_end_alone() -> None:
    outcomes = list(stream(die_on_seven, [7, 7, 1, 7], workers=2, chunk=1, ordered=True))
    assert [one.error for one in outcomes] == [WORKER_KILLED, WORKER_KILLED, "", WORKER_KILLED]


@POSIX
def test_a_worker_killed_from_outside_costs_no_item(tmp_path: Path) -> None:
    items = [str(tmp_path / f"{n}.{'mark' if n in (2, 11) else 'plain'}") for n in range(20)]
    outcomes = list(stream(die_once, items, workers=2, chunk=4, ordered=True))
    assert [one.value for one in outcomes] == items


def test_a_value_that_cannot_travel_is_that_items_error() -> None:
    outcomes = {one.item: one for one in stream(unpicklable_on_two, range(4), workers=2, chunk=4)}
    assert outcomes[2].error.startswith("TypeError: ")
    assert [n for n, one in sorted(outcomes.items()) if one.ok] == [0, 1, 3]


@pytest.mark.parametrize(
    ("init", "sentence"),
    [(refuse_to_prepare, r"no weights in models/\); mend"), (end_at_once, "--workers 1 to see the cause")],
)
def test_workers_that_cannot_start_are_one_sentence(init, sentence: str) -> None:
    with pytest.raises(GleanerError, match=sentence):
        list(stream(double, range(9), workers=2, init=init))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"executor": "spark"}, "choose one of local, threads, processes, ray"),
        ({"chunk": 0}, "at least 1"),
        ({"in_flight": 0}, "at least 1"),
    ],
)
def test_senseless_options_are_refused_before_anything_is_read(options: dict, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        stream(double, pytest.fail, **options)  # type: ignore[arg-type]


@POSIX
def test_leaving_early_ends_the_workers(tmp_path: Path) -> None:
    items = itertools.chain([""], itertools.repeat(str(tmp_path)))
    for one in stream(sleep_in_folder, items, workers=2, chunk=1):
        assert one.item == ""
        wait_until(lambda: any(tmp_path.iterdir()), "a worker is busy with ten minutes of work")
        break
    del one
    assert not multiprocessing.active_children()
    assert not [p.name for p in tmp_path.iterdir() if alive(int(p.name))]


@POSIX
def test_workers_leave_ctrl_c_to_the_parent() -> None:
    assert [one.value for one in stream(interrupt_self, range(6), workers=2, chunk=2, ordered=True)] == list(range(6))


PARENT = """
import itertools, sys
sys.path[:0] = [{root!r}, {tests!r}]
from lib.work.stream import stream
from test_stream import note_and_sleep
if __name__ == "__main__":
    try:
        for _ in stream(note_and_sleep, itertools.repeat({folder!r}), workers=2, chunk=1):
            pass
    except KeyboardInterrupt:
        sys.exit(130)
"""


@POSIX
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_no_worker_outlives_its_parent(tmp_path: Path, sign: signal.Signals) -> None:
    noted = tmp_path / "noted"
    noted.mkdir()
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(root=str(ROOT), tests=str(ROOT / "tests"), folder=str(noted)))
    parent = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: len(list(noted.iterdir())) == 2, "both workers are busy")
        # A terminal sends Ctrl-C to the whole group; the parent alone may react.
        (os.killpg if sign == signal.SIGINT else os.kill)(parent.pid, sign)
        assert parent.communicate(timeout=PATIENCE)[1] == ""
        assert parent.returncode == (130 if sign == signal.SIGINT else -sign)
        wait_until(lambda: not any(alive(int(p.name)) for p in noted.iterdir()), "the workers are gone")
    finally:
        parent.kill()


def test_ray_gives_the_same_outcomes(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a busy machine keeps Ray from starting in the time that it gives itself."""
    ray = pytest.importorskip("ray", reason="the package ray is not installed")
    begin, late = ray.init, [LATE]
    monkeypatch.setattr(ray, "init", lambda **options: refuse(late.pop()) if late else begin(**options))
    outcomes = {one.item: one for one in stream(die_on_seven, range(20), executor="ray", workers=2, chunk=4)}
    assert outcomes[7] == Result(7, None, WORKER_KILLED)
    assert sorted(n for n, one in outcomes.items() if one.ok) == [n for n in range(20) if n != 7]
    assert capfd.readouterr().out == "", "stdout belongs to the step"


LATE = "The current node timed out during startup."


def refuse(sentence: str) -> None:
    raise Exception(sentence)  # what Ray raises, too


def test_a_ray_that_does_not_start_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="the package ray is not installed")
    monkeypatch.setattr(ray, "init", lambda **options: refuse(LATE))
    with pytest.raises(GleanerError, match=r"timed out during startup.\); give the machine less to do and run again"):
        list(stream(double, [1], executor="ray"))


def test_ray_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # what Python itself does for a package that cannot be imported
    with pytest.raises(GleanerError, match="pip install ray"):
        stream(double, [1], executor="ray")


def test_a_ray_cluster_that_does_not_answer_is_one_sentence() -> None:
    pytest.importorskip("ray", reason="the package ray is not installed")
    with socket.socket() as bound:  # bound and not listening: connections are refused
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(GleanerError, match="No Ray cluster answers"):
            list(stream(double, [1], executor="ray", ray_address=address))


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_answer_in_order_read_little_ahead_and_raise(workers: int):
    read: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(1000):
            read.append(number)
            yield number

    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return 60 // (30 - number)

    answers = in_threads(work, numbers(), workers)
    assert list(itertools.islice(answers, 20)) == [60 // (30 - number) for number in range(20)]
    assert len(read) <= 20 + 2 * workers
    with pytest.raises(ZeroDivisionError):
        list(answers)
    assert len(read) < 50
