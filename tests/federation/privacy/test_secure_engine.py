from __future__ import annotations

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from retract.data import Sharing
from retract.errors import ConfigError, PrivacyError
from retract.federation import LocalEngine
from retract.federation.privacy import (
    Buckets,
    Identity,
    Losses,
    MaskingClient,
    NormBound,
    RobustEngine,
    SecureEngine,
    SecureSums,
    TrimmedMean,
    UnmaskingServer,
)
from retract.stores.devices import MemoryDevices
from retract.systems.registry import make_system
from tests.federation.privacy.samples import ASKED, engine_with, run, update_of
from tests.tiny import tiny_dataset

SUMS = SecureSums(minimum=10)


def same_but_for_the_grid(mine, theirs, unit=2.0**-20):
    assert np.array_equal(mine.tensors["gram"], theirs.tensors["gram"])
    assert mine.tensors["count"] == theirs.tensors["count"]
    assert np.allclose(mine.tensors["table"], theirs.tensors["table"], atol=40 * unit)
    assert mine.clients == theirs.clients


@pytest.mark.parametrize("clients", [None, 12])
def test_the_sum_is_the_plain_one(clients):
    secure, plain = SecureEngine(engine_with(clients=clients), SUMS), engine_with(clients=clients)
    found, wanted = run(secure), run(plain)
    same_but_for_the_grid(found.update, wanted.update)
    assert np.array_equal(found.answered, wanted.answered)
    assert len(found.missing) == 0
    assert secure.traffic.rounds == 1
    assert (secure.traffic.up, secure.traffic.down) == (found.bytes_up, found.bytes_down)


def test_a_third_of_the_clients_are_lost_after_masking_and_the_sum_of_the_others_is_right():
    for losses in (Losses(masked=0.3), Losses(answers=0.3), Losses(0.2, 0.1)):
        engine = SecureEngine(engine_with(), SecureSums(minimum=10, threshold=0.5), losses=losses)
        found = run(engine, round=1)
        wanted = run(engine_with(), users=found.answered)
        same_but_for_the_grid(found.update, wanted.update)
        assert (len(found.missing) > 4) == bool(losses.masked)
        assert np.array_equal(np.sort(np.concatenate([found.answered, found.missing])), engine.users)


def test_what_reaches_the_server_of_a_client_looks_like_nothing_of_its_own(monkeypatch):
    seen = []
    monkeypatch.setattr(
        UnmaskingServer,
        "add",
        lambda self, message, add=UnmaskingServer.add: (seen.append(message), add(self, message)),
    )
    engine = SecureEngine(engine_with(), SecureSums(minimum=10, bits=64))
    run(engine)
    run(engine)
    grid = engine.settings.grid(ASKED, len(engine.users))
    plain = {int(user): grid.encode(update_of(int(user))) for user in engine.users}
    assert len(seen) == 2 * len(plain)
    differing = [np.unpackbits((message.words ^ plain[message.client]).view(np.uint8)).mean() for message in seen]
    assert np.allclose(differing, 0.5, atol=0.06)  # 3,584 bits: 7 standard errors
    assert len({message.words.tobytes() for message in seen}) == len(seen)


def test_where_too_many_are_lost_no_sum_is_formed():
    for losses, text in ((Losses(masked=0.5), "clients are left"), (Losses(answers=0.5), "clients help to unmask")):
        engine = SecureEngine(engine_with(), SecureSums(minimum=10, threshold=0.8), losses=losses)
        with pytest.raises(PrivacyError, match=text):
            run(engine)
        assert engine.traffic.rounds == 0


def test_clients_that_do_not_answer_at_all_are_lost_like_the_others():
    found = run(SecureEngine(engine_with(dropout=0.2), SecureSums(minimum=10, threshold=0.5)))
    wanted = run(engine_with(dropout=0.2))
    same_but_for_the_grid(found.update, wanted.update)
    assert np.array_equal(found.missing, wanted.missing)
    assert len(found.missing)


def test_many_clients_are_dealt_into_groups_none_of_which_is_below_the_minimum():
    engine = SecureEngine(engine_with(), SecureSums(minimum=9, group=10))
    found, wanted = run(engine), run(engine_with())
    same_but_for_the_grid(found.update, wanted.update)
    dealt = [SecureSums(minimum=9, group=10).groups(engine.users, round, 0) for round in (0, 1)]
    assert [len(group) for group in dealt[0]] == [10, 10, 9, 9]
    assert np.array_equal(np.sort(np.concatenate(dealt[0])), engine.users)
    assert not all(np.array_equal(*pair) for pair in zip(*dealt, strict=True))
    assert found.bytes_up < run(SecureEngine(engine_with(), SUMS)).bytes_up


def test_a_group_that_loses_too_many_is_left_out_and_the_others_are_summed():
    engine = SecureEngine(engine_with(), SecureSums(minimum=9, group=10), losses=Losses(masked=0.1))
    found = run(engine, round=1)
    assert 9 <= len(found.answered) <= 30
    same_but_for_the_grid(found.update, run(engine_with(), users=found.answered).update)


def test_fewer_clients_than_the_minimum_are_not_asked(monkeypatch):
    inner = engine_with()
    engine = SecureEngine(inner, SUMS)
    monkeypatch.setattr(MaskingClient, "advertise", lambda self: pytest.fail("a key was sent"))
    with pytest.raises(PrivacyError, match="a secure sum needs 10"):
        run(engine, users=engine.users[:9])
    assert inner.traffic.rounds == 0
    with pytest.raises(ConfigError, match="no client takes part"):
        run(engine, users=engine.users[:0])


def test_with_identities_the_sum_is_the_same_and_bytes_are_more():
    plain = SecureEngine(engine_with(20), SUMS)
    keys = {int(user): Ed25519PrivateKey.generate() for user in plain.users}
    known = {user: key.public_key().public_bytes_raw() for user, key in keys.items()}
    signed = SecureEngine(engine_with(20), SUMS, identities={u: Identity(key, known) for u, key in keys.items()})
    found, wanted = run(signed), run(plain)
    assert np.array_equal(found.update.tensors["table"], wanted.update.tensors["table"])
    n = len(plain.users)
    assert found.bytes_up - wanted.bytes_up == n * 64 + n * 68
    assert found.bytes_down > wanted.bytes_down


def test_bytes_are_those_of_the_messages():
    engine = SecureEngine(engine_with(), SUMS)
    n, words = len(engine.users), 23 + 10 + 1  # 45 numbers of 32 bits, 10 of 64, one of 16
    found = run(engine)
    keys, box = 4 + 3 * 32, 4 + 12 + 66 + 16
    shares = 4 + (n - 1) * box
    assert found.bytes_up == n * (keys + shares + 4 + 8 * words + 4 + n * (4 + 33))
    assert found.bytes_down == n * (n * keys + shares + 4 * n)


def test_with_buckets_a_message_is_shorter_and_rows_of_a_bucket_are_averaged():
    buckets = Buckets.head_and_hashed(np.arange(4), 15, 3)
    short = SecureEngine(engine_with(), SecureSums(minimum=10, buckets=buckets))
    dense = SecureEngine(engine_with(), SUMS)
    found, wanted = run(short), run(dense)
    assert found.bytes_up < wanted.bytes_up
    assert np.allclose(found.update.tensors["table"][:4], wanted.update.tensors["table"][:4], atol=1e-4)
    assert np.array_equal(found.update.tensors["gram"], wanted.update.tensors["gram"])


@pytest.mark.parametrize("rule", [NormBound(), TrimmedMean()])
def test_robust_sums_are_refused_together_with_secure_ones(rule):
    with pytest.raises(ConfigError, match=r"SecureEngine gives sums only, and .* must see every client's update"):
        RobustEngine(SecureEngine(engine_with(), SUMS), rule)


def test_engines_that_do_not_give_each_clients_own_update_are_not_put_under_secure_sums():
    for inner in (RobustEngine(engine_with(), NormBound()), SecureEngine(engine_with(), SUMS)):
        with pytest.raises(ConfigError, match="does not give it"):
            SecureEngine(inner, SUMS)


@pytest.mark.parametrize("wrong", [{"minimum": 1}, {"group": 9}, {"threshold": 0}, {"threshold": 1.5}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ConfigError):
        SecureSums(**wrong)


# --- systems, unchanged -----------------------------------------------------------------------------------------------


def trained(name: str, settings: dict[str, object], secure: bool):
    system, devices = make_system(name, settings), MemoryDevices(Sharing.by_ratio(tiny_dataset().interactions, 0.5))
    bounds = {"projection": 30, "degrees": 4, "weights": 1, "item_gradient": 20, "weight": 4, "interactions": 8}
    engine = LocalEngine(devices, system.device.tasks)
    if secure:
        engine = SecureEngine(engine, SecureSums(minimum=5, bits=64, bounds=bounds), losses=Losses(0.0, 0.2))
    return system.server.train(devices.sharing.shared, engine, seed=1)


def test_exact_is_the_same_to_the_last_bit():
    settings = {"form": "ease", "count_private": True}
    mine, theirs = (trained("exact", settings, secure) for secure in (True, False))
    assert np.array_equal(mine.model["inverse"], theirs.model["inverse"])


def test_fedshare_is_the_same_but_for_rounding():
    settings = {"dimension": 4, "rounds": 2, "start_rounds": 2}
    mine, theirs = (trained("fedshare", settings, secure) for secure in (True, False))
    assert np.allclose(mine.model["items"], theirs.model["items"], atol=1e-3)
