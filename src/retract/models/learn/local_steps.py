"""What many clients reach by their own steps of SGD from one start, without a copy of the model for any of them.

A step of SGD moves a dense layer by an outer product, of its input and of its output's gradient. So after T steps
client u's layer is

    W_u = W - Σ_t x_t ⊗ d_t,      b_u = b - Σ_t d_t

and reads a new input as x W_u + b_u = x W + b - Σ_t (⟨x, x_t⟩ + 1) d_t: one product with the common start, which all
clients share, and T inner products. Their sum over clients, all that a server asks for, is one product too. It is the
same arithmetic as one model per client, in another order, and exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from retract.models.learn.sparse import Pattern, pair_scores, row_sums


class SteppedLayer:
    """A dense layer on n clients, each at its own place.

    Parameters
    ----------
    weight, bias
        Where all start, shapes [d_in, d_out] and [d_out]; or where each starts, [n, d_in, d_out] and [n, d_out].
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self.weight, self.bias = weight, bias
        self._steps: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Its output, shape [n, d_out], for inputs of shape [n, d_in]."""
        out = _times(x, self.weight) + self.bias
        for before, move in self._steps:
            out -= ((before * x).sum(dim=1, keepdim=True) + 1) * move
        return out

    def back(self, grad: Tensor) -> Tensor:
        """The gradient of its input, shape [n, d_in], from that of its output."""
        out = _times(grad, self.weight.mT)
        for before, move in self._steps:
            out -= (move * grad).sum(dim=1, keepdim=True) * before
        return out

    def step(self, x: Tensor, move: Tensor) -> None:
        """W_u -= x ⊗ move and b_u -= move; shapes [n, d_in] and [n, d_out]."""
        self._steps.append((x, move))

    def change(self) -> tuple[Tensor, Tensor]:
        """The sum over clients of all that was added to weight and bias."""
        weight = -sum((x.T @ move for x, move in self._steps), torch.zeros(self.weight.shape[-2:]))
        return weight, -sum((move.sum(dim=0) for _, move in self._steps), torch.zeros(self.weight.shape[-1]))

    def now(self) -> tuple[Tensor, Tensor]:
        """Where each client stands, shapes [n, d_in, d_out] and [n, d_out]."""
        inputs, moves = (torch.stack(each, dim=1) for each in zip(*self._steps, strict=True))
        start = self.weight.expand(len(inputs), *self.weight.shape[-2:])
        return torch.baddbmm(start, inputs.mT, moves, alpha=-1), self.bias - moves.sum(dim=1)


class SteppedRows:
    """A last layer of which every client reads and moves some rows only: y_i = ⟨x, W_i⟩ + b_i.

    Parameters
    ----------
    places
        The rows of each client, each once.
    weight, bias
        Where all start, shapes [n_rows, d_in] and [n_rows].
    """

    def __init__(self, places: Pattern, weight: Tensor, bias: Tensor) -> None:
        self.places, self.weight, self.bias = places, weight, bias
        self._start = bias[places.column_index]
        self._steps: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x: Tensor) -> Tensor:
        """Its output at the places, shape [len(places)], for inputs of shape [n, d_in]."""
        out = pair_scores(self.places, x, self.weight) + self._start
        for before, move in self._steps:
            out -= move * ((before * x).sum(dim=1) + 1)[self.places.rows]
        return out

    def back(self, grad: Tensor) -> Tensor:
        """The gradient of its input, shape [n, d_in], from that of its output."""
        out = self.places.times(grad, self.weight)
        for before, move in self._steps:
            out -= row_sums(self.places, move * grad)[:, None] * before
        return out

    def step(self, x: Tensor, move: Tensor) -> None:
        """W_i -= move_i x and b_i -= move_i; shapes [n, d_in] and [len(places)]."""
        self._steps.append((x, move))

    def change(self) -> tuple[Tensor, Tensor]:
        """The sum over clients of all that was added to weight and bias."""
        weight = -sum((self.places.transposed_times(move, x) for x, move in self._steps), torch.zeros(()))
        moves = sum((move for _, move in self._steps), torch.zeros(len(self.places)))
        return weight, torch.zeros(len(self.bias)).index_add(0, self.places.column_index, -moves)


class SteppedInput:
    """A first layer that reads the same input in every step, so that all its steps are one vector.

    Every step adds x ⊗ d: the layer is W - x ⊗ D, b - D with D the sum of all d, in which x may have up to |I| entries
    and D has d_out. It reads another input y as y W + b - (⟨x, y⟩ + 1) D.

    Parameters
    ----------
    read
        x W + b at the start, shape [n, d_out].
    reach
        ‖x‖² + 1, shape [n, 1].
    moved
        D so far, shape [n, d_out].
    """

    def __init__(self, read: Tensor, reach: Tensor, moved: Tensor) -> None:
        self.read, self.reach, self.moved = read, reach, moved

    def __call__(self) -> Tensor:
        """Its output, shape [n, d_out]."""
        return self.read - self.reach * self.moved

    def step(self, move: Tensor) -> None:
        """W_u -= x ⊗ move and b_u -= move; shape [n, d_out]."""
        self.moved = self.moved + move


def _times(x: Tensor, weight: Tensor) -> Tensor:
    """A product with a weight that is common (shape [d_in, d_out]) or each row's own."""
    return x @ weight if weight.dim() == 2 else torch.bmm(x[:, None], weight)[:, 0]
