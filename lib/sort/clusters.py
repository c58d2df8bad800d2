"""DBSCAN over unit vectors in bounded memory, and how wide its neighbourhood should be. Pure: arrays in, arrays out."""

from __future__ import annotations

import numpy as np

BLOCK = 1024  # rows of the product at once: 1024 x 20,000 float32 are 82 MB
SAMPLE = 2_000  # vectors that the knee is estimated from
EXACT = 30_000  # above this, clusters are found on so many vectors and the others join their nearest core
EPS_RANGE = (0.08, 0.35)  # cosine distances at which clusters of pictures of one thing were seen to lie
NOISE = -1


def dbscan(vectors: np.ndarray, eps: float, least: int) -> np.ndarray:
    """Cluster numbers, int64 (n,), -1 for noise, of float32 unit vectors (n, d); `eps` is a cosine distance.

    Exact up to EXACT vectors. Lists of neighbours of one big topic would take gigabytes (scikit-learn: 8.5 GB for one
    topic of 20,000), so rows of the product are looked at block by block. Numbers go by the first member.
    """
    if len(vectors) > EXACT:
        return _by_sample(vectors, eps, least)
    return _blocked(vectors, eps, least)[0]


def suggested_eps(vectors: np.ndarray, least: int) -> float:
    """Where the sorted distances to the `least`-th neighbour bend most: a cosine distance within EPS_RANGE."""
    count = len(vectors)
    if count <= least:
        return EPS_RANGE[1]
    chosen = np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(int))
    distances = []
    for start in range(0, len(chosen), BLOCK):
        near = vectors[chosen[start : start + BLOCK]] @ vectors.T
        # A vector is its own first neighbour, as DBSCAN counts them.
        distances.append(1 - np.partition(near, count - least, axis=1)[:, count - least])
    curve = np.sort(np.concatenate(distances))
    across = np.linspace(0, 1, len(curve))
    height = (curve - curve[0]) / max(float(curve[-1] - curve[0]), 1e-9)
    knee = float(curve[int(np.argmax(across - height))])
    return float(np.clip(knee, *EPS_RANGE))


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
