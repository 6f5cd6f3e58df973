"""Exact in its three forms, and how far its tables are from those of a training that never knew."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from retract.data import Interactions, Sharing
from retract.federation import Clients, LocalEngine
from retract.systems.base import Kind, Trained, withdraw
from retract.systems.exact import Exact, ExactConfig
from retract.systems.exact.server import solve

FORMS = ["ease", "filter", "block"]


def exact(form: str, exponent: float = 0.5, ridge: float = 2.0, head: int = 40, **settings: object) -> Exact:
    """Small enough a λ that mistakes show, and a head that leaves some items out of data of 60."""
    values = {"form": form, "ease_exponent": exponent, "filter_exponent": exponent, "ridge": ridge, "head": head}
    return Exact(ExactConfig.model_validate({**values, **settings}))


def train(system: Exact, data: Interactions, share: float = 1.0) -> tuple[Trained, Clients]:
    clients = Clients(Sharing.by_ratio(data, share))
    return system.train(clients.sharing.shared, LocalEngine(clients), seed=0), clients


def unlearn(
    system: Exact, trained: Trained, clients: Clients, forget: Interactions, kind: Kind = "unshare"
) -> tuple[Trained, Clients]:
    after, withdrawal = withdraw(clients, kind, forget)
    return system.unlearn(trained, withdrawal, LocalEngine(after), seed=0), after


def copied(model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: table.clone() for name, table in model.items()}


def assert_same_tables(got: Mapping[str, Tensor], want: Mapping[str, Tensor], inverse: float = 0.0) -> None:
    """To the last bit, types and structure included, but for P: that one to a relative Frobenius distance."""
    assert set(got) == set(want)
    for name, table in want.items():
        if name == "inverse" and inverse:
            assert got[name].shape == table.shape
            assert float((got[name] - table).norm() / table.norm()) <= inverse
        else:
            torch.testing.assert_close(got[name], table, rtol=0, atol=0, msg=lambda text, name=name: f"{name}: {text}")


def assert_never_knew(system: Exact, trained: Trained, within: float = 1e-9) -> None:
    """The tables are those of a training on what the server still holds."""
    assert_same_tables(trained.model, solve(trained.shared, system.config).model, within)
