"""The outcome of one item of work: its answer, or a failure as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lib.errors import GleanerError, broken_installation, is_broken_installation

T = TypeVar("T")
R = TypeVar("R")

WORKER_KILLED = "worker_killed"
OUT_OF_MEMORY = "out_of_memory"
ERROR_LENGTH = 300  # characters of an exception's text that are kept: enough to read, small enough for a row

Answer = tuple[Any, str]  # (value, error) of one item, as workers send it back


@dataclass(frozen=True)
class Result(Generic[T, R]):
    """The result of one item: `value` when `error` is empty, else None and a short reason.

    The reason is `worker_killed` for an item whose worker process died twice under it, `out_of_memory: message` where
    memory ran out, or `<ExceptionName>: message` for any other exception raised by the work.
    """

    item: T
    value: R | None
    error: str

    @property
    def ok(self) -> bool:
        return not self.error


_INSTALLATION = "the installation: "  # how the error of a module begins that is missing or broken


def result_of(item: T, value: R | None, error: str) -> Result[T, R]:
    """Returns the result of an item. Raises GleanerError for a missing module: no item is to blame for that."""
    demand_sound_installation(error)
    return Result(item, value, error)


def demand_sound_installation(error: str) -> None:
    """Raises GleanerError where what `failure` says is of a module that is missing or broken."""
    if error.startswith(_INSTALLATION):
        raise GleanerError(broken_installation(error.removeprefix(_INSTALLATION)))


def attempt(work: Callable[[Any], Any], item: Any) -> Answer:
    """Does one item's work; an exception becomes its reason. Ctrl-C and SystemExit are not the item's fault."""
    try:
        return work(item), ""
    except Exception as error:  # any failure of one item is a value, whatever library it came from
        return None, failure(error)


def failure(error: Exception) -> str:
    """`describe`, marked where no item is to blame, and `out_of_memory: message` where memory ran out."""
    if is_broken_installation(error):
        return f"{_INSTALLATION}{describe(error)}"
    if isinstance(error, MemoryError | ImportError):
        return f"{OUT_OF_MEMORY}: {describe(error)}"[:ERROR_LENGTH]
    return describe(error)


def describe(error: BaseException) -> str:
    """`<ExceptionName>: message` on one line, cut to ERROR_LENGTH characters."""
    text = " ".join(str(error).split())
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:ERROR_LENGTH]
