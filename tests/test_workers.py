"""Who computes: results are the same whoever it is, and a worker that is killed costs its pieces alone."""

import os
import signal
from functools import partial

import numpy as np
import polars as pl
import pytest

from retract.data import load
from retract.errors import ConfigError, DataError, WorkerError
from retract.systems.exact.closed_form import solve
from retract.systems.exact.config import ExactConfig
from retract.systems.exact.settling import settled
from retract.workers import THREADS, computing_by, engine, workers
from tests.cli.commands import retract
from tests.samples import random_interactions

pytest.importorskip("ray", reason="the extra distributed is not installed")


@pytest.fixture(scope="module")
def ray_found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "2")
        patch.delenv("RAY_ADDRESS", raising=False)
        from retract.ray_workers import ray_workers

        with ray_workers() as found:
            yield found


def scaled(piece, table, by):
    return (table[piece] * by).sum()


def killed_once(piece, marks):
    """The first who comes to piece 2 is killed at it."""
    mark = os.path.join(marks, "killed")
    if piece == 2 and not os.path.exists(mark):
        with open(mark, "w"):
            pass
        os.kill(os.getpid(), signal.SIGKILL)
    return 10 * piece


def always_killed(piece):
    os.kill(os.getpid(), signal.SIGKILL)


def refuses(piece):
    raise DataError(f"piece {piece} is damaged: write it anew")


def test_our_own_threads_compute_unless_others_are_named():
    assert workers() is THREADS
    with pytest.raises(ConfigError, match="engine 'dask' is not known: take local or ray"), engine("dask"):
        pass
    with engine("local"):
        assert workers() is THREADS


@pytest.mark.slow
def test_rays_workers_give_what_threads_give_in_the_order_of_the_pieces(ray_found):
    table = np.arange(20.0)
    for by in (THREADS, ray_found):
        lent = by.lend(table)
        pieces = [slice(0, 3), slice(3, 4), slice(4, 20)]
        assert list(by.map(scaled, pieces, lent, 2.0)) == [6.0, 6.0, 368.0]
        assert list(by.map(partial(scaled, by=3.0), pieces[:1], table)) == [9.0]
        assert list(by.map(scaled, [])) == []
    assert ray_found.count == 2


@pytest.mark.slow
def test_a_killed_worker_costs_its_pieces_alone(ray_found, tmp_path):
    assert list(ray_found.map(killed_once, range(5), str(tmp_path))) == [0, 10, 20, 30, 40]
    assert (tmp_path / "killed").exists()
    with pytest.raises(WorkerError, match=r"^workers of Ray were lost 4 times at the same piece.*--engine local$"):
        list(ray_found.map(always_killed, range(2)))


@pytest.mark.slow
def test_a_workers_own_refusal_is_told_as_it_is(ray_found):
    with pytest.raises(DataError, match=r"^piece 0 is damaged: write it anew$"):
        list(ray_found.map(refuses, range(3)))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"form": "ease"},
        {"form": "spectral", "dimension": 5},
        {"form": "filter", "neighbours": 0},
        {"form": "filter", "neighbours": 6},
    ],
)
def test_every_form_is_the_same_to_the_last_bit_whoever_sums(ray_found, settings, monkeypatch):
    monkeypatch.setattr("retract.models.gram.WORTH_SHARING", 0)
    data = random_interactions(3)
    config = settled(data, ExactConfig.model_validate(settings), 0).config
    want = solve(data, config).model
    with computing_by(ray_found):
        again = settled(data, ExactConfig.model_validate(settings), 0).config
        found = solve(data, config).model
    assert again == config
    assert found.keys() == want.keys()
    for name, table in want.items():
        np.testing.assert_array_equal(found[name], table)


@pytest.mark.slow
def test_a_model_is_trained_from_parts_by_ray_and_forgets(ray_found, tmp_path):
    draw = np.random.default_rng(0)
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in range(3):
        frame = {"user": draw.integers(0, 40, 200), "item": draw.integers(0, 60, 200)}
        pl.DataFrame(frame).write_parquet(parts / f"{number}.parquet")
    held = {}
    for name in ("local", "ray"):
        made = tmp_path / name
        found = retract(
            "train", "exact", "--data", f"{parts}/*.parquet", "--engine", name, "--out", made, "--json"
        ).json
        assert found["interactions"] == len(load(parts).interactions)
        assert retract("erase", made, "--user", "7").code == 0
        assert retract("unlearn", made, "--engine", name).code == 0
        held[name] = next(made.glob("server/versions/*/model.safetensors")).read_bytes()
    assert held["local"] == held["ray"]
    other = ("--data", parts, "--engine", "ray", "--out", tmp_path / "other")
    line = retract("train", "fedshare", "--share", "1", *other).refusal()
    assert "--engine ray is for the sums of exact; fedshare computes here" in line
