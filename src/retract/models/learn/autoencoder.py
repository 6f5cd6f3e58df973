"""The autoencoder of PersonalFR: four layers, normalised and squashed, and its two halves.

    code   = τ(τ(x W₁ + b₁) W₂ + b₂)         the encoder: |I| → hidden → code
    rating = τ(code W₃ + b₃) W₄ + b₄         the decoder: code → hidden → |I|

where τ(a) = tanh(γ ⊙ (a - mean a) / deviation a + β), a group normalisation with one group (Le et al., Asilomar 2022,
arXiv 2212.08779, section IV). x holds a user's ratings, or ones; items that the user never touched are zeros, so only
the rows of W₁ of touched items, and the columns of W₄ of wanted ones, ever take part. Both are kept row by item here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from retract import streams
from retract.models.widths import Widths

Parameters = Mapping[str, Tensor]
"""Parameters by name: `input.`, `code.`, `hidden.` or `output.`, then `weight`, `bias`, `gain` (γ) or `offset` (β)."""

EPSILON = 1e-5
"""Added to the variance, as PyTorch's GroupNorm does."""


def initial(layers: tuple[str, ...], n_items: int, widths: Widths, seed: int, output_scale: float = 1.0) -> Parameters:
    """Some layers before any step: Xavier's normal weights, keyed by the seed, and zero biases.

    Parameters
    ----------
    output_scale
        Times Xavier's deviation in the last layer: what few have rated starts near its bias, not near noise.
    """
    made: dict[str, Tensor] = {}
    for name, shape in widths.shapes(layers, n_items).items():
        layer, kind = name.split(".")
        if kind == "weight":
            rows, columns = shape
            draw = torch.from_numpy(streams.normal(seed, 0, np.arange(rows), f"{layer} weight", columns))
            scale = output_scale if layer == "output" else 1.0
            made[name] = draw * scale * (2 / (rows + columns)) ** 0.5
        else:
            made[name] = torch.ones(shape) if kind == "gain" else torch.zeros(shape)
    return made


class Squashed(NamedTuple):
    """τ(a), shape [n, d], and what its gradient needs."""

    value: Tensor
    normal: Tensor
    inverse: Tensor
    gain: Tensor


def squash(a: Tensor, gain: Tensor, offset: Tensor) -> Squashed:
    """τ of every row; gain and offset have shape [d], or [n, d] where each row has its own."""
    variance, mean = torch.var_mean(a, dim=1, correction=0, keepdim=True)
    inverse = (variance + EPSILON).rsqrt()
    normal = (a - mean) * inverse
    return Squashed(torch.tanh(normal * gain + offset), normal, inverse, gain)


def squash_back(grad: Tensor, of: Squashed) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of a, of the gain and of the offset, row by row, from that of τ(a); each of shape [n, d]."""
    offset = grad * (1 - of.value.square())
    normal = offset * of.gain
    inner = normal - normal.mean(dim=1, keepdim=True) - of.normal * (normal * of.normal).mean(dim=1, keepdim=True)
    return inner * of.inverse, offset * of.normal, offset


def encode(encoder: Parameters, read: Tensor) -> Tensor:
    """Codes, shape [n, code], of what the first layer reads, x W₁ + b₁, shape [n, hidden]."""
    return dense(encoder, "code", squash(read, encoder["input.gain"], encoder["input.offset"]).value)


def decode(decoder: Parameters, codes: Tensor) -> Tensor:
    """Predictions for all items, shape [n, n_items], of codes of shape [n, code]."""
    return torch.addmm(decoder["output.bias"], dense(decoder, "hidden", codes), decoder["output.weight"].T)


def dense(parameters: Parameters, layer: str, x: Tensor) -> Tensor:
    """τ(x W + b) of one of the two inner layers."""
    out = x @ parameters[f"{layer}.weight"] + parameters[f"{layer}.bias"]
    return squash(out, parameters[f"{layer}.gain"], parameters[f"{layer}.offset"]).value
