"""What every system owes: inherit `SystemContract` and say which system it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retract.data import Interactions, Sharing
from retract.errors import ConfigError
from retract.federation import (
    NOTHING_KEPT,
    Arrays,
    Broadcast,
    LocalEngine,
    NoDevices,
    RoundResult,
    TaskSpec,
    payload_bytes,
)
from retract.stores.devices import MemoryDevices
from retract.stores.folder import TrainedFolder
from retract.stores.held import Held
from retract.stores.local import engine_of, reader_of, withdraw
from retract.systems.abilities import Extendable, LearnsFromPrivate, Preparing
from retract.systems.base import Checkpoint, Trained, Withdrawal, with_settings
from retract.systems.checks import prepared
from retract.systems.system import System
from tests.tiny import tiny_dataset


class RecordingEngine(LocalEngine):
    """A local engine that also runs every client alone, to weigh its message."""

    alone: list[tuple[int, int]]

    def run(self, spec: TaskSpec, broadcast: Broadcast, users: Any, *, seed: int) -> RoundResult:
        self.alone = getattr(self, "alone", [])
        for user in users[:3]:
            for cohort in self.devices.cohorts(spec, np.array([user]), 10**9):
                task = self.tasks[spec.task](spec)
                state = MemoryDevices(self.devices.sharing).state(task, spec, broadcast.round, cohort, seed)  # type: ignore[attr-defined]
                reply = task(broadcast, cohort, state, seed)
                self.alone.append((payload_bytes(reply.update), int(reply.upload_bytes[0])))
        return super().run(spec, broadcast, users, seed=seed)


@pytest.mark.contract
class SystemContract:
    """The promises of `retract.systems.base`."""

    share = 1.0

    def system(self) -> System:
        """A system with little to do."""
        raise NotImplementedError

    # --- what the tests stand on --------------------------------------------------------------------------------------

    @pytest.fixture
    def data(self) -> Interactions:
        return tiny_dataset().interactions

    def devices(self, data: Interactions) -> MemoryDevices:
        return MemoryDevices(Sharing.by_ratio(data, self.share))

    def trained(self, devices: MemoryDevices, seed: int = 0, **options: Any) -> Trained:
        system = self.system()
        return system.server.train(devices.sharing.shared, engine_of(system, devices), seed=seed, **options)

    def ready(self, devices: MemoryDevices) -> Trained:
        """Trained, and prepared to forget where the system does so."""
        system = self.system()
        return prepared(system.server, self.trained(devices), engine_of(system, devices), seed=0)[0]

    def forget(self, data: Interactions, kind: str) -> tuple[MemoryDevices, Trained, Withdrawal, Trained]:
        """Devices after, model before, the withdrawal, and the model after two users took back everything."""
        system, devices = self.system(), self.devices(data)
        before = self.ready(devices)
        source = devices.sharing.shared if kind == "unshare" else devices.interactions
        after, withdrawal = withdraw(devices, kind, source.of_users([3, 4]))  # type: ignore[arg-type]
        forgotten = system.server.unlearn(before, withdrawal, engine_of(system, after), seed=0)
        return after, before, withdrawal, forgotten

    # --- training -----------------------------------------------------------------------------------------------------

    def test_training_is_a_function_of_data_settings_and_seed(self, data: Interactions) -> None:
        devices = self.devices(data)
        first = self.trained(devices)
        again = self.trained(devices)  # on the very same devices: nothing of the first training may be left in them
        assert same(first.model, again.model)
        assert first.shared == data == again.shared or self.share < 1

    def test_a_model_says_whose_it_is(self, data: Interactions) -> None:
        system, trained = self.system(), self.trained(self.devices(data), seed=5)
        assert (trained.system, trained.seed) == (system.name, 5)
        assert trained.run
        assert trained.log
        assert type(trained.config) is system.type.config
        assert all(isinstance(table, np.ndarray) and np.isfinite(table).all() for table in trained.model.values())

    def test_what_was_interrupted_goes_on_to_the_same_bits(self, data: Interactions) -> None:
        devices, kept = self.devices(data), list[tuple[Checkpoint, MemoryDevices]]()

        def keep(checkpoint: Callable[[], Checkpoint]) -> None:
            kept.append((deepcopy(checkpoint()), devices.copy()))

        whole = self.trained(devices, keep=keep)
        for checkpoint, then in kept[:: max(1, len(kept) // 4)]:
            resumed = self.trained(then, resume_from=checkpoint)
            assert same(resumed.model, whole.model)
            assert same(resumed.memory.tables, whole.memory.tables)
            assert resumed.run == checkpoint.run
        if kept:
            with pytest.raises(ConfigError, match="the interrupted training was another one"):
                self.trained(self.devices(data), seed=1, resume_from=kept[0][0])

    def test_cohorts_and_single_clients_give_one_model(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data)
        small = LocalEngine(self.devices(data), system.device.tasks, cohort_interactions=1)
        one, many = self.trained(devices), system.server.train(devices.sharing.shared, small, seed=0)
        assert near(one.model, many.model, 1e-4)

    def test_a_clients_message_weighs_what_its_update_holds(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data)
        engine = RecordingEngine(devices, system.device.tasks)
        trained = system.server.train(devices.sharing.shared, engine, seed=0)
        prepared(system.server, trained, engine, seed=0)
        for payload, counted in getattr(engine, "alone", []):
            assert 0.9 * counted <= payload <= counted  # a row that happens to be zero need not travel

    def test_some_devices_may_stay_silent(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data)
        engine = engine_of(system, devices, dropout=0.3)
        trained = system.server.train(devices.sharing.shared, engine, seed=0)
        assert all(np.isfinite(table).all() for table in trained.model.values())

    # --- forgetting ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", ["unshare", "erase"])
    def test_forgetting_leaves_the_old_model_as_it_was(self, data: Interactions, kind: str) -> None:
        system, devices = self.system(), self.devices(data)
        before = self.ready(devices)
        copy = deepcopy((dict(before.model), dict(before.memory.tables)))
        source = devices.sharing.shared if kind == "unshare" else devices.interactions
        after, withdrawal = withdraw(devices, kind, source.of_users([3]))  # type: ignore[arg-type]
        forgotten = system.server.unlearn(before, withdrawal, engine_of(system, after), seed=0)
        assert same(before.model, copy[0])
        assert same(before.memory.tables, copy[1])
        assert forgotten is not before

    @pytest.mark.parametrize("kind", ["unshare", "erase"])
    def test_what_is_forgotten_is_not_held_and_the_log_names_the_withdrawal(
        self, data: Interactions, kind: str
    ) -> None:
        _, before, withdrawal, after = self.forget(data, kind)
        assert after.shared == before.shared - withdrawal.forget
        assert (after.system, after.seed, after.config) == (before.system, before.seed, before.config)
        assert any(record.get("request") == withdrawal.request_id for record in after.log)

    @pytest.mark.parametrize("kind", ["unshare", "erase"])
    def test_forgetting_is_repeatable(self, data: Interactions, kind: str) -> None:
        _, _, _, one = self.forget(data, kind)
        _, _, _, two = self.forget(data, kind)
        assert same(one.model, two.model)

    def test_a_model_of_another_system_is_refused(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data)
        other = replace(self.ready(devices), system="another")
        after, withdrawal = withdraw(devices, "unshare", devices.sharing.shared.of_users([3]))
        with pytest.raises(ConfigError, match="another"):
            system.server.unlearn(other, withdrawal, engine_of(system, after), seed=0)

    def test_forgetting_goes_by_the_settings_of_the_model(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data)
        before = self.ready(devices)
        after, withdrawal = withdraw(devices, "unshare", devices.sharing.shared.of_users([3]))
        mine = system.server.unlearn(before, withdrawal, engine_of(system, after.copy()), seed=0)
        stranger = system.type(system.type.config())  # its defaults are others than the tiny settings
        theirs = stranger.server.unlearn(before, withdrawal, engine_of(system, after.copy()), seed=0)
        assert same(mine.model, theirs.model)
        assert theirs.config == before.config

    # --- halves -------------------------------------------------------------------------------------------------------

    def test_the_servers_half_alone_recommends_and_shows_its_views(self, data: Interactions) -> None:
        system, trained = self.system(), self.trained(self.devices(data))
        users = np.arange(data.n_users)
        for model in (system.server.recommender(trained), *system.server.views(trained).values()):
            scores = model.scores(users, data)
            assert (scores.shape, scores.dtype) == ((data.n_users, data.n_items), np.float32)
            assert np.isfinite(scores).all()

    def test_the_servers_half_alone_forgets_what_is_unshared(self, data: Interactions) -> None:
        system, before = self.system(), self.ready(self.devices(data))
        withdrawal = Withdrawal("unshare", before.shared.of_users([3]), np.array([3]))
        after = system.server.unlearn(before, withdrawal, NoDevices(), seed=0)
        assert after.shared == before.shared - withdrawal.forget

    def test_a_device_reads_what_is_published_with_and_without_a_state(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data)
        trained = self.trained(devices)
        for kept in (devices.kept(trained.run), NOTHING_KEPT):
            readers = (
                system.device.reader(trained.published, kept),
                *system.device.views(trained.published, kept).values(),
            )
            for reader in readers:
                scores = reader.scores(np.arange(data.n_users), data)
                assert scores.dtype == np.float32
                assert np.isfinite(scores).all()

    def test_a_user_is_read_alike_alone_and_in_company(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data)
        reader = reader_of(system, self.trained(devices), devices)
        everyone = reader.scores(np.arange(data.n_users), data)
        assert np.allclose(everyone[5], reader.scores(np.array([5]), data)[0], atol=1e-4)

    # --- keeping and growing ------------------------------------------------------------------------------------------

    def test_a_model_that_is_saved_and_loaded_recommends_and_forgets_the_same(
        self, data: Interactions, tmp_path: Path
    ) -> None:
        system, devices = self.system(), self.devices(data)
        held = Held(self.ready(devices), devices, Interactions.empty(data.catalog))
        folder = TrainedFolder(tmp_path / "m")
        folder.save(held)
        loaded = folder.load()
        assert same(loaded.trained.model, held.trained.model)
        assert same(loaded.trained.memory.tables, held.trained.memory.tables)
        assert (loaded.trained.config, loaded.trained.run) == (held.trained.config, held.trained.run)
        users = np.arange(data.n_users)
        assert np.array_equal(held.recommender().scores(users, data), loaded.recommender().scores(users, data))
        results = []
        for one in (held, loaded):
            assert one.devices is not None
            after, withdrawal = withdraw(one.devices, "erase", one.devices.interactions.of_users([3]), request_id="r")
            results.append(system.server.unlearn(one.trained, withdrawal, engine_of(system, after), seed=0))
        assert same(results[0].model, results[1].model)

    def test_a_new_user_enters_where_the_system_takes_in_data(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data.where(data.users != 11))
        if not isinstance(system.server, Extendable):
            pytest.skip(f"{system.name} takes in no data without training again")
        before, new = self.ready(devices), data.where(data.users == 11)
        joined = devices.with_sharing(replace(devices.sharing, shared=devices.sharing.shared | new))
        after = system.server.extend(before, new, engine_of(system, joined), seed=0)
        assert after.shared == before.shared | new
        assert np.isfinite(reader_of(system, after, joined).scores(np.array([11]), data)).all()

    def test_what_private_data_a_model_learnt_is_said_by_the_kind_of_request(self) -> None:
        server = self.system().server
        if isinstance(server, LearnsFromPrivate):
            assert server.learnt("erase") in ("everything", "shared")
            assert server.learnt("unshare") in ("shared", "nothing")

    def test_preparing_changes_no_model(self, data: Interactions) -> None:
        system, devices = self.system(), self.devices(data)
        if isinstance(system.server, Preparing):
            trained = self.trained(devices)
            ready = system.server.prepare(trained, engine_of(system, devices), seed=0)
            assert same(ready.model, trained.model)
            assert ready.memory.nbytes >= trained.memory.nbytes

    def test_settings_of_forgetting_may_be_given_anew(self, data: Interactions) -> None:
        trained = self.trained(self.devices(data))
        assert with_settings(trained).config == trained.config


def same(one: Arrays, other: Arrays) -> bool:
    """Whether two sets of tables are equal bit for bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def near(one: Arrays, other: Arrays, tolerance: float) -> bool:
    """Whether they are equal but for rounding."""
    return one.keys() == other.keys() and all(
        np.allclose(one[name], other[name], atol=tolerance, rtol=tolerance) for name in one
    )


def promises(contract: type[SystemContract]) -> Iterator[str]:
    """The names of a contract's tests."""
    return (name for name in dir(contract) if name.startswith("test_"))
