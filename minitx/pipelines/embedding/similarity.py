"""Similarities of vectors, and the search of the nearest."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
CHUNK = 4_000_000  # similarities that are computed together in a search


def similarity_matrix(first: Tensor, second: Tensor, kind: Similarity) -> Tensor:
    """Computes the similarity of each vector to each other one; distances are negative.

    Args:
        first: (N, E).
        second: (M, E).
        kind: "cosine", "dot", "euclidean" or "manhattan".

    Returns:
        (N, M)
    """
    if kind in ("euclidean", "manhattan"):
        exact = "donot_use_mm_for_euclid_dist"  # a matrix product loses the distances of near vectors
        return -torch.cdist(first, second, p=2.0 if kind == "euclidean" else 1.0, compute_mode=exact)
    if kind == "cosine":
        first, second = F.normalize(first, dim=-1), F.normalize(second, dim=-1)
    return first @ second.T


def search_nearest(queries: Tensor, corpus: Tensor, kind: Similarity, top_k: int) -> tuple[Tensor, Tensor]:
    """Finds the most similar vectors of a corpus, part by part.

    Args:
        queries: (Q, E).
        corpus: (N, E).
        kind: as for `similarity_matrix`.
        top_k: number of vectors for each query, at most N.

    Returns:
        Similarities and indices in the corpus, (Q, K) each, the most similar first.
    """
    best = queries.new_zeros(len(queries), 0)
    indices = torch.zeros(len(queries), 0, dtype=torch.long, device=queries.device)
    step = max(CHUNK // max(len(queries), 1), top_k)
    for start in range(0, len(corpus), step):
        scores = similarity_matrix(queries, corpus[start : start + step], kind)
        places = torch.arange(start, start + scores.shape[1], device=scores.device).expand_as(scores)
        scores, places = torch.cat((best, scores), dim=1), torch.cat((indices, places), dim=1)
        best, order = scores.topk(min(top_k, scores.shape[1]), dim=1)
        indices = places.gather(1, order)
    return best, indices
