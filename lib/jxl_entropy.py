"""Entropy-coded numbers of JPEG XL, as far as its headers hold any: a colour profile, and the order of sections.

ISO/IEC 18181-1, annex C: clustered contexts, prefix codes or ANS with alias tables, hybrid integers, LZ77.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lib.media import Buffer
from lib.picture_parts import NotAPicture, TooManyParts, demand

# Four ways to write a number, of which two bits choose one: (a number that is added, bits that follow).
Choices = tuple[tuple[int, int], tuple[int, int], tuple[int, int], tuple[int, int]]

MOST_PROFILE = 1 << 18  # numbers of a colour profile; one is some microseconds of work
_PRECISION = 12
_TOTAL = 1 << _PRECISION
_FINAL_STATE = 0x130000
_RUN = 13  # in a histogram: the last number repeats
_LENGTH_ORDER = (1, 2, 3, 4, 0, 5, 17, 6, 16, 7, 8, 9, 10, 11, 12, 13, 14, 15)
# (bits, value) of the code in which the lengths of code lengths are written, by the next four bits.
_LENGTH_BITS = (2, 2, 2, 3, 2, 2, 2, 4, 2, 2, 2, 3, 2, 2, 2, 4)
_LENGTH_VALUES = (0, 4, 3, 2, 0, 4, 3, 1, 0, 4, 3, 2, 0, 4, 3, 5)


class Bits:
    """Reads numbers of some bits, the lowest first. Raises IndexError behind the end."""

    def __init__(self, data: Buffer, at: int, end: int):
        self.data, self.at, self.end = data, at * 8, end * 8

    def take(self, count: int) -> int:
        value = self.peek(count)
        self.skip(count)
        return value

    def peek(self, count: int) -> int:
        """The next bits; zeros behind the end."""
        after = min(self.at + count, self.end)
        return (int.from_bytes(self.data[self.at >> 3 : (after + 7) >> 3], "little") >> (self.at & 7)) & (
            (1 << count) - 1
        )

    def flag(self) -> bool:
        return bool(self.take(1))

    def choose(self, choices: Choices) -> int:
        base, count = choices[self.take(2)]
        return base + self.take(count)

    def u8(self) -> int:
        if not self.flag():
            return 0
        count = self.take(3)
        return (1 << count) + self.take(count)

    def u64(self) -> int:
        kind = self.take(2)
        if kind == 0:
            return 0
        if kind < 3:
            return 1 + self.take(4) if kind == 1 else 17 + self.take(8)
        value, shift = self.take(12), 12
        while self.flag():
            if shift == 60:
                return value | self.take(4) << shift
            value, shift = value | self.take(8) << shift, shift + 8
        return value

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > self.end:
            raise IndexError("the codestream breaks off")

    def align(self) -> None:
        """Goes on to the next whole byte. What is passed over has to be empty."""
        demand(not self.take(-self.at % 8), "filling that is not empty")


@dataclass(frozen=True)
class _Hybrid:
    """How a number is written as a token and some bits."""

    split: int
    high: int
    low: int

    def read(self, bits: Bits, token: int) -> int:
        if token < 1 << self.split:
            return token
        kept = self.high + self.low
        count = self.split - kept + ((token - (1 << self.split)) >> kept)
        demand(count <= 32, "a number of too many bits")
        low = token & ((1 << self.low) - 1)
        high = (token >> self.low & ((1 << self.high) - 1)) | 1 << self.high
        return ((high << count | bits.take(count)) << self.low) | low


class Decoder:
    """Reads numbers in given contexts. Raises NotAPicture for codes that cannot be, IndexError behind the end."""

    def __init__(self, bits: Bits, contexts: int, *, nested: bool = False):
        self.bits, self.state = bits, -1
        self.least = self.shortest = -1
        if bits.flag():
            demand(not nested or contexts > 2, "repeats where none may be")
            self.least = bits.choose(((224, 0), (512, 0), (4096, 0), (8, 15)))
            self.shortest = bits.choose(((3, 0), (4, 0), (5, 2), (9, 8)))
            self.repeat = _read_hybrid(bits, 8)
            contexts += 1
        self.clusters = _read_clusters(bits, contexts) if contexts > 1 else [0]
        count = max(self.clusters) + 1
        self.by_prefix = bits.flag()
        size = 15 if self.by_prefix else 5 + bits.take(2)
        self.hybrids = [_read_hybrid(bits, size) for _ in range(count)]
        if self.by_prefix:
            sizes = [_alphabet(bits) for _ in range(count)]
            self.codes: list[Callable[[], int]] = [_prefix_code(bits, size) for size in sizes]
        else:
            self.codes = [self._ans(_read_histogram(bits, 1 << size), size) for _ in range(count)]
            self.state = bits.take(32)
        self.window: list[int] = []
        self.copies = self.distance = 0

    def read(self, context: int) -> int:
        if self.least < 0:
            return self._number(context)
        if not self.copies:
            cluster = self.clusters[context]
            token = self.codes[cluster]()
            if token < self.least:
                self.window.append(self.hybrids[cluster].read(self.bits, token))
                return self.window[-1]
            self.copies = self.repeat.read(self.bits, token - self.least) + self.shortest
            self.distance = min(self._number(len(self.clusters) - 1) + 1, len(self.window))
        self.copies -= 1
        self.window.append(self.window[-self.distance] if self.distance else 0)
        return self.window[-1]

    def _number(self, context: int) -> int:
        cluster = self.clusters[context]
        return self.hybrids[cluster].read(self.bits, self.codes[cluster]())

    def check_end(self) -> None:
        """After the last number: what was read is what was written."""
        demand(self.by_prefix or self.state == _FINAL_STATE, "entropy-coded numbers that are none")

    def _ans(self, counts: list[int], size: int) -> Callable[[], int]:
        shift = _PRECISION - size
        cutoffs, rights, offsets = _alias_table(counts, size)

        def read() -> int:
            bucket, place = (self.state & (_TOTAL - 1)) >> shift, self.state & ((1 << shift) - 1)
            symbol = bucket
            if place >= cutoffs[bucket]:
                symbol, place = rights[bucket], offsets[bucket] + place
            self.state = counts[symbol] * (self.state >> _PRECISION) + place
            if self.state < 1 << 16:
                self.state = self.state << 16 | self.bits.take(16)
            return symbol

        return read


def _alias_table(counts: list[int], size: int) -> tuple[list[int], list[int], list[int]]:
    """(cutoffs, symbols behind them, offsets there) of equal buckets that hold two symbols at most."""
    room, number = _TOTAL >> size, 1 << size
    if _TOTAL in counts:
        only = counts.index(_TOTAL)
        return [0] * number, [only] * number, [room * bucket for bucket in range(number)]
    cutoffs, rights, offsets = list(counts), list(range(number)), [0] * number
    over = [bucket for bucket in range(number) if cutoffs[bucket] > room]
    under = [bucket for bucket in range(number) if cutoffs[bucket] < room]
    while over:
        full, free = over.pop(), under.pop()
        cutoffs[full] -= room - cutoffs[free]
        rights[free], offsets[free] = full, cutoffs[full]
        if cutoffs[full] < room:
            under.append(full)
        elif cutoffs[full] > room:
            over.append(full)
    for bucket in range(number):
        if cutoffs[bucket] == room:
            rights[bucket], offsets[bucket], cutoffs[bucket] = bucket, 0, 0
        else:
            offsets[bucket] -= cutoffs[bucket]
    return cutoffs, rights, offsets


def _read_hybrid(bits: Bits, size: int) -> _Hybrid:
    split, high, low = bits.take(size.bit_length()), 0, 0
    demand(split <= size, "a number that cannot be")
    if split != size:
        high = bits.take(split.bit_length())
        demand(high <= split, "a number that cannot be")
        low = bits.take((split - high).bit_length())
        demand(high + low <= split, "a number that cannot be")
    return _Hybrid(split, high, low)


def _read_clusters(bits: Bits, contexts: int) -> list[int]:
    """The code of each context."""
    if bits.flag():
        count = bits.take(2)
        found = [bits.take(count) for _ in range(contexts)]
    else:
        moved = bits.flag()
        decoder = Decoder(bits, 1, nested=contexts <= 2)
        found = [decoder.read(0) for _ in range(contexts)]
        decoder.check_end()
        demand(max(found) < 256, "more codes than there may be")
        if moved:
            order = list(range(256))
            for at, index in enumerate(found):
                found[at] = order.pop(index)
                order.insert(0, found[at])
    demand(len(set(found)) == max(found) + 1, "codes that are never used")
    return found


def _read_histogram(bits: Bits, number: int) -> list[int]:
    """How often each symbol stands in 4096, for `number` symbols."""
    counts = [0] * 300
    if bits.flag():
        symbols = [bits.u8() for _ in range(1 + bits.flag())]
        if len(symbols) == 2:
            demand(symbols[0] != symbols[1], "a code of one symbol twice")
            counts[symbols[0]] = bits.take(_PRECISION)
        counts[symbols[-1]] = _TOTAL - counts[symbols[0]] if len(symbols) == 2 else _TOTAL
    elif bits.flag():
        size = bits.u8() + 1
        counts[:size] = [_TOTAL // size + (at < _TOTAL % size) for at in range(size)]
    else:
        _read_counts(bits, counts)
    demand(not any(counts[number:]), "a code of too many symbols")
    return counts[:number]


def _read_counts(bits: Bits, counts: list[int]) -> None:
    width = 0
    while width < 3 and bits.flag():
        width += 1
    shift = (bits.take(width) | 1 << width) - 1
    demand(shift <= 13, "a code that cannot be")
    length, logs, runs = bits.u8() + 3, dict[int, int](), dict[int, int]()
    at = 0
    while at < length:
        logs[at] = _read_log(bits)
        if logs[at] == _RUN:
            runs[at] = bits.u8() + 4
            at += runs[at] - 1
        at += 1
    demand(at <= length, "a code that cannot be")
    largest = max(log for log in logs.values() if log != _RUN) if set(logs.values()) != {_RUN} else 0
    demand(largest, "a code of nothing")
    rest = next(place for place, log in logs.items() if log == largest)
    demand(logs.get(rest + 1) != _RUN, "a code that cannot be")
    for place, log in logs.items():
        if log == _RUN:
            counts[place : place + runs[place]] = [counts[place - 1] if place else 0] * runs[place]
        elif log and place != rest:
            known = max(0, min(log - 1, shift - ((_PRECISION - log + 1) >> 1)))
            counts[place] = (1 << (log - 1)) + (bits.take(known) << (log - 1 - known))
    counts[rest] = _TOTAL - sum(counts)
    demand(counts[rest] > 0, "a code of more than all")


def _read_log(bits: Bits) -> int:
    start = bits.take(3)
    if start == 1:
        return next((value for value in (4, 0, 11, 13) if bits.flag()), 12)
    if start == 3:
        return 1 if bits.flag() else 3
    if start == 7:
        return 2 if bits.flag() else 5
    return {0: 10, 2: 7, 4: 6, 5: 8, 6: 9}[start]


def _alphabet(bits: Bits) -> int:
    if not bits.flag():
        return 1
    count = bits.take(4)
    size = 1 + (1 << count) + bits.take(count)
    demand(size <= 1 << 15, "a code of too many symbols")
    return size


def _prefix_code(bits: Bits, size: int) -> Callable[[], int]:
    if size == 1:
        return lambda: 0
    kind = bits.take(2)
    lengths = _simple_lengths(bits, size) if kind == 1 else _complex_lengths(bits, size, kind)
    return _reader(bits, lengths)


def _simple_lengths(bits: Bits, size: int) -> dict[int, int]:
    count = bits.take(2) + 1
    symbols = [bits.take((size - 1).bit_length()) for _ in range(count)]
    demand(len(set(symbols)) == count and max(symbols) < size, "a code that cannot be")
    lengths = {1: (0,), 2: (1, 1), 3: (1, 2, 2)}.get(count) or ((1, 2, 3, 3) if bits.flag() else (2, 2, 2, 2))
    return dict(zip(symbols, lengths, strict=True))


def _complex_lengths(bits: Bits, size: int, skipped: int) -> dict[int, int]:
    code, room = dict[int, int](), 32
    for place in _LENGTH_ORDER[skipped:]:
        if room <= 0:
            break
        index = bits.peek(4)
        bits.skip(_LENGTH_BITS[index])
        if length := _LENGTH_VALUES[index]:
            code[place], room = length, room - (32 >> length)
    demand(room == 0 or len(code) == 1, "a code that cannot be")
    read = _reader(bits, code if len(code) > 1 else dict.fromkeys(code, 0))
    lengths, at, room, last, again, kind = dict[int, int](), 0, 1 << 15, 8, 0, 0
    while at < size and room > 0:
        length = read()
        if length < 16:
            again = 0
            if length:
                lengths[at], last, room = length, length, room - (1 << 15 >> length)
            at += 1
            continue
        extra, repeated = length - 14, last if length == 16 else 0
        if kind != repeated or not again:
            again, kind = 0, repeated
        before = again
        again = ((again - 2) << extra if again else 0) + 3 + bits.take(extra)
        for _ in range(again - before):
            demand(at < size, "a code that cannot be")
            if repeated:
                lengths[at], room = repeated, room - (1 << 15 >> repeated)
            at += 1
    demand(room == 0, "a code that cannot be")
    return lengths


def _reader(bits: Bits, lengths: dict[int, int]) -> Callable[[], int]:
    """Reads a symbol of the canonical code with these lengths."""
    if max(lengths.values(), default=-1) <= 0:
        demand(lengths, "a code of nothing")
        return lambda: next(iter(lengths))
    codes, code, last, longest = dict[tuple[int, int], int](), 0, 0, max(lengths.values())
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - last
        codes[length, code] = symbol
        code, last = code + 1, length

    def read() -> int:
        value = 0
        for length in range(1, longest + 1):
            value = value << 1 | bits.take(1)
            if (length, value) in codes:
                return codes[length, value]
        raise NotAPicture("a code that cannot be")

    return read


def skip_profile(bits: Bits) -> None:
    """Goes over a colour profile, number by number."""
    size = bits.u64()
    if size > MOST_PROFILE:
        raise TooManyParts
    decoder = Decoder(bits, 41)
    last = before = 0
    for at in range(size):
        before, last = last, decoder.read(1 + _kind(last) + 8 * _kind_before(before) if at > 128 else 0)
        demand(last < 256, "a colour profile that is none")
    decoder.check_end()


def _kind(byte: int) -> int:
    if chr(byte).isalpha() and byte < 128:
        return 0
    if byte in b"0123456789.,":
        return 1
    if byte < 16:
        return 2 + min(byte, 2)
    return 7 if byte <= 240 else 5 + (byte == 255)


def _kind_before(byte: int) -> int:
    if chr(byte).isalpha() and byte < 128:
        return 0
    if byte in b"0123456789.,":
        return 1
    return 2 if byte < 16 else 4 if byte <= 240 else 3


def skip_order(bits: Bits, sections: int) -> None:
    """Goes over the order of a frame's sections."""
    decoder = Decoder(bits, 8)
    count = decoder.read(min(7, sections.bit_length()))
    demand(count <= sections, "an order of more sections than there are")
    last = 0
    for at in range(count):
        last = decoder.read(min(7, last.bit_length()))
        demand(last < sections - at, "an order that there is not")
    decoder.check_end()
