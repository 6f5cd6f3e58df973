"""What clients leave in the decoder's last layer, and the step that takes it out again, from sums of `Pull`.

Training stops where the pulls of all clients on a row w of the last layer, and its decay, nearly balance:

    g(w) = Σ_u ∂loss_u / ∂w + λ w,   λ = n decay / (rate · epochs · (1 - (1 - p)ⁿ))

for a row that n clients hold, each of which takes part in a round with probability p: the server takes the mean over
who holds a row in a round, and decays it in every round. Whoever leaves takes a pull away, and the row moves to where
the others' pulls leave the same g:

    w + H⁻¹ (g_then - g_now),   H = Σ_u ∂²loss_u / ∂w² + λ I

which is the influence function of leaving (Koh and Liang, ICML 2017, section 2). Every row has an H of its own; here
all share the shape of one, the mean of h hᵀ over what clients hold, each times how stiff its own losses are: one sum
over clients of hidden x hidden numbers instead of one for every row. Training stops before the balance is struck,
which holds rows like a decay of 2 (1 - momentum) / rounds more; so it stands in H, and not in g.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from retract.systems.personalfr.config import PersonalFRConfig


def balance(found: Mapping[str, Tensor], tables: Mapping[str, Tensor], config: PersonalFRConfig) -> Tensor:
    """The g of every row, shape [n_items, hidden + 1], from sums of `Pull` at these tables; b does not decay."""
    decayed = torch.cat([tables["output.weight"], torch.zeros(len(found["holders"]), 1)], dim=1)
    return found["pull"] + ridge(found["holders"], config.output_decay, config)[:, None].float() * decayed


def without(
    found: Mapping[str, Tensor], then: Tensor, tables: Mapping[str, Tensor], config: PersonalFRConfig
) -> dict[str, Tensor]:
    """The last layer where it balances as it did; rows that nobody holds any more are zeros.

    Parameters
    ----------
    found
        Sums of `Pull` at these tables, over who is left.
    then
        `balance` at these tables, over all who were there.
    """
    total = found["stiffness"].sum().clamp_min(1e-30)
    spread, along = torch.linalg.eigh(found["shape"].double() / total)
    held = found["holders"] > 0
    damping = ridge(found["holders"], config.output_decay + 2 * (1 - config.server_momentum) / config.rounds, config)
    stiffness = found["stiffness"][:, None] * spread.clamp_min(0) + damping[:, None]
    moved = ((then - balance(found, tables, config)).double() @ along / stiffness) @ along.T
    rows = torch.cat([tables["output.weight"], tables["output.bias"][:, None]], dim=1) + moved.float()
    rows *= held[:, None]
    return {"output.weight": rows[:, :-1].contiguous(), "output.bias": rows[:, -1].contiguous()}


def ridge(holders: Tensor, decay: float, config: PersonalFRConfig) -> Tensor:
    """The λ of rows that so many clients hold and that decay so much in a round, float64, shape [n_items]."""
    n = holders.double().clamp_min(1)
    return n * decay / (config.rate * config.local_epochs * (1 - (1 - config.participation) ** n))
