"""Backbones with settings: their training, in full batch and by minibatches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from retract.errors import ConfigError
from retract.evaluation.ranking import evaluate
from retract.models.recommender import DotProduct
from retract.systems import backbone_training
from retract.systems.backbone import BACKBONE_DEFAULTS, BackboneConfig
from retract.systems.backbone_training import Fitting
from retract.systems.central import begun
from retract.systems.settings import read_settings
from tests.samples import checkerboard

TRAIN, TEST = checkerboard()
NAMES = ["lightgcn", "sgl", "simgcl"]
SMALL = {"dimension": 8, "epochs": 40, "layers": 2, "rate": 0.05, "contrast_weight": 0.01}


def trained(seed: int = 0, **settings: object) -> dict[str, np.ndarray]:
    config = BackboneConfig.model_validate({**SMALL, **settings})
    nodes, log = backbone_training.learn(config, TRAIN, begun("backbone", config, seed, None))
    assert [record["round"] for record in log] == list(range(config.epochs))
    assert log[-1]["loss"] < log[0]["loss"]
    return backbone_training.tables(config, TRAIN, nodes)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [0, 100])
def test_every_backbone_learns_the_checkerboard(name, batch):
    tables = trained(backbone=name, batch=batch)
    assert evaluate(DotProduct(tables["users"], tables["items"]), TRAIN, TEST, 4).mean()["recall@4"] > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [0, 100])
def test_training_depends_on_its_seed_alone(name, batch):
    one, again, other = (trained(seed, backbone=name, batch=batch, epochs=5)["users"] for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_training_leaves_its_start_as_it_was_and_minimises_the_objective(name):
    config = BackboneConfig.model_validate({"backbone": name, "dimension": 8, "layers": 2})
    start = backbone_training.start(config, TRAIN, 0)
    before = start.copy()
    fitting = Fitting(config, TRAIN, start, seed=3, rate=config.rate)
    log = [fitting.epoch(number) for number in (7, 8)]
    assert np.array_equal(start, before)
    loss = backbone_training.objective(config, TRAIN, seed=3)(torch.from_numpy(start), 7)
    assert float(loss) == pytest.approx(log[0]["loss"], rel=1e-6)
    assert not np.array_equal(fitting.nodes, start)


def test_going_on_leaves_what_was_trained_as_it_was_and_numbers_its_epochs_from_where_training_ended():
    config = BackboneConfig.model_validate({**SMALL, "epochs": 4})
    start = backbone_training.start(config, TRAIN, 0)
    before = start.copy()
    nodes, log = backbone_training.go_on(config, TRAIN, start, 3, seed=1)
    assert np.array_equal(start, before)
    assert [record["round"] for record in log] == [4, 5, 6]
    # A first step of Adam moves nothing further than its rate, and going on is at a tenth of the settings'.
    assert 0 < np.abs(nodes - start).max() <= 3 * config.rate / 10 * 1.2


def test_a_table_that_cannot_be_written_into_can_be_gone_on_from():
    config = BackboneConfig.model_validate({**SMALL, "epochs": 2})
    start = backbone_training.start(config, TRAIN, 0)
    start.flags.writeable = False
    checkpoint = replace(begun("backbone", config, 0, None), done=1, tables={"nodes": start})
    assert [record["round"] for record in backbone_training.learn(config, TRAIN, checkpoint)[1]] == [1]


def test_the_objective_among_some_edges_is_their_part_of_the_ranking():
    config, keep = BackboneConfig(dimension=8), np.arange(len(TRAIN)) % 3 == 0
    nodes = torch.from_numpy(backbone_training.start(config, TRAIN, 0))
    whole, some, others = (
        backbone_training.objective(config, TRAIN, seed=0, among=among)(nodes, 2)
        for among in (TRAIN, TRAIN.where(keep), TRAIN.where(~keep))
    )
    torch.testing.assert_close(some + others, whole)
    assert 0 < float(some) < float(whole)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_given_is_the_backbones_own_default(name):
    config = BackboneConfig.model_validate({"backbone": name, "rate": 0.5})
    for setting, value in BACKBONE_DEFAULTS[name].items():
        assert getattr(config, setting) == (0.5 if setting == "rate" else value)
    assert BackboneConfig.model_validate(config.model_dump()) == config


def test_simgcl_without_layers_is_refused():
    with pytest.raises(ConfigError, match="layers is 0: simgcl is the mean of the layers 1 to L"):
        read_settings("unlearnrec", BackboneConfig, {"backbone": "simgcl", "layers": "0"})
