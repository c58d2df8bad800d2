"""Sort by topic: the pictures of each query are clustered, and clusters are ranked by how well they answer the query.

The largest cluster is often not the subject: repeats and logos are tight, real subjects are diverse. So clusters are
ranked by agreement with the query's words and with its picture, then by unique pictures and coherence; distances to
words and to pictures are never added as they are, since they live on different scales, but as deviations.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lib.db import scores as store
from lib.quality.measure import Measure
from lib.sort.criteria import AllMeasures, Label
from lib.sort.criteria.prompts import ClipCriterion
from lib.text import counted

BLOCK = 1024  # rows of the product at once: 1024 x 20,000 float32 are 82 MB
SAMPLE = 2_000  # vectors that the knee is estimated from
EXACT = 30_000  # above this, clusters are found on so many vectors and the others join their nearest core
# Cosine distances: nearer pictures are repeats rather than of one thing, unless a model puts all so near; and what
# rounding leaves between two embeddings of one picture.
LEAST_EPS, ROUNDING = 0.08, 0.001
# The largest eps by itself, of the median distance between the pictures: models spread theirs over quite different
# distances. Above it single pictures between two subjects join them to one.
MOST_OF_MEDIAN = 0.65
NOISE = -1
TEMPLATES = ("{}", "a photo of {}", "a close-up photo of {}")
# What a search brings besides its subject.
OTHERS = (
    "a logo", "a screenshot", "a meme with text", "a collage", "a product packshot on white", "a chart or diagram",
    "a map", "a page of text",
)  # fmt: skip
FACES = 12  # pictures of a cluster on its page
WITHIN = 1.0  # standard deviations below the best cluster that are still kept
SHARE_BY_WORDS, SHARE_BY_PICTURE, SHARE_BY_NUMBER, SHARE_BY_COHERENCE = 1.0, 0.5, 0.35, 0.25
JOINS = 25  # percentile of the kept members that a picture without cluster has to reach


@dataclass(frozen=True)
class Cluster:
    """One cluster of one query. `words` and `picture` are the members' median agreement, None where unknown."""

    query: str
    number: int
    pictures: int
    unique: int
    coherence: float
    words: float | None
    picture: float | None
    score: float
    kept: bool
    faces: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.query or 'all'} {self.number + 1}"


@dataclass
class Topic(ClipCriterion):
    """`eps` is a cosine distance, None for the knee of each query; `texts` are further words for the subject."""

    eps: float | None = None
    least: int = 3
    texts: Sequence[str] = ()
    top: int | None = None
    # Filled by `fit`.
    labels: dict[str, Label] = field(default_factory=dict)
    clusters: list[Cluster] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)  # of the queries, each one's own
    in_clusters: set[str] = field(default_factory=set)

    name = "topic"

    def prompts(self) -> Sequence[str]:
        return self.texts

    def fit(self, measures: AllMeasures) -> Topic:
        """Clusters every query's pictures by itself; what no query found is one set."""
        members: dict[int, list[str]] = defaultdict(list)
        for page in measures.pages():
            readable = [sha256 for sha256, measure in page.items() if measure.value is not None]
            queries = store.queries_of(measures.context.db, readable)
            for sha256 in readable:
                for query in queries.get(sha256, [0]):
                    members[query].append(sha256)
        names = _own_names(store.query_names(measures.context.db, [query for query in members if query]))
        made = replace(self, labels={}, clusters=[], said=[], names=names, in_clusters=set())
        for query, contents in sorted(members.items()):
            made._cluster(measures, query, contents)
        return made

    @property
    def clustered(self) -> int:
        """Pictures in clusters; one that several queries found counts once."""
        return len(self.in_clusters)

    def label(self, measure: Measure) -> Label | None:
        return self.labels.get(measure.sha256)

    def buckets(self) -> list[tuple[str, str]]:
        return [
            ("on_topic", "in a cluster that answers its query, or near to one"),
            ("off_topic", "in a cluster that does not"),
            ("unclustered", "like too few others"),
        ]

    def notes(self) -> list[str]:
        """Lines for stdout: eps of each query, and its clusters."""
        lines = list(self.said)
        for cluster in self.clusters:
            agreement = [f"words {cluster.words:+.3f}"] if cluster.words is not None else []
            agreement += [f"picture {cluster.picture:.3f}"] if cluster.picture is not None else []
            mark = "keep" if cluster.kept else "leave"
            size = f"{counted(cluster.pictures, 'picture')}, {cluster.unique} unique, coherence {cluster.coherence:.2f}"
            lines.append(f"{mark:<5}  {cluster.name}: {', '.join([size, *agreement])}, score {cluster.score:+.2f}")
        return lines

    def report(self) -> dict[str, Any]:
        clusters = [{**vars(cluster), "faces": list(cluster.faces)} for cluster in self.clusters]
        return {"clusters": clusters, "notes": list(self.said)}

    def _cluster(self, measures: AllMeasures, query: int, contents: list[str]) -> None:
        """Adds the clusters of one query's pictures; what is on topic for any query is on topic."""
        vectors = self._vectors(measures, contents)
        text = store.query_texts(measures.context.db, [query]).get(query, "")
        seeds = self.query_pictures(measures.context, [query])
        self.suggest([text])
        eps, how = suggested_eps(vectors, self.least) if self.eps is None else (self.eps, "as given")
        numbers = dbscan(vectors, eps, self.least)
        found = _Query(
            self.names.get(query, ""), contents, vectors, numbers,
            self._words(vectors, [*self.texts, *([text] if text else [])]),
            vectors @ seeds[query] if query in seeds else None,
            store.known_phashes(measures.context.db, contents),
        )  # fmt: skip
        clusters = found.ranked(self.top)
        self.clusters += clusters
        self.in_clusters.update(sha256 for sha256, number in zip(contents, numbers, strict=True) if number != NOISE)
        self.said.append(found.said(eps, how))
        for sha256, label in found.labelled(clusters).items():
            known = self.labels.get(sha256)
            if known is None or (known.bucket != "on_topic" and label.bucket == "on_topic"):
                self.labels[sha256] = label

    def _vectors(self, measures: AllMeasures, contents: Sequence[str]) -> np.ndarray:
        from lib.models.clip import vector_of

        rows = np.empty((len(contents), 0), dtype=np.float32)
        for start in range(0, len(contents), 500):
            part = contents[start : start + 500]
            known = measures.vectors(self.metric, self.clip.version, part)
            if not rows.shape[1]:
                rows = np.empty((len(contents), len(next(iter(known.values()))) // 2), dtype=np.float32)
            for place, sha256 in enumerate(part, start):
                rows[place] = vector_of(known[sha256])
        return rows

    def _words(self, vectors: np.ndarray, texts: Sequence[str]) -> np.ndarray | None:
        """Each picture's cosine to the subject's words less that to the nearest of OTHERS; float32 (n,)."""
        if not texts:
            return None
        wanted = self.clip.text([template.format(text) for text in texts for template in TEMPLATES]).mean(axis=0)
        wanted /= np.linalg.norm(wanted)
        return vectors @ wanted - (vectors @ self.clip.text(OTHERS).T).max(axis=1)


@dataclass
class _Query:
    """One query's pictures: contents, vectors (n, d), cluster numbers (n,), agreement with words and picture (n,)."""

    name: str
    contents: Sequence[str]
    vectors: np.ndarray
    numbers: np.ndarray
    words: np.ndarray | None
    picture: np.ndarray | None
    phashes: Mapping[str, str]

    def ranked(self, top: int | None) -> list[Cluster]:
        """The clusters, best first, and which of them are kept."""
        count = int(self.numbers.max(initial=NOISE)) + 1
        facts = [self._facts(number) for number in range(count)]
        if not facts:
            return []
        score = SHARE_BY_NUMBER * np.log1p([fact["unique"] for fact in facts]) / np.log1p(len(self.contents))
        score = score + SHARE_BY_COHERENCE * _deviations([fact["coherence"] for fact in facts])
        for part, values in ((SHARE_BY_WORDS, self.words), (SHARE_BY_PICTURE, self.picture)):
            if values is not None:
                score = score + part * self._against_all(values, count)
        best = float(score.max())
        order = sorted(range(count), key=lambda number: -score[number])
        made = []
        for rank, number in enumerate(order):
            fact, own = facts[number], float(score[number])
            answers = fact["words"] is None or fact["words"] > 0
            kept = own == best or (answers and own >= best - WITHIN) if top is None else rank < top
            made.append(Cluster(self.name, rank, score=round(own, 4), kept=kept, **fact))
        return made

    def _facts(self, number: int) -> dict[str, Any]:
        rows = np.flatnonzero(self.numbers == number)
        centre = self.vectors[rows].mean(axis=0)
        cosines = self.vectors[rows] @ (centre / max(float(np.linalg.norm(centre)), 1e-9))
        faces = tuple(self.contents[int(row)] for row in rows[np.argsort(-cosines)][:FACES])
        return {
            "pictures": len(rows),
            "unique": len({self.phashes.get(self.contents[row], self.contents[row]) for row in map(int, rows)}),
            "coherence": round(float(cosines.mean()), 4),
            "words": None if self.words is None else round(float(np.median(self.words[rows])), 4),
            "picture": None if self.picture is None else round(float(np.median(self.picture[rows])), 4),
            "faces": faces,
        }

    def _against_all(self, values: np.ndarray, count: int) -> np.ndarray:
        """The clusters' medians as deviations among themselves and the pictures without a cluster."""
        medians = [float(np.median(values[self.numbers == number])) for number in range(count)]
        alone = values[self.numbers == NOISE]
        return _deviations([*medians, float(np.median(alone))] if len(alone) else medians)[:count]

    def labelled(self, clusters: Sequence[Cluster]) -> dict[str, Label]:
        """The bucket of every picture, with the cluster that put it there."""
        by_face = {cluster.faces[0]: cluster for cluster in clusters}
        own: dict[int, Cluster] = {}
        for row, sha256 in enumerate(self.contents):
            if sha256 in by_face:
                own.setdefault(int(self.numbers[row]), by_face[sha256])
        joined = self._joining([number for number, cluster in own.items() if cluster.kept])
        found = {}
        for row, sha256 in enumerate(self.contents):
            cluster = own.get(int(self.numbers[row]))
            if cluster is not None:
                words = f"cluster {cluster.name}, {counted(cluster.pictures, 'picture')}{self._agreement(row)}"
                found[sha256] = Label("on_topic" if cluster.kept else "off_topic", cluster.score, words)
            elif row in joined:
                found[sha256] = Label("on_topic", None, f"near cluster {own[joined[row]].name}{self._agreement(row)}")
            else:
                found[sha256] = Label("unclustered", None, f"like too few others{self._agreement(row)}")
        return found

    def _joining(self, kept: Sequence[int]) -> dict[int, int]:
        """Pictures without a cluster (by row) that lie as near to a kept one as the outer quarter of its own members
        do, and agree with the words as much; with that cluster's number."""
        alone = np.flatnonzero(self.numbers == NOISE)
        found: dict[int, int] = {}
        for number in kept:
            rows = np.flatnonzero(self.numbers == number)
            centre = self.vectors[rows].mean(axis=0)
            centre /= max(float(np.linalg.norm(centre)), 1e-9)
            near = self.vectors[alone] @ centre >= np.percentile(self.vectors[rows] @ centre, JOINS)
            if self.words is not None:
                near &= self.words[alone] >= np.percentile(self.words[rows], JOINS)
            found |= {int(row): number for row in alone[near] if int(row) not in found}
        return found

    def said(self, eps: float, how: str) -> str:
        known = [word for word, values in (("words", self.words), ("picture", self.picture)) if values is not None]
        basis = f"ranked by {' and '.join(known)}" if known else "ranked by size and coherence: no words, no picture"
        return f"{self.name or 'all pictures'}: {counted(len(self.contents), 'picture')}, eps {eps:.3f} {how}, {basis}"

    def _agreement(self, row: int) -> str:
        words = f", words {self.words[row]:+.3f}" if self.words is not None else ""
        return words + (f", query picture {self.picture[row]:.3f}" if self.picture is not None else "")


def _own_names(queries: Mapping[int, tuple[str, str]]) -> dict[int, str]:
    """A name for each query, of its (words, engine): engines are named where several were asked the same."""
    words, pairs = Counter(text for text, _ in queries.values()), Counter(queries.values())
    found = {}
    for number, (text, engine) in queries.items():
        name = text or f"query {number}"
        if text and words[text] > 1:
            name += f" ({engine})" if pairs[text, engine] == 1 else f" ({engine}, query {number})"
        found[number] = name
    return found


def _deviations(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    return (array - array.mean()) / max(float(array.std()), 1e-6)


def dbscan(vectors: np.ndarray, eps: float, least: int) -> np.ndarray:
    """Cluster numbers, int64 (n,), -1 for noise, of float32 unit vectors (n, d); `eps` is a cosine distance.

    Exact up to EXACT vectors. Lists of neighbours of one big topic would take gigabytes (scikit-learn: 8.5 GB for one
    topic of 20,000), so rows of the product are looked at block by block. Numbers go by the first member.
    """
    if len(vectors) > EXACT:
        return _by_sample(vectors, eps, least)
    return _blocked(vectors, eps, least)[0]


def suggested_eps(vectors: np.ndarray, least: int) -> tuple[float, str]:
    """The cosine distance at which sorted distances to the `least`-th neighbour bend most, and how it was found.

    It is at most MOST_OF_MEDIAN of the median distance between two pictures, and at least LEAST_EPS where that is less.
    Both are taken from an even sample of the float32 unit vectors (n, d).
    """
    count = len(vectors)
    chosen = np.unique(np.linspace(0, max(0, count - 1), min(count, SAMPLE)).astype(int))
    sample = vectors[chosen]
    pairs = (1 - sample @ sample.T)[np.triu_indices(len(chosen), 1)]
    most = max(ROUNDING, MOST_OF_MEDIAN * float(np.median(pairs))) if len(pairs) else LEAST_EPS
    bound = f"{MOST_OF_MEDIAN:g} of the median distance"
    if count <= least:
        return most, f"at {bound}"
    distances = []
    for start in range(0, len(chosen), BLOCK):
        near = sample[start : start + BLOCK] @ vectors.T
        # A vector is its own first neighbour, as DBSCAN counts them.
        distances.append(1 - np.partition(near, count - least, axis=1)[:, count - least])
    curve = np.sort(np.concatenate(distances))
    across = np.linspace(0, 1, len(curve))
    height = (curve - curve[0]) / max(float(curve[-1] - curve[0]), 1e-9)
    knee = float(curve[int(np.argmax(across - height))])
    if knee > most:
        return most, f"by the knee at {knee:.3f}, clipped to {bound}"
    if knee < min(LEAST_EPS, most):
        return min(LEAST_EPS, most), f"by the knee at {knee:.3f}, raised to the least"
    return knee, "by the knee"


def _blocked(vectors: np.ndarray, eps: float, least: int) -> tuple[np.ndarray, np.ndarray]:
    """(labels, which are core) in memory of one block: count neighbours, join cores, give borders to a core."""
    count, bound = len(vectors), 1 - eps
    blocks = [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]
    core = np.concatenate([(vectors[part] @ vectors.T >= bound).sum(axis=1) for part in blocks]) >= least
    cores = np.flatnonzero(core)
    parent = np.arange(len(cores))
    for start in range(0, len(cores), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(cores)))
        near = vectors[cores[rows]] @ vectors[cores].T >= bound
        for close in near:
            roots = parent[close]
            if (roots != roots[0]).any():
                parent[np.isin(parent, np.unique(roots))] = roots.min()
    labels = np.full(count, NOISE, dtype=np.int64)
    labels[cores] = parent
    for start in range(0, count, BLOCK):
        rest = np.arange(start, min(start + BLOCK, count))
        rest = rest[~core[rest]]
        if len(rest) and len(cores):
            near = vectors[rest] @ vectors[cores].T
            best = near.argmax(axis=1)
            reached = near[np.arange(len(rest)), best] >= bound
            labels[rest[reached]] = parent[best[reached]]
    return _renumbered(labels), core


def _by_sample(vectors: np.ndarray, eps: float, least: int) -> np.ndarray:
    """Clusters of an even sample; each other vector joins its nearest core where that is within `eps`."""
    chosen = np.unique(np.linspace(0, len(vectors) - 1, EXACT).astype(int))
    part = vectors[chosen]
    found, core = _blocked(part, eps, least)
    labels = np.full(len(vectors), NOISE, dtype=np.int64)
    labels[chosen] = found
    centres, names = part[core], found[core]
    for start in range(0, len(vectors) if len(centres) else 0, BLOCK):
        rest = np.arange(start, min(start + BLOCK, len(vectors)))
        rest = rest[labels[rest] == NOISE]
        near = vectors[rest] @ centres.T
        best = near.argmax(axis=1)
        reached = near[np.arange(len(rest)), best] >= 1 - eps
        labels[rest[reached]] = names[best[reached]]
    return _renumbered(labels)


def _renumbered(labels: np.ndarray) -> np.ndarray:
    """Clusters counted from 0 in the order of their first members."""
    kept = labels[labels != NOISE]
    names, first = np.unique(kept, return_index=True)
    order = {int(name): place for place, name in enumerate(names[np.argsort(first)])}
    return np.array([order.get(int(label), NOISE) for label in labels], dtype=np.int64)
