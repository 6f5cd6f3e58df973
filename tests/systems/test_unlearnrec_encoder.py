"""Influence encoders and what they learn from."""

import numpy as np
import pytest
import torch

from retract.data import Interactions
from retract.errors import DataError
from retract.models.learn.graph import BipartiteGraph
from retract.systems.unlearnrec.encoder import CalibratedEncoder, PaperEncoder, Removal, make_encoder
from retract.systems.unlearnrec.pretraining import Margins, any_part, part_of, pushed_down, withheld
from tests.models.test_graph import dense_adjacency
from tests.systems.unlearnrec_world import (
    BACKBONES,
    DATA,
    ENGINE,
    FORMS,
    encoder_of,
    ready_with,
    same,
    some_edges,
    system_with,
    trained_with,
)

N_NODES = DATA.n_users + DATA.n_items


def removal_of(forget: Interactions, **settings: object) -> Removal:
    """Of random nodes: an encoder takes any."""
    config = system_with(**settings).config
    nodes = torch.randn(N_NODES, config.dimension, generator=torch.Generator().manual_seed(1))
    return Removal(BipartiteGraph(DATA - forget), forget, nodes, config)


def disturbed(encoder: torch.nn.Module) -> torch.nn.Module:
    """The encoder with weights as if it had been trained."""
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in encoder.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=draw)
    return encoder


# --- the encoders -----------------------------------------------------------------------------------------------------


def test_the_calibrated_encoder_is_as_large_for_many_nodes_as_for_few():
    few, many = (make_encoder(system_with().config, nodes, 0).state_dict() for nodes in (10, 10_000))
    assert {name: tensor.shape for name, tensor in few.items()} == {name: tensor.shape for name, tensor in many.items()}
    paper = make_encoder(system_with(encoder="paper").config, 10_000, 0).state_dict()
    assert paper["table"].shape == (10_000, 8)


@pytest.mark.parametrize("form", FORMS)
def test_an_encoder_depends_on_its_seed_alone_and_draws_nothing_from_others(form):
    config, state = system_with(encoder=form).config, torch.random.get_rng_state()
    one, again, other = (make_encoder(config, N_NODES, seed).state_dict() for seed in (3, 3, 4))
    assert same(dict(one), dict(again))
    assert not same(dict(one), dict(other))
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_calibrated_encoder_leaves_alone_whom_the_forgotten_do_not_touch(backbone):
    forget = some_edges(part=0.02)
    removal = removal_of(forget, backbone=backbone, pull_back=False)
    moved = disturbed(CalibratedEncoder(8))(removal).detach().abs().sum(dim=1).numpy() > 0
    assert set(np.flatnonzero(moved)) == set(np.union1d(forget.users, forget.items + DATA.n_users))


def test_a_fresh_calibrated_encoder_takes_a_positive_part_of_the_guess_away():
    removal = removal_of(some_edges())
    change = CalibratedEncoder(8)(removal).detach()
    (guess,) = removal.guesses
    touched = guess.abs().sum(dim=1) > 0
    parts = -change[touched] / guess[touched]
    assert parts.min() > 0
    torch.testing.assert_close(parts, parts[:, :1].expand_as(parts), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_what_is_pulled_back_and_what_is_not_are_gated_apart(backbone):
    removal = removal_of(some_edges(), backbone=backbone, pull_back=True)
    (influence,) = removal_of(some_edges(), backbone=backbone, pull_back=False).guesses
    seen, unseen = removal.guesses
    through = removal.backbone.final(removal.graph, seen)
    # What is pulled back comes much nearer to the change that was asked for than doing nothing does.
    assert (through - influence).norm() < 0.6 * influence.norm()
    assert removal.backbone.final(removal.graph, unseen).norm() < 0.5 * influence.norm()
    change = CalibratedEncoder(8, pulled_back=True)(removal).detach()
    parts = -torch.linalg.lstsq(torch.stack([seen, unseen], dim=2), change[:, :, None]).solution
    assert parts[removal.share > 0].min() > 0
    nothing = removal_of(Interactions.empty(DATA.catalog), backbone=backbone, pull_back=True)
    assert not disturbed(CalibratedEncoder(8, pulled_back=True))(nothing).any()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_papers_encoder_is_its_formula_over_dense_graphs(backbone):
    forget = some_edges()
    removal = removal_of(forget, backbone=backbone, encoder="paper")
    encoder = disturbed(PaperEncoder(N_NODES, 8, layers=2, hops=3))
    gone, left = dense_adjacency(forget), dense_adjacency(DATA - forget)
    spread = encoder.table + gone @ encoder.table + gone @ gone @ encoder.table
    kept = (spread + left @ spread + left @ left @ spread + left @ left @ left @ spread) / 4
    change = kept - encoder.strength * gone @ gone @ (removal.final * encoder.rate)
    layers = encoder.feed_forward
    inner = torch.tanh(torch.cat([change, removal.nodes], dim=1) @ layers.inner.weight.T + layers.inner.bias)
    want = change + inner @ layers.outer.weight.T + layers.outer.bias
    torch.testing.assert_close(encoder(removal), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_node_without_an_edge_left_is_zero_whatever_the_encoder_says(form):
    forget = DATA.where((DATA.users == 3) | (DATA.items == 5))
    removal = removal_of(forget, encoder=form)
    nodes = removal.applied(disturbed(make_encoder(removal.config, N_NODES, 0)))
    assert np.flatnonzero(nodes.abs().sum(dim=1).detach().numpy() == 0).tolist() == [3, DATA.n_users + 5]
    assert torch.isfinite(nodes).all()


# --- pre-training -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_preparing_leaves_the_model_as_it_was_and_says_what_it_did(form):
    system, trained = trained_with(encoder=form)
    before = {name: table.copy() for name, table in trained.model.items()}
    nodes = system.nodes(trained).copy()
    ready = ready_with(encoder=form)[1]
    assert not encoder_of(trained)
    for one in (trained, ready):
        assert same(dict(one.model), before)
        assert np.array_equal(system.nodes(one), nodes)
        assert one.shared == DATA
    done = ready.log[len(trained.log) :]
    assert [(record["stage"], record["round"]) for record in done] == [("pre-training", step) for step in range(3)]
    assert all(np.isfinite(record["loss"]) and record["unlearning"] >= 0 for record in done)
    assert ("robustness" in done[0]) == (form == "paper")


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_the_same_seed_gives_the_same_encoder_and_another_seed_another(form):
    system, trained = trained_with(encoder=form)
    again = system.prepare(trained, ENGINE, seed=0)
    assert same(dict(again.memory.tables), dict(ready_with(encoder=form)[1].memory.tables))
    assert not same(encoder_of(again), encoder_of(system.prepare(trained, ENGINE, seed=1)))


def test_pre_training_fits_the_gate_of_the_calibrated_encoder_and_all_of_the_papers():
    for form, still in (("calibrated", "feed_forward"), ("paper", "nothing")):
        system, ready = ready_with(encoder=form)
        fresh = make_encoder(system.config, N_NODES, 0).state_dict()
        for name, table in encoder_of(ready).items():
            part = name.removeprefix("encoder.")
            assert np.array_equal(table, fresh[part]) == (part.startswith(still)), name


def test_too_little_to_withhold_is_refused_with_what_to_do():
    system, few = system_with(), DATA.where(np.arange(len(DATA)) == 0)
    with pytest.raises(
        DataError, match=r"^1 shared interactions are too few to withhold .*: share more, .*encoder=paper"
    ):
        system.prepare(system.train(few, ENGINE, seed=0), ENGINE, seed=0)


# --- forget sets and targets ------------------------------------------------------------------------------------------


def test_a_twin_lacks_everything_of_some_users_and_a_little_of_most():
    gone = withheld(DATA, 0.1, 4)
    parts = gone.user_degrees() / DATA.user_degrees()
    assert (parts == 1).sum() >= 1
    assert 0.08 < len(gone) / len(DATA) < 0.25
    assert np.median(parts) < 0.2
    assert withheld(DATA, 0.1, 4) == gone
    assert withheld(DATA, 0.1, 5) != gone


def test_forget_sets_out_of_what_was_withheld_become_smaller_and_stay_within_it():
    gone = withheld(DATA, 0.3, 0)
    sets = [part_of(gone, number, 0) for number in range(4)]
    assert sets[0] == gone
    assert [len(one) for one in sets] == sorted((len(one) for one in sets), reverse=True)
    assert all(len(one) > 0 and not len(one - gone) for one in sets)


def test_the_papers_forget_sets_are_edges_at_a_rate_and_now_and_then_whole_users():
    sets = [any_part(DATA, number, 0) for number in range(40)]
    for number, forget in enumerate(sets):
        parts = forget.user_degrees() / np.maximum(DATA.user_degrees(), 1)
        assert set(parts[parts > 0]) <= {1.0} if number % 4 == 3 else len(forget) < 0.15 * len(DATA)
    assert sum(len(forget) > 0 for forget in sets[3::4]) >= 5


def test_a_forget_set_that_turns_out_empty_asks_for_nothing():
    example = pushed_down(removal_of(Interactions.empty(DATA.catalog), encoder="paper"), drop=0.1, seed=0)
    final = torch.randn(N_NODES, 8, requires_grad=True)
    loss = example.unlearning(torch.zeros(0), final)
    loss.backward()
    assert loss == 0
    assert not final.grad.any()


def test_margins_are_over_items_that_a_user_never_had_and_leave_out_whom_the_other_model_does_not_know():
    forget = some_edges(1, 0.1) | DATA.of_users([7])
    margins = Margins.of(forget, DATA, DATA - forget, seed=0)
    users, items, others = (codes.numpy() for codes in (margins.users, margins.items, margins.others))
    assert len(users) > 0.7 * len(forget)
    assert 7 not in users
    assert Interactions.of(DATA.catalog, users, items) - forget == Interactions.empty(DATA.catalog)
    assert not len(Interactions.of(DATA.catalog, users, others) & DATA)


def test_margins_are_met_where_the_means_of_classes_stand_as_the_targets_do():
    forget = some_edges(1, 0.1)
    margins, final = Margins.of(forget, DATA, DATA - forget, seed=0), torch.randn(N_NODES, 8)
    each = margins.each(final, DATA.n_users)
    scores = (final[margins.users] * (final[margins.items + 120] - final[margins.others + 120])).sum(dim=1)
    torch.testing.assert_close(each, scores)
    mixed = each.clone()
    for number in margins.classes.unique().tolist():
        inside = (margins.classes == number).nonzero()[:, 0]
        mixed[inside] = each[inside.flip(0)]
    torch.testing.assert_close(margins.apart(mixed, each), torch.tensor(0.0))
    won, missed = torch.tanh(4 * each / each.square().mean().sqrt()), 0.0
    for number in margins.classes.unique().tolist():
        inside = margins.classes == number
        missed += float(won[inside].sum().square() / inside.sum()) / len(each)
    torch.testing.assert_close(margins.apart(torch.zeros_like(each), each, 0.25), torch.tensor(missed))
    torch.testing.assert_close(margins.apart(each + 2 * each.square().mean().sqrt(), each), torch.tensor(4.0))
