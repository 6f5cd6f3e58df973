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

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retract.federation import Arrays
from retract.systems.personalfr.config import PersonalFRConfig


def balance(found: Arrays, tables: Arrays, config: PersonalFRConfig) -> NDArray[np.float32]:
    """The g of every row, shape [n_items, hidden + 1], from sums of `Pull` at these tables; b does not decay."""
    decayed = np.pad(tables["output.weight"], ((0, 0), (0, 1)))
    strength = ridge(found["holders"], config.output_decay, config)[:, None].astype(np.float32)
    g: NDArray[np.float32] = found["pull"] + strength * decayed
    return g


def without(
    found: Arrays, then: NDArray[np.float32], tables: Arrays, config: PersonalFRConfig
) -> dict[str, NDArray[np.float32]]:
    """The last layer where it balances as it did; rows that nobody holds any more are zeros.

    Parameters
    ----------
    found
        Sums of `Pull` at these tables, over who is left.
    then
        `balance` at these tables, over all who were there.
    """
    total = max(float(found["stiffness"].sum()), 1e-30)
    spread, along = np.linalg.eigh(found["shape"].astype(np.float64) / total)
    damping = ridge(found["holders"], config.output_decay + 2 * (1 - config.server_momentum) / config.rounds, config)
    stiffness = found["stiffness"][:, None] * np.maximum(spread, 0) + damping[:, None]
    moved = ((then - balance(found, tables, config)).astype(np.float64) @ along / stiffness) @ along.T
    rows = np.column_stack([tables["output.weight"], tables["output.bias"]]) + moved.astype(np.float32)
    rows *= (found["holders"] > 0)[:, None]
    return {"output.weight": np.ascontiguousarray(rows[:, :-1]), "output.bias": rows[:, -1].copy()}


def ridge(holders: NDArray[Any], decay: float, config: PersonalFRConfig) -> NDArray[np.float64]:
    """The λ of rows that so many clients hold and that decay so much in a round, float64, shape [n_items]."""
    n = np.maximum(holders.astype(np.float64), 1)
    found: NDArray[np.float64] = n * decay / (config.rate * config.local_epochs * (1 - (1 - config.participation) ** n))
    return found
