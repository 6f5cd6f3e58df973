"""The state of an optimiser, taken out and put back."""

import numpy as np
import pytest
import torch

from retract.models.learn.optimising import adam_tables, restore_adam


def start() -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(37, 5, generator=draw).requires_grad_(), torch.randn(3, generator=draw).requires_grad_()]


def adam_over(parameters: list[torch.Tensor], fused: bool) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.1, betas=(0.9, 0.99), eps=1e-15, fused=fused)


def step(adam: torch.optim.Optimizer, parameters: list[torch.Tensor]) -> None:
    adam.zero_grad()
    sum((parameter - 1).square().sum().sin() for parameter in parameters).backward()
    adam.step()


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
def test_an_optimiser_that_was_put_back_goes_on_bit_for_bit(fused):
    straight = start()
    adam = adam_over(straight, fused)
    assert adam_tables(adam) == {}
    for _ in range(3):
        step(adam, straight)
    kept = {**adam_tables(adam, "one"), "nodes": np.zeros(2)}
    copies = {name: table.copy() for name, table in kept.items()}
    resumed = [parameter.detach().clone().requires_grad_() for parameter in straight]
    for _ in range(4):
        step(adam, straight)
    again = adam_over(resumed, fused)
    restore_adam(again, kept, "one")
    for _ in range(4):
        step(again, resumed)
    assert all(torch.equal(one, other) for one, other in zip(straight, resumed, strict=True))
    assert all(np.array_equal(kept[name], copies[name]) for name in copies)


@pytest.mark.slow
def test_what_is_taken_out_names_every_parameter_and_another_name_restores_nothing():
    parameters = start()
    adam = adam_over(parameters, fused=True)
    step(adam, parameters)
    tables = adam_tables(adam)
    assert set(tables) == {f"adam.{n}.{key}" for n in (0, 1) for key in ("step", "exp_avg", "exp_avg_sq")}
    assert float(tables["adam.1.step"]) == 1
    fresh = adam_over(start(), fused=True)
    restore_adam(fresh, tables, "another")
    assert not fresh.state
