"""The outcome of one item of work: its answer, or a failure as a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lib.errors import GleanerError, broken_installation

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


_INSTALLATION = ("ModuleNotFoundError", "ImportError")


def result_of(item: T, value: R | None, error: str) -> Result[T, R]:
    """Returns the result of an item. Raises GleanerError for a missing module: no item is to blame for that."""
    if error.partition(":")[0] in _INSTALLATION:
        raise GleanerError(broken_installation(error))
    return Result(item, value, error)


def attempt(work: Callable[[Any], Any], item: Any) -> Answer:
    """Does one item's work; an exception becomes its reason. Ctrl-C and SystemExit are not the item's fault."""
    try:
        return work(item), ""
    except Exception as error:  # any failure of one item is a value, whatever library it came from
        return None, f"{OUT_OF_MEMORY}: {error}"[:ERROR_LENGTH] if lacks_memory(error) else describe(error)


def lacks_memory(error: BaseException) -> bool:
    """True for an error of a process that got no more memory: a library that does not fit cannot be imported either."""
    refused = isinstance(error, ImportError) and ("failed to map" in str(error) or "allocate" in str(error))
    return refused or isinstance(error, MemoryError)


def describe(error: BaseException) -> str:
    """`<ExceptionName>: message` on one line, cut to ERROR_LENGTH characters."""
    text = " ".join(str(error).split())
    return (f"{type(error).__name__}: {text}" if text else type(error).__name__)[:ERROR_LENGTH]
