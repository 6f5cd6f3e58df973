"""What Exact forgets: after any history the model is that of a training on what is left."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retract.data import Interactions, Sharing, load
from retract.stores.devices import MemoryDevices
from retract.stores.held import Held
from retract.stores.local import engine_of, withdraw
from retract.stores.training import TrainOptions, train_folder
from retract.systems.base import Trained
from retract.systems.system import System
from tests.samples import numbered_catalog, random_interactions
from tests.stores import folders
from tests.stores.folders import pairs_on_disk
from tests.systems.exact_forms import (
    FORMS,
    assert_never_knew,
    assert_same_tables,
    copied,
    exact,
    reader,
    train,
    unlearn,
)


def some_of(data: Interactions, draw: np.random.Generator) -> Interactions:
    """A random part of what one to four users hold; it may be nothing."""
    chosen = data.of_users(draw.integers(0, data.n_users, draw.integers(1, 5)))
    return chosen.where(draw.random(len(chosen)) < draw.choice([0.3, 1.0]))


def change(
    system: System, trained: Trained, devices: MemoryDevices, draw: np.random.Generator
) -> tuple[Trained, MemoryDevices, Interactions]:
    """A random request or extension; also what the server should hold after it."""
    sharing, kind = devices.sharing, draw.choice(["unshare", "erase", "extend"])
    if kind != "extend":
        forget = some_of(sharing.shared if kind == "unshare" else sharing.everything, draw)
        return *unlearn(system, trained, devices, forget, kind), sharing.shared - forget
    catalog = numbered_catalog(*(n + draw.integers(0, 3) for n in (sharing.shared.n_users, sharing.shared.n_items)))
    n = draw.integers(0, 12)
    fresh = Interactions.of(catalog, draw.integers(0, catalog.n_users, n), draw.integers(0, catalog.n_items, n))
    new = fresh | some_of(sharing.private, draw).over(catalog)
    devices = MemoryDevices(Sharing(sharing.shared.over(catalog) | new, sharing.private.over(catalog) - new))
    return system.server.extend(trained, new, engine_of(system, devices), seed=0), devices, devices.sharing.shared


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [0, 0.5, 1])
@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000))
def test_after_any_history_the_model_is_that_of_a_training_on_what_is_left(form, exponent, seed):
    system, draw = exact(form, exponent), np.random.default_rng(seed)
    trained, devices = train(system, random_interactions(seed, n_users=30, n_items=60), share=0.7)
    for _ in range(8):
        old, tables = trained, copied(trained.model)
        trained, devices, shared = change(system, old, devices, draw)
        assert trained.shared == shared == devices.sharing.shared
        assert_never_knew(system, trained, within=1e-9)
        assert_same_tables(old.model, tables)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [0, 6])
@settings(max_examples=12)
@given(seed=st.integers(0, 10_000))
def test_in_two_stages_a_model_is_first_the_filter_and_then_the_spectral_form_of_what_is_left(kept, seed):
    system, draw = exact("spectral", neighbours=kept, wait_seconds=0), np.random.default_rng(seed)
    trained, devices = train(system, random_interactions(seed, n_users=30, n_items=60), share=0.7)
    for _ in range(5):
        forget = some_of(devices.sharing.shared, draw)
        devices, withdrawal = withdraw(devices, "unshare", forget)
        soon = system.server.at_once(trained, withdrawal)
        if soon is None:
            assert not len(forget) or system.server.awaits(trained)
            trained = system.server.unlearn(trained, withdrawal, engine_of(system, devices), seed=0)
        else:
            assert soon.log[-1]["form"] == soon.config.form == "filter"
            assert "items" not in soon.model
            assert system.server.awaits(soon)
            trained = soon
        assert trained.shared == devices.sharing.shared
        assert_never_knew(System(system.type, trained.config), trained)
        if draw.random() < 0.6:
            trained = system.server.refresh(trained)
            assert trained.log[-1]["form"] == trained.config.form == "spectral"
            assert not system.server.awaits(trained)
            assert trained.config == system.config
            assert_never_knew(system, trained)


def test_what_is_fast_to_make_anew_is_never_left_out():
    data = random_interactions(0)
    for system in (exact("spectral"), exact("filter", wait_seconds=0), exact("spectral", wait_seconds=0, blend=0.0)):
        trained, devices = train(system, data)
        _, withdrawal = withdraw(devices, "erase", data.of_users([1]))
        assert system.server.at_once(trained, withdrawal) is None
        assert not system.server.awaits(trained)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_hundreds_of_withdrawals_one_after_another_do_not_add_up_to_an_error(form):
    data, draw = random_interactions(0, n_users=300, n_items=200, density=0.2), np.random.default_rng(0)
    system = exact(form)
    trained, devices = train(system, data)
    for user in draw.permutation(300)[:290]:
        own = trained.shared.of_users([user])
        part = own.where(draw.random(len(own)) < 0.7)
        trained, devices = unlearn(system, trained, devices, part)
        assert_never_knew(system, trained, within=1e-8)
        scores = reader(system, trained, devices).scores(np.array([user, 0]), devices.interactions)
        assert np.isfinite(scores).all()
        assert scores.std() > 0
    methods = [record["method"] for record in trained.log]
    assert methods.count("low-rank update" if form == "ease" else "sums changed") > 250
    assert all(("subspace" in record) == (form == "spectral") for record in trained.log[1:])


def test_a_user_who_withdraws_a_part_weighs_more_with_the_rest():
    data = Interactions.of(numbered_catalog(2, 12), [0, 0, 1, 1], [0, 1, 2, 3])
    system = exact("ease", exponent=1, ridge=3.0)
    trained, devices = train(system, data)
    assert trained.model["inverse"][0, 1] == pytest.approx(-0.5 / (3.5**2 - 0.5**2))
    after, _ = unlearn(system, trained, devices, data.where((data.users == 0) & (data.items == 1)))
    assert after.log[-1]["method"] == "low-rank update"
    assert after.model["inverse"][0, 0] == pytest.approx(1 / (1 + 3.0), rel=1e-14)
    assert after.model["inverse"][0, 1] == pytest.approx(0, abs=1e-16)
    assert after.model["inverse"][2, 3] == trained.model["inverse"][2, 3]


@pytest.mark.parametrize("kind", ["unshare", "erase"])
@pytest.mark.parametrize("form", FORMS)
def test_all_but_a_few_users_may_withdraw_and_then_those_too(form, kind):
    data, system = random_interactions(3, n_users=30, n_items=60), exact(form)
    trained, devices = train(system, data)
    trained, devices = unlearn(system, trained, devices, data.where(data.users > 2), kind)
    assert_never_knew(system, trained)
    trained, devices = unlearn(system, trained, devices, trained.shared, kind)
    assert_blank(trained)


@pytest.mark.parametrize("form", FORMS)
def test_users_who_withdraw_one_by_one_leave_the_initial_state(form):
    data, system = random_interactions(4, n_users=30, n_items=60), exact(form)
    trained, devices = train(system, data)
    for user in data.active_users():
        trained, devices = unlearn(system, trained, devices, data.of_users([user]))
    assert_blank(trained)


def assert_blank(trained: Trained, ridge: float = 2.0) -> None:
    assert len(trained.shared) == 0
    if "inverse" in trained.model:
        inverse = trained.model["inverse"]
        np.testing.assert_allclose(inverse, np.eye(len(inverse)) / ridge, rtol=0, atol=1e-12)
    if "items" in trained.model:
        assert not trained.model["items"].any()
        assert not trained.model["mean_degree"]
    if "lengths" in trained.model:
        assert not len(trained.model["ids"])
    if "indptr" in trained.model:
        assert [len(trained.model[name]) for name in ("indices", "values")] == [0, 0]
        assert not trained.model["indptr"].any()
        assert not trained.model["degrees"].any()


def test_many_requests_are_one_update_and_very_many_are_solved_anew():
    data, system = random_interactions(5, n_users=40, n_items=100, density=0.5), exact("ease")
    trained, devices = train(system, data)
    few, _ = unlearn(system, trained, devices, data.where((data.users < 8) & (data.items % 7 == 0)))
    assert len(few.log) == len(trained.log) + 1
    assert few.log[-1]["method"] == "low-rank update"
    assert 8 < few.log[-1]["rank"] <= 16  # out with the old row, in with the new one
    many, _ = unlearn(system, trained, devices, data.where((data.users < 30) & (data.items % 2 == 0)))
    assert (many.log[-1]["method"], many.log[-1]["reason"]) == ("closed form", "cheaper than an update of this rank")
    for after in (few, many):
        assert_never_knew(system, after, within=1e-12)


def test_an_inverse_that_has_drifted_is_made_anew():
    data, system = random_interactions(6, n_users=30, n_items=60), exact("ease")
    trained, devices = train(system, data)
    noise = np.random.default_rng(0).standard_normal(trained.model["inverse"].shape)
    drifted = {"inverse": trained.model["inverse"] + 1e-9 * noise}
    after, _ = unlearn(system, replace(trained, model=drifted), devices, data.of_users([1]))
    assert after.log[-1]["reason"].startswith("estimated error")
    assert_never_knew(system, after, within=1e-14)


# --- on disk ----------------------------------------------------------------------------------------------------------

CANARIES = [f"canary-item-{n}" for n in (7318, 7319, 7320, 7321, 7322)]


@pytest.fixture(params=FORMS)
def forgotten(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Held, Held]:
    """A folder before and after a user was erased; five items were that user's alone."""
    data = random_interactions(7, n_users=30, n_items=60)
    pairs = [(f"u{user}", f"film-{item}") for user, item in zip(data.users, data.items, strict=True)]
    pairs += [("canary-user-99", item) for item in [*CANARIES, *(f"film-{n}" for n in range(10))]]
    lines = "".join(f"{user},{item}\n" for user, item in pairs)
    (tmp_path / "data.csv").write_text(f"user,item\n{lines}")
    out = tmp_path / "run"
    train_folder(exact(request.param), load(tmp_path / "data.csv"), out, TrainOptions(share=1, test=0.2))
    before = folders.load(out)
    assert len(before.interactions.of_users([before.catalog.user("canary-user-99")])) == 12
    folders.ask(out, "erase", "canary-user-99")
    folders.apply(out)
    return before, folders.load(out)


def test_no_table_of_the_folder_holds_a_pair_of_an_erased_user(forgotten, tmp_path):
    before, after = forgotten
    user = before.catalog.user("canary-user-99")
    kept = before.trained.shared - before.trained.shared.of_users([user])
    assert np.array_equal(after.trained.shared.keys, kept.keys)
    assert_never_knew(after.system, after.trained)
    assert user not in {pair[0] for pair in pairs_on_disk(tmp_path / "run")}


def test_items_that_only_an_erased_user_had_stand_in_the_tables_as_if_nobody_had_ever_had_them(forgotten):
    before, after = (held.trained.model for held in forgotten)
    catalog = forgotten[1].catalog
    codes = catalog.items(CANARIES)
    if "lengths" in after:
        assert (before["lengths"][codes].any(), after["lengths"][codes].any()) == (True, False)
        assert not np.isin(after["ids"], codes).any()
    if "indptr" in after:
        counts = np.diff(before["indptr"])[codes], np.diff(after["indptr"])[codes]
        assert (counts[0].any(), counts[1].any()) == (True, False)
        assert not np.isin(after["indices"], codes).any()
        assert not after["degrees"][codes].any()
    if "inverse" in after:
        alone = np.eye(catalog.n_items)[codes] / 2.0
        np.testing.assert_allclose(after["inverse"][codes], alone, rtol=1e-12, atol=0)
        assert not np.allclose(before["inverse"][codes], alone, rtol=0, atol=1e-3)
    if "items" in after:
        assert before["items"][codes].any()
        assert not after["items"][codes].any()


def test_no_file_names_what_was_erased_but_the_catalog(forgotten, tmp_path):
    named = {
        name
        for name, content in folders.on_disk(tmp_path / "run").items()
        if any(item.encode() in content for item in CANARIES)
    }
    assert named == {"server/versions/2/catalog.json"}
    (request,) = folders.requests(tmp_path / "run")
    assert (request.items, request.user) == ((), "")
