"""Federations of real processes: Flower's SuperLink with TLS and keys, SuperNodes, and the commands that people use."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.federation import measure
from benchmarks.federations import Federation, with_shared
from retract.data import Dataset, load
from retract.stores.folder import TrainedFolder
from retract.stores.node import NodeFolder

pytest.importorskip("flwr")
pytestmark = [pytest.mark.slow, pytest.mark.waits, pytest.mark.timeout(600)]

SHORT = {"start_rounds": 3, "rounds": 2, "dimension": 8}
"""A FedShare of five rounds."""


def few_users() -> Dataset:
    """Sixty users of MovieLens-small and the items that several of them hold, half of it shared."""
    found = load("movielens-small")
    some = found.only(found.interactions.users < 60)
    held = some.interactions
    return with_shared(some.only((held.item_degrees() >= 4)[held.items]), 0.5)


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Federation]:
    """Three nodes and a server, running."""
    with Federation(tmp_path, 3) as made:
        made.deal(few_users())
        made.start_server()
        for name in made.names:
            made.start_node(name)
        yield made


def model_of(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(table) for name, table in TrainedFolder(folder).load_server().model.items()}


def same(mine: dict[str, Any], theirs: dict[str, Any]) -> bool:
    return mine.keys() == theirs.keys() and all(np.array_equal(mine[name], theirs[name]) for name in mine)


def start_training(federation: Federation, out: Path, *options: object, name: str = "run") -> None:
    """Begin a training in the background."""
    settings = [word for key, value in SHORT.items() for word in ("--set", f"{key}={value}")]
    more = ["--nodes", len(federation.names), "--items", federation.items, "--json"]
    words = ["federate", "run", "fedshare", "--out", out, *settings, *more, *federation.reached, *options]
    federation.start(name, *words)


def wait_for_round(out: Path, round: int, seconds: float = 60.0) -> None:
    """Wait until the place of a training is kept as of a round."""
    until = time.monotonic() + seconds
    place = out / "server" / "training" / "place.json"
    while time.monotonic() < until:
        if place.exists():
            told = json.loads(place.read_bytes())
            if len(told["log"]) >= round:
                return
        time.sleep(0.05)
    raise AssertionError(f"round {round} was not reached")


@pytest.mark.parametrize(("name", "settings"), [("fedshare", SHORT), ("exact", None)])
def test_the_model_is_the_local_engines_and_the_wire_weighs_what_is_reported(
    tmp_path: Path, name: str, settings: dict[str, object] | None
) -> None:
    found = measure(name, replace(few_users(), is_shared=None), tmp_path, settings)
    for row in found["rows"]:
        assert row["scores_gap"] <= 1e-4, row
        if name == "exact":
            assert row["equal"], row
    trained = found["rows"][0]
    wire = trained["wire_up"] + trained["wire_down"]
    reported = trained["reported_up"] + trained["reported_down"]
    assert 0 < wire - reported < 0.1 * reported + 400_000  # of so small a model the polling is the larger part


def test_a_life_train_recommend_erase_forget(federation: Federation, tmp_path: Path) -> None:
    out = tmp_path / "m"
    report = federation.train("fedshare", out, SHORT)
    assert (report["nodes"], report["users"], report["rounds"]) == (3, 60, 5)
    user = NodeFolder(federation.node("n0")).devices.sharing.shared.catalog.known_users[0]
    found = federation.json("federate", "recommend", federation.node("n0"), "--user", user, "-k", 5)
    assert len(found["items"]) == 5
    federation.json("federate", "erase", federation.node("n0"), "--user", user)
    report = federation.unlearn(out)
    assert (report["requests"], report["rounds"]) == (1, 5)
    assert user not in NodeFolder(federation.node("n0")).devices.sharing.shared.catalog.known_users
    status = federation.json("status", out)
    assert (status["private"], status["users"]) == (None, 59)
    assert federation.unlearn(out)["requests"] == 0
    held = {path.relative_to(out).parts[0] for path in out.rglob("*") if path.is_file()}
    assert held == {"server"}


def test_a_node_that_is_killed_in_mid_round_is_missing_and_the_training_ends(
    federation: Federation, tmp_path: Path
) -> None:
    start_training(federation, tmp_path / "m", "--deadline", 12)
    wait_for_round(tmp_path / "m", 1)
    federation.kill("n2")
    report = federation.result("run")
    assert report["rounds"] == 5
    log = TrainedFolder(tmp_path / "m").load_server().log
    answered = [record["answered"] for record in log if "answered" in record]
    assert answered[0] == 60
    assert answered[-1] == 40
    assert "node" in federation.told("run")
    federation.start_node("n2")
    again = federation.train("fedshare", tmp_path / "m", SHORT, "--force")
    assert (again["nodes"], again["users"]) == (3, 60)


def test_a_slow_node_is_missing_from_the_rounds_that_it_misses(federation: Federation, tmp_path: Path) -> None:
    start_training(federation, tmp_path / "m", "--deadline", 9)
    wait_for_round(tmp_path / "m", 1)
    federation.running["n1"].send_signal(signal.SIGSTOP)
    try:
        wait_for_round(tmp_path / "m", 3)
    finally:
        federation.running["n1"].send_signal(signal.SIGCONT)
    assert federation.result("run")["rounds"] == 5
    log = TrainedFolder(tmp_path / "m").load_server().log
    answered = [record["answered"] for record in log if "answered" in record]
    assert answered[0] == 60
    assert 40 in answered
    assert "did not answer within 9 s" in federation.told("run")


def test_a_server_that_is_killed_goes_on_from_its_last_round_bit_for_bit(
    federation: Federation, tmp_path: Path
) -> None:
    federation.train("fedshare", tmp_path / "whole", SHORT)
    out = tmp_path / "m"
    start_training(federation, out)
    wait_for_round(out, 2)
    federation.kill("run")
    federation.kill("server")
    time.sleep(1)
    federation.start_server()
    report = federation.train("fedshare", out, SHORT, "--resume")
    assert report["resumed_at"] is not None
    assert report["rounds"] <= 3
    assert same(model_of(out), model_of(tmp_path / "whole"))


def test_a_node_that_is_restarted_keeps_its_users_state(federation: Federation, tmp_path: Path) -> None:
    federation.train("fedshare", tmp_path / "whole", SHORT)
    out = tmp_path / "m"
    start_training(federation, out)
    wait_for_round(out, 4)
    federation.kill("run")
    for name in federation.names:
        federation.kill(name)
    time.sleep(1)
    for name in federation.names:
        federation.start_node(name)
    federation.train("fedshare", out, SHORT, "--resume")
    assert same(model_of(out), model_of(tmp_path / "whole"))


def test_a_late_joiner_takes_part_in_the_next_training(tmp_path: Path) -> None:
    with Federation(tmp_path, 3) as federation:
        federation.deal(few_users())
        federation.start_server()
        for name in ("n0", "n1"):
            federation.start_node(name)
        federation.names = ["n0", "n1"]
        start_training(federation, tmp_path / "m")
        wait_for_round(tmp_path / "m", 1)
        federation.start_node("n2")
        assert federation.result("run")["users"] == 40
        federation.names = ["n0", "n1", "n2"]
        assert federation.train("fedshare", tmp_path / "m", SHORT, "--force")["users"] == 60


def test_strangers_are_refused_in_one_line(federation: Federation, tmp_path: Path) -> None:
    other = tmp_path / "other"
    federation.command("federate", "keys", other, "--node", "x")
    words = ["federate", "client", federation.node("n0"), "--server", federation.address]
    node_key = federation.keys / "nodes" / "n0.key"
    for name in federation.names:
        federation.end(name)

    def refused(*more: object) -> str:
        done = federation.command(*words, *more, code=2, seconds=90)
        assert done.stderr.strip().count("\n") <= 1, done.stderr
        return done.stderr

    assert "not vouched for" in refused("--ca", other / "ca.crt", "--key", node_key)
    stranger = refused("--ca", federation.keys / "ca.crt", "--key", other / "nodes" / "x.key")
    assert "does not let this node in" in stranger
    busy = federation.command("federate", "server", "--keys", federation.keys, "--port", federation.port, code=2)
    assert "cannot be used" in busy.stderr
    run = ["federate", "run", "exact", "--out", tmp_path / "m", "--items", federation.items]
    few = federation.command(*run, *federation.reached, "--wait", 1, code=2)
    assert "0 of 1 node(s)" in few.stderr
    assert not (tmp_path / "m").exists()


def test_the_control_door_is_shut_to_other_machines() -> None:
    from retract.federation.flower.superlink import is_near

    assert is_near({"client": ("127.0.0.1", 1)})
    assert is_near({"client": ("::1", 1)})
    assert not is_near({"client": ("10.0.0.7", 1)})
    assert not is_near({"client": None})
