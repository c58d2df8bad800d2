"""How large a picture really is among its copies: an enlargement counts for no more than what it was made from."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from threading import Lock

from lib.db.hashes import HashRow, known_flags
from lib.decode import DecodeError
from lib.dedup.fingerprints import Fingerprints
from lib.hashing import buffers, enlarged
from lib.hashing.enlarged import LEAST_STEP, Middle, is_enlarged, read_middle

ALGORITHM = f"enlarged {enlarged.VERSION} {buffers.VERSION}"
KIND = "enlarged from "  # and the smaller copy's content
PER_SIZE = 4  # copies of one size that a larger one is compared with
MOST = 8  # copies that one picture is compared with
LOOKED_AT = 64  # smaller pictures that may turn out to be such copies
HELD = 64  # middles in memory, 64 KB each


class RealSizes:
    """Which contents are enlargements of which; asked for pairs, each compared once and remembered.

    Threads may ask at once.
    """

    def __init__(self, prints: Fingerprints, contents: Iterable[str]):
        """With what is remembered of the contents."""
        self.prints = prints
        self._answers = known_flags(prints.db, sorted(contents), KIND, ALGORITHM)
        self._middles: OrderedDict[str, Middle | None] = OrderedDict()
        self._lock = Lock()

    def pixels(
        self,
        content: str,
        pixels: int,
        copies: Iterable[tuple[str, int]],
        real: Callable[[str], int],
        same: Callable[[str], bool],
    ) -> int:
        """Pixels of a content, or of the copy that it was made from.

        `copies` are (content, pixels) of what may be the same picture, likeliest first. `real` gives the same of one of
        these: an enlargement of an enlargement counts for what the first was made from. `same` tells whether one shows
        the same picture at all; an edited one is no enlargement of another, and that is known without a full decode.
        Only smaller copies matter, so the answer depends on which files there are and on nothing else.
        """
        tried: Counter[int] = Counter()
        smaller = ((copy, size) for copy, size in copies if size * LEAST_STEP**2 <= pixels)
        for copy, size in islice(smaller, LOOKED_AT):
            if tried[size] >= PER_SIZE or tried.total() >= MOST or not same(copy):
                continue
            tried[size] += 1
            if self.is_enlarged(copy, content):
                return min(size, real(copy))
        return pixels

    def is_enlarged(self, small: str, large: str) -> bool:
        """Whether `large` shows no more than `small`; False where one of them cannot be decoded."""
        question = large, f"{KIND}{small}"
        if question not in self._answers:
            answer = self._answers[question] = self._compare(small, large)
            self.prints.note(HashRow(*question, 1, b"\1" if answer else b"\0", ALGORITHM))
        return self._answers[question]

    def _compare(self, small: str, large: str) -> bool:
        one, other = self._middle(small), self._middle(large)
        return one is not None and other is not None and is_enlarged(one, other)

    def _middle(self, content: str) -> Middle | None:
        with self._lock:
            if content in self._middles:
                self._middles.move_to_end(content)
                return self._middles[content]
        try:
            middle = self.prints.decoding(read_middle, content)[0]
        except DecodeError:
            middle = None
        with self._lock:
            self._middles[content] = middle
            if len(self._middles) > HELD:
                self._middles.popitem(last=False)
        return middle
