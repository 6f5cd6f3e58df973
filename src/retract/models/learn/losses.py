"""Losses: Bayesian personalised ranking and InfoNCE."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


def bpr(positive: Tensor, negative: Tensor) -> Tensor:
    """Bayesian personalised ranking, -log σ(positive - negative), per pair (Rendle et al., UAI 2009, eq. 4).

    Shapes broadcast; the result has their common shape.
    """
    return functional.softplus(negative - positive)


def info_nce(anchors: Tensor, positives: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """InfoNCE on cosine similarity, per anchor (van den Oord et al., 2018, eq. 4).

    -log( e^{cos(a, p)/τ} / (e^{cos(a, p)/τ} + Σ_n e^{cos(a, n)/τ}) )

    Parameters
    ----------
    anchors, positives
        Shape [n, d], row by row.
    negatives
        Shape [m, d], shared by all anchors.
    temperature
        τ > 0.

    Returns
    -------
    Tensor
        Shape [n].
    """
    anchors, positives, negatives = (functional.normalize(rows, dim=-1) for rows in (anchors, positives, negatives))
    same = (anchors * positives).sum(-1, keepdim=True) / temperature
    other = anchors @ negatives.T / temperature
    return torch.logsumexp(torch.cat([same, other], dim=-1), dim=-1) - same.squeeze(-1)


def aligned_info_nce(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """InfoNCE where left[i] belongs to right[i] and every other row of `right` is its negative; per row, shape [n]."""
    left, right = functional.normalize(left, dim=-1), functional.normalize(right, dim=-1)
    logits = left @ right.T / temperature
    return functional.cross_entropy(logits, torch.arange(len(left)), reduction="none")


def activity_weights(degrees: NDArray[np.int64], n_items: int, exponent: float) -> Tensor:
    """n^{-a} for a user of n interactions: with a > 0 the very active do not drown the others.

    0 for a user without interactions, and for one that touched every item: there is nothing to rank it by.

    Parameters
    ----------
    degrees
        Interactions per user, shape [n_users].
    exponent
        a in [0, 1].

    Returns
    -------
    Tensor
        float32, shape [n_users].
    """
    usable = (degrees > 0) & (degrees < n_items)
    return torch.from_numpy(np.where(usable, np.maximum(degrees, 1.0) ** -exponent, 0.0)).float()
