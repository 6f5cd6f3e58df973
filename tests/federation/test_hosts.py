"""A federation of hosts of their own: network namespaces that reach nothing but each other."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.federations import with_shared
from benchmarks.hosts import Hosts, why_not
from retract.data import Dataset, Sharing, load
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.local import engine_of
from retract.systems.registry import make_system

pytest.importorskip("flwr")
pytestmark = [pytest.mark.slow, pytest.mark.waits, pytest.mark.timeout(600)]

SETTINGS = {"form": "ease", "count_private": True}


def few_users() -> Dataset:
    """Thirty users of MovieLens-small and the items that several of them hold, half of it shared."""
    found = load("movielens-small")
    some = found.only(found.interactions.users < 30)
    return with_shared(some.only((some.interactions.item_degrees() >= 4)[some.interactions.items]), 0.5)


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_hosts_that_reach_nothing_but_each_other_train_and_forget_what_one_machine_does(tmp_path: Path) -> None:
    data, out = few_users(), tmp_path / "model"
    with Hosts(tmp_path, 3) as federation:
        federation.deal(data)
        federation.start_server()
        for name in federation.names:
            federation.start_node(name)
        report = federation.train("exact", out, SETTINGS)
        assert (report["nodes"], report["rounds"]) == (3, 1)
        system = make_system("exact", SETTINGS)
        shared = data.shared
        assert shared is not None
        devices = MemoryDevices(Sharing(shared, data.interactions - shared))
        trained = system.server.train(devices.sharing.shared, engine_of(system, devices), seed=0)
        found = TrainedFolder(out).load_server().model["inverse"]
        np.testing.assert_array_equal(found, trained.model["inverse"])
        user = str(data.interactions.catalog.user_ids[0])
        federation.command("federate", "erase", federation.node("n0"), "--user", user, on="n0")
        assert federation.unlearn(out)["requests"] == 1
