"""The state of an Adam as arrays: taken out for a checkpoint, and put back bit for bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray


def adam_tables(adam: torch.optim.Optimizer, name: str = "adam") -> dict[str, NDArray[Any]]:
    """Copies of the moments and of the steps taken of every parameter; empty before the first step.

    Parameters
    ----------
    name
        What the arrays' names begin with, where several optimisers share a checkpoint.

    Returns
    -------
    dict
        ``{name}.{parameter's number}.{step, exp_avg, exp_avg_sq}``.
    """
    return {
        f"{name}.{number}.{key}": value.numpy().copy()
        for number, parameter in enumerate(_parameters(adam))
        for key, value in adam.state.get(parameter, {}).items()
    }


def restore_adam(adam: torch.optim.Optimizer, tables: Mapping[str, NDArray[Any]], name: str = "adam") -> None:
    """Put back what `adam_tables` took out of an optimiser of the same parameters, in the same order.

    Parameters
    ----------
    tables
        Arrays by name, other ones among them; copied.
    """
    for number, parameter in enumerate(_parameters(adam)):
        begin = f"{name}.{number}."
        state = {
            key.removeprefix(begin): torch.from_numpy(table.copy())
            for key, table in tables.items()
            if key.startswith(begin)
        }
        if state:
            adam.state[parameter] = state


def _parameters(adam: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in adam.param_groups for parameter in group["params"]]
