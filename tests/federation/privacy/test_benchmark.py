from __future__ import annotations

import numpy as np
import pytest

from benchmarks.noise import ClippedTerms, Replayed
from benchmarks.secure_sums import Silent
from retract.data import Sharing
from retract.federation import Broadcast, LocalEngine
from retract.federation.privacy import Clip, Keyed, staged
from retract.stores.devices import MemoryDevices
from retract.systems.base import new_run, task_spec
from retract.systems.exact.config import TERM, term_update
from retract.systems.registry import make_system
from tests.samples import random_interactions


@pytest.mark.parametrize("bound", [1.5, 100.0])
def test_clipped_terms_summed_at_once_are_those_of_the_clients_to_the_last_bit(bound):
    train = random_interactions(4, 30)
    system, clip = make_system("exact", {"form": "ease", "count_private": True}), Clip({"gram": bound})
    devices = MemoryDevices(Sharing.by_ratio(train, 0.0))
    engine = Silent(Replayed(LocalEngine(devices, staged(system.device.tasks, [clip], Keyed(0)))), clip)
    spec = task_spec(system.config, "exact", TERM, new_run(), term_update(train.n_items))
    found = [
        each.run(spec, Broadcast(0, {}), train.active_users(), seed=0)
        for each in (engine, ClippedTerms(train, bound, 0.5))
    ]
    assert np.array_equal(found[0].update.tensors["gram"], found[1].update.tensors["gram"])
    assert found[0].update.clients == found[1].update.clients
