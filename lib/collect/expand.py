"""Related keywords from the titles found so far, by TF-IDF: words that these titles have in common, and others less."""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lib.collect.options import CollectOptions
from lib.collect.queue import keywords, params_for
from lib.db import Context
from lib.db import queries as table
from lib.db.queries import NewQuery
from lib.engines import DEFAULT, NAMES
from lib.engines.base import load_engine
from lib.errors import UsageError
from lib.text import command_line

log = logging.getLogger("gleaner.collect")

FEWEST_TITLES = 2  # a term that stands in one title only says nothing about the search
SHORTEST_WORD = 3  # letters; Korean words are shorter, because a syllable is one
SHORTEST_KOREAN = 2
STEM = 4  # letters from which on two words with the same beginning are taken for forms of one
LONGEST_RUN = 4  # characters of a term in writing without spaces
# Words that titles of pictures have whatever they show, and the commonest of several languages.
EMPTY_WORDS = frozenset(
    """
    about and are but can com der des die das ein eine est est for from het how image images img into jpeg jpg les los
    mit more net new non not nos online org our out page para per photo photos photography picture pictures pics png por
    que site stock sur the their this und una une vector von wallpaper web webp what when where which with www you your
    для или как картинка картинки кто купить лучшие над обои онлайн она они под при про сайт так фото фотография
    фотографии цена что это без все его есть еще из на не но от по
    bild bilder foto fotos gratis imagen imagenes
    """.split()
)
# Han, kana and Thai are written without spaces between words; everything else in words of letters.
_NO_SPACES = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_RUNS = re.compile(
    rf"(?P<run>[{_NO_SPACES}]+)|(?P<word>(?:(?![{_NO_SPACES}])[^\W\d_])+(?:['’](?:[^\W\d_])+)?)|(?P<gap>\S)"
)


@dataclass(frozen=True)
class Proposal:
    """A keyword, how strongly the titles speak for it (0..1, the best has 1), and in how many of them it stands."""

    keyword: str
    score: float
    titles: int


class Expansion:
    """Keywords for `--expand N`. Raises UsageError where there are no titles yet."""

    def __init__(self, context: Context, options: CollectOptions, most: int):
        self.context, self.options, self.most = context, options, most
        known = [name for name in NAMES if name in table.engines_known(context.db)]
        self.engines = list(dict.fromkeys(options.engine or known or [DEFAULT]))
        if options.images:
            raise UsageError("--expand looks at the titles of keyword searches; name them by --keywords.")
        self.words = keywords(options.keywords, options.keywords_file)

    def propose(self) -> list[Proposal]:
        """The best keywords, best first. Raises UsageError."""
        db = self.context.db
        titles = table.titles_found(db, self.engines, self.words)
        if not titles:
            raise UsageError("no titles were found for this yet; search first, then run python 2_ingest_db.py.")
        others = table.titles_found(db, self.engines, []) if self.words else []
        asked = self.words or table.keywords_asked(db, self.engines)
        return propose(titles, asked, self.most, set(others) - set(titles))

    def queue(self, proposed: Sequence[Proposal]) -> int:
        """Queues every proposal at every engine that can search by keyword; gives how many are new."""
        db, options, queued = self.context.db, self.options, 0
        with db.transaction():
            for engine in map(load_engine, self.engines):
                if "keyword" not in engine.kinds:
                    continue
                engine.filter_params(options.filters)
                params = params_for(engine, options.host, options.filters)
                for found in proposed:
                    query = NewQuery(engine.name, "keyword", found.keyword, params=params)
                    if table.find_query(db, query) is None:
                        table.add_query(db, query, self.context.run_id)
                        queued += 1
        return queued

    def command(self) -> str:
        """The same command with --yes."""
        options = self.options
        words = ["python", "1_collect.py", "--expand", str(self.most), "--yes"]
        words += ["--engine", *options.engine] if options.engine else []
        words += ["--keywords", *self.words] if self.words else []
        words += ["--host", options.host] if options.host else []
        words += [word for name, value in options.filters.items() for word in (f"--{name}", value)]
        return command_line(words)


def proposal_lines(proposed: Sequence[Proposal]) -> list[str]:
    """One line a keyword, below a line of names."""
    if not proposed:
        return ["no keyword stands out: there are too few titles, or they speak of the query alone"]
    rows = [f"{found.score:>5.2f}  {found.titles:>6}  {found.keyword}" for found in proposed]
    return [f"{'score':>5}  {'titles':>6}  keyword", *rows]


def propose(titles: Sequence[str], asked: Iterable[str], most: int, others: Iterable[str] = ()) -> list[Proposal]:
    """The terms that the titles have in common and `others` have not, without the words that were asked for.

    A term's weight is the sum of its TF-IDF (rows of unit length) over the titles. Of terms that share a word the
    heaviest is kept.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    own = [word for text in asked for run in _runs(text) for word in run]
    made = TfidfVectorizer(analyzer=lambda title: list(terms(title)), sublinear_tf=True)
    try:
        made.fit([*titles, *sorted(others)])
    except ValueError:  # not one term in all titles
        return []
    weights = made.transform(titles)
    total, counts = weights.sum(axis=0).A1, (weights > 0).sum(axis=0).A1
    names = made.get_feature_names_out()
    # Of terms with the same weight a pair says more than its words.
    ranked = sorted(range(len(names)), key=lambda p: (-round(float(total[p]), 6), -names[p].count(" "), names[p]))
    kept: list[int] = []
    for place in ranked:
        if len(kept) == most:
            break
        if counts[place] >= FEWEST_TITLES and not _repeats(names[place], own, [names[other] for other in kept]):
            kept.append(place)
    best = float(total[kept[0]]) if kept else 1.0
    return [Proposal(str(names[p]), round(float(total[p]) / best, 4), int(counts[p])) for p in kept]


def terms(title: str) -> Iterator[str]:
    """The single words of a title and the pairs of neighbours; in writing without spaces, short runs of characters."""
    for run in _runs(title):
        if re.match(f"[{_NO_SPACES}]", run[0]):
            text = run[0]
            for length in range(2, LONGEST_RUN + 1):
                yield from (text[start : start + length] for start in range(len(text) - length + 1))
            continue
        useful = [_is_useful(word) for word in run]
        yield from (word for word, good in zip(run, useful, strict=True) if good)
        yield from (f"{a} {b}" for a, b, x, y in zip(run, run[1:], useful, useful[1:], strict=False) if x and y)


def _is_useful(word: str) -> bool:
    shortest = SHORTEST_KOREAN if "\uac00" <= word[0] <= "\ud7a3" else SHORTEST_WORD
    return len(word) >= shortest and word not in EMPTY_WORDS


def _runs(title: str) -> Iterator[list[str]]:
    """Words that stand side by side; punctuation and a change of writing part them."""
    run: list[str] = []
    for match in _RUNS.finditer(unicodedata.normalize("NFKC", title).casefold()):
        if match["word"]:
            run.append(match["word"])
            continue
        if run:
            yield run
        run = []
        if match["run"]:
            yield [match["run"]]
    if run:
        yield run


def _repeats(term: str, own: Sequence[str], kept: Sequence[str]) -> bool:
    """True where a term brings nothing new: a word that was asked for, or one of a term that is kept already."""
    known = [*own, *(word for held in kept for word in held.split())]
    return any(_same_word(word, other) for word in term.split() for other in known)


def _same_word(one: str, two: str) -> bool:
    """True where two words are forms of one, roughly: one is the other's beginning, up to its last letters."""
    if one == two:
        return True
    if re.match(f"[{_NO_SPACES}]", one) and re.match(f"[{_NO_SPACES}]", two):
        return bool({one[i : i + 2] for i in range(len(one) - 1)} & {two[i : i + 2] for i in range(len(two) - 1)})
    shorter, longer = sorted((one, two), key=len)
    return (
        len(shorter) >= STEM
        and len(longer) - len(shorter) <= 3
        and longer.startswith(shorter[: max(STEM, len(shorter) - 1)])
    )
