"""New data in a trained folder, against a training from scratch on everything."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from retract.data import Catalog, Dataset, Interactions
from retract.errors import ConfigError, FederationError, FolderError, SharingError
from retract.stores.extending import ExtendReport
from retract.stores.extending import extend_folder as extend_trained
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import batch_of, forget
from retract.stores.held import Held
from retract.stores.reading import recommend_folder
from retract.stores.requests import codes_of, pending_of
from retract.stores.status import status
from retract.stores.training import TrainOptions, train_folder
from retract.systems.registry import make_system
from tests.stores.folders import apply, ask, load, make_folder, on_disk, requests, tiny_dataset

FORMS = ["ease", "filter", "spectral"]
Pairs = list[tuple[str, str]]
NEW: Pairs = [("new", "i0"), ("new", "j0"), ("new", "j1"), ("u1", "j0"), ("aaa", "i3"), ("aaa", "j1")]


def dataset(pairs: Pairs, *, ratings: bool = True, titles: bool = True, test: Pairs | None = None) -> Dataset:
    """Pairs of ids as a file would give them: its own catalog, in the order of the alphabet."""
    everything = [*pairs, *(test or [])]
    users, items = (sorted({pair[n] for pair in everything}) for n in (0, 1))
    catalog = Catalog(np.array(users), np.array(items), np.array([f"Film of {i}" for i in items]) if titles else None)
    codes = [(users.index(user), items.index(item)) for user, item in everything]
    values = [4.0] * len(codes) if ratings else None
    both = Interactions.of(catalog, *np.array(codes).T, values, None if values is None else range(len(codes)))
    if test is None:
        return Dataset("new", both, None, ())
    marked = {(users.index(user), items.index(item)) for user, item in test}
    is_test = np.array([pair in marked for pair in zip(both.users.tolist(), both.items.tolist(), strict=True)])
    return Dataset("new", both, is_test, ())


def named(interactions: Interactions) -> Pairs:
    users, items = interactions.catalog.user_ids, interactions.catalog.item_ids
    return list(zip(users[interactions.users].tolist(), items[interactions.items].tolist(), strict=True))


SETTLED = {"filter_beta": 0.4, "blend": 0.5, "dimension": 4, "degree_prior": 2.0, "popularity": 0.25}
"""Nothing is left to be found on a part held out, so that what is added does not change it."""


def exact_folder(path: Path, form: str = "ease", share: float = 1.0, **settings: object) -> Path:
    train_folder(
        make_system("exact", {"form": form, **SETTLED, **settings}),
        tiny_dataset(),
        path,
        TrainOptions(share=share, test=0.2),
    )
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exact_folder(tmp_path_factory.mktemp("made") / "run", share=0.5)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def extend_folder(folder: Path, data: Dataset, **options: Any) -> ExtendReport:
    return extend_trained(TrainedFolder(folder), data, **options)


def dense(held: Held, items: list[str]) -> dict[str, NDArray[np.float64]]:
    """The model's tables, items by items, in the order of `items`, whatever the folder's own order."""
    model, n = held.trained.model, held.catalog.n_items
    place, found = held.catalog.items(items), {}
    if "degrees" in model:
        gram = sp.csr_matrix((model["values"], model["indices"], model["indptr"]), shape=(n, n))
        found["gram"] = gram.toarray()[np.ix_(place, place)]
        found["degrees"] = model["degrees"][place].astype(np.float64)
    if "inverse" in model:
        found["inverse"] = model["inverse"][np.ix_(place, place)]
    if "items" in model:
        # Its start is keyed by an item's place in the catalog: the leading vectors alone are the same in any order.
        found["items"] = np.abs(model["items"][place, :1].astype(np.float64))
    return found


# --- the model --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("forget", [False, True])
def test_the_model_is_that_of_a_training_on_everything_whatever_the_order_of_ids(
    tmp_path: Path, form: str, forget: bool
) -> None:
    out = exact_folder(tmp_path / "extended", form, steps=200)
    if forget:
        ask(out, "erase", "u2")
        ask(out, "unshare", "u3", fraction=0.5)
        apply(out)
    extend_folder(out, dataset(NEW), share=1)
    extended = load(out)
    union = dataset(named(extended.trained.shared), test=[("u1", "i14")])
    train_folder(
        make_system("exact", {"form": form, **SETTLED, "steps": 200}),
        union,
        tmp_path / "all",
        TrainOptions(share=1),
    )
    scratch = load(tmp_path / "all")
    assert named(extended.trained.shared) != named(scratch.trained.shared)  # other codes, so another order
    items = [name for name in extended.catalog.item_ids.tolist() if name in scratch.catalog.item_ids]
    assert {"j0", "j1"} <= set(items)
    mine, wanted = dense(extended, items), dense(scratch, items)
    assert mine.keys() == wanted.keys() != set()
    for name, table in wanted.items():
        assert np.linalg.norm(mine[name] - table) <= (1e-5 if name == "items" else 1e-9) * np.linalg.norm(table), name


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_one_extension_after_the_other_is_the_extension_by_both(tmp_path: Path, form: str) -> None:
    a, b = exact_folder(tmp_path / "a", form), exact_folder(tmp_path / "b", form)
    for part in (NEW[:2], NEW[2:3], NEW[3:]):
        extend_folder(a, dataset(part), share=1)
    extend_folder(b, dataset(NEW), share=1)
    items = load(b).catalog.item_ids.tolist()
    mine, wanted = dense(load(a), items), dense(load(b), items)
    for name, table in wanted.items():
        assert np.linalg.norm(mine[name] - table) <= 1e-9 * np.linalg.norm(table), name


@pytest.mark.parametrize("form", FORMS)
def test_private_news_reach_the_clients_and_change_nothing_that_the_model_knew(tmp_path: Path, form: str) -> None:
    out = exact_folder(tmp_path / "run", form)
    before = load(out)
    report = extend_folder(out, dataset(NEW), share=0)
    after = load(out)
    assert (report.added, report.shared) == (6, len(before.trained.shared))
    assert set(named(after.sharing.private)) == set(NEW)
    old = before.catalog.item_ids.tolist()
    for name, table in dense(before, old).items():
        np.testing.assert_allclose(dense(after, old)[name], table, rtol=1e-5, atol=1e-7, err_msg=name)  # float32
    assert len(recommend_folder(out, "new", 3).items) == 3


def test_private_news_count_where_private_interactions_do(tmp_path: Path) -> None:
    out = exact_folder(tmp_path / "run", share=0.5, count_private="true")
    extend_folder(out, dataset(NEW), share=0.5)
    extended, everything = load(out), named(load(out).interactions)
    union = dataset(everything, test=[("u1", "i14")])
    train_folder(make_system("exact", {"form": "ease"}), union, tmp_path / "all", TrainOptions(share=1))
    items = [name for name in extended.catalog.item_ids.tolist() if name in load(tmp_path / "all").catalog.item_ids]
    mine, wanted = (dense(load(tmp_path / name), items)["inverse"] for name in ("run", "all"))
    assert np.linalg.norm(mine - wanted) <= 1e-9 * np.linalg.norm(wanted)


# --- what enters ------------------------------------------------------------------------------------------------------


def test_old_codes_stay_and_new_ids_stand_behind_them(folder: Path) -> None:
    before = load(folder)
    extend_folder(folder, dataset(NEW), share=0.5)
    after = load(folder)
    assert before.catalog.starts(after.catalog)
    assert after.catalog.user_ids[12:].tolist() == ["aaa", "new"]
    assert after.catalog.item_ids[15:].tolist() == ["j0", "j1"]
    assert [after.catalog.title(code) for code in (0, 15)] == ["Film 0", "Film of j0"]
    for part in ("shared", "private"):
        old = set(named(getattr(before.sharing, part)))
        assert old <= set(named(getattr(after.sharing, part))) <= old | set(NEW)
    assert after.test == before.test.over(after.catalog)
    assert after.trained.log[-1]["stage"] == "extend"


@pytest.mark.parametrize("folder_has", [True, False])
def test_the_id_serves_as_title_where_one_side_has_none(tmp_path: Path, folder_has: bool) -> None:
    first = dataset([(user, item) for user in "abcd" for item in "vwxyz"], titles=folder_has)
    train_folder(make_system("exact", {}), first, tmp_path / "run", TrainOptions(share=1))
    extend_folder(tmp_path / "run", dataset(NEW, titles=not folder_has), share=1)
    catalog = load(tmp_path / "run").catalog
    titles = [catalog.title(catalog.item(name)) for name in ("v", "j0")]
    assert titles == (["Film of v", "j0"] if folder_has else ["v", "Film of j0"])


def test_a_part_of_each_users_news_is_shared_by_the_seed_and_nested(made: Path, tmp_path: Path) -> None:
    pairs = [("new", f"i{n}") for n in range(12)] + [("other", f"i{n}") for n in range(4)]
    shared = {}
    for name, share, seed in (("a", 0.5, 0), ("b", 0.5, 0), ("c", 0.75, 0), ("d", 0.5, 1)):
        out = Path(shutil.copytree(made, tmp_path / name))
        extend_folder(out, dataset(pairs), share=share, seed=seed)
        shared[name] = {pair for pair in named(load(out).trained.shared) if pair in pairs}
    assert sorted(user for user, _ in shared["a"]) == ["new"] * 6 + ["other"] * 2
    assert shared["a"] == shared["b"] != shared["d"]
    assert shared["a"] < shared["c"]


def test_a_fold_column_holds_out_and_what_the_folder_has_stays_where_it_is(folder: Path) -> None:
    before = load(folder)
    trained, held_out = named(before.interactions)[0], named(before.test)[0]
    report = extend_folder(folder, dataset([*NEW, held_out], test=[("u1", "j1"), ("late", "i0"), trained]), share=1)
    after = load(folder)
    assert set(named(after.test)) == set(named(before.test)) | {("u1", "j1"), ("late", "i0")}
    assert set(named(after.interactions)) == set(named(before.interactions)) | set(NEW)
    assert (report.added, report.already_held) == (len(NEW) + 2, 2)
    assert report.notes == (
        "in the folder already, left as they are: 1",
        "held out for testing, where they stay: 1",
        "new users with interactions to test on but none to train on: 1",
    )


def test_without_a_fold_column_all_is_trained_on_and_nobody_is_warned_of_a_split(folder: Path) -> None:
    before = load(folder)
    report = extend_folder(folder, dataset([("new", "i0")]), share=1)
    assert (report.notes, report.users) == ((), 13)
    assert named(load(folder).test) == named(before.test)


# --- withdrawals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_pending_erasure_is_not_undone_and_can_still_be_applied(tmp_path: Path, form: str) -> None:
    out = exact_folder(tmp_path / "run", form)
    own = [pair for pair in named(load(out).trained.shared) if pair[0] == "u1"]
    ask(out, "erase", "u1", items=[own[0][1]])
    report = extend_folder(out, dataset([*own, *NEW]), share=1)
    assert report.notes == (
        f"in the folder already, left as they are: {len(own) - 1}",
        "left out because their erasure is pending: 1",
    )
    assert status(out).pending == 1
    assert apply(out).forgotten == 1
    assert own[0] not in named(load(out).interactions)


def test_what_was_erased_comes_in_again_on_a_new_consent_alone(folder: Path) -> None:
    own = next(pair for pair in named(load(folder).trained.shared) if pair[0] == "u1")
    ask(folder, "erase", "u1", items=[own[1]])
    apply(folder)
    refused = extend_folder(folder, dataset([own]), share=1)
    assert refused.added == 0
    assert refused.notes == ("left out because they were erased (again takes them in, on a new consent): 1",)
    assert own not in named(load(folder).interactions)
    assert extend_folder(folder, dataset([own]), share=1, again=True).added == 1
    assert own in named(load(folder).trained.shared)
    assert not TrainedFolder(folder).suppression()  # the consent stands until it is taken back


def test_new_users_can_withdraw_all_that_they_gave(tmp_path: Path) -> None:
    out = exact_folder(tmp_path / "run")
    before = load(out)
    extend_folder(out, dataset(NEW), share=1)
    for user in ("new", "aaa"):
        ask(out, "erase", user)
    ask(out, "erase", "u1", items=["j0"])
    assert apply(out).forgotten == len(NEW)
    after, old = load(out), before.catalog.item_ids.tolist()
    assert set(named(after.interactions)) == set(named(before.interactions))
    mine, wanted = dense(after, old)["inverse"], dense(before, old)["inverse"]
    assert np.linalg.norm(mine - wanted) <= 1e-9 * np.linalg.norm(wanted)


# --- ratings and times ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("folder_has", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_ratings_and_times_stay_only_where_both_sides_have_them(tmp_path: Path, folder_has: bool, share: float) -> None:
    first = dataset([(f"u{n}", f"i{(n + m) % 9}") for n in range(8) for m in range(5)], ratings=folder_has)
    train_folder(make_system("exact", {}), first, tmp_path / "run", TrainOptions(share=0.5))
    news = dataset(NEW, ratings=not folder_has, test=[("u1", "j1")])
    mine, other = ("the folder's", "the new data") if folder_has else ("the new data's", "the folder")
    notes = extend_folder(tmp_path / "run", news, share=share).notes
    assert set(notes) >= {f"{mine} {name} are dropped: {other} has none" for name in ("ratings", "times")}
    held = load(tmp_path / "run")
    for part in (held.trained.shared, held.sharing.private, held.test):
        assert (part.ratings, part.timestamps) == (None, None)
    for kind in ("unshare", "erase"):
        ask(tmp_path / "run", kind, "u1", fraction=0.5)  # type: ignore[arg-type]
    assert apply(tmp_path / "run").requests == 2


def test_ratings_that_both_sides_have_stay(folder: Path) -> None:
    extend_folder(folder, dataset(NEW), share=1)
    held = load(folder)
    shared, place = held.trained.shared, named(held.trained.shared).index(("new", "j0"))
    assert shared.ratings is not None
    assert shared.ratings[place] == 4
    assert held.interactions.timestamps is not None


def test_nothing_is_dropped_where_nothing_is_added(folder: Path) -> None:
    before = on_disk(folder)
    held = named(load(folder).interactions)
    report = extend_folder(folder, dataset(held, ratings=False), share=1)
    assert report.notes == (f"in the folder already, left as they are: {len(held)}",)
    assert on_disk(folder) == before


# --- a whole state, old or new ----------------------------------------------------------------------------------------


def test_a_request_that_arrives_meanwhile_is_kept(folder: Path) -> None:
    late = []

    def ask_once(stage: str, done: int, total: int) -> None:
        if not late:
            late.append(ask(folder, "unshare", "u3"))

    extend_folder(folder, dataset(NEW), share=1, progress=ask_once)
    assert list(requests(folder)) == late
    assert apply(folder).requests == 1


def test_who_extends_what_somebody_else_has_changed_is_refused(folder: Path) -> None:
    states = []

    def extend_another(stage: str, done: int, total: int) -> None:
        if not states:
            states.append({})
            extend_folder(folder, dataset([("late", "k0")]), share=1)
            states.append(on_disk(folder))

    with pytest.raises(FolderError, match="was changed by somebody else in the meantime; nothing was applied"):
        extend_folder(folder, dataset(NEW), share=1, progress=extend_another)
    assert on_disk(folder) == states[1]


@pytest.mark.parametrize("step", [0, 1])
def test_an_interrupt_leaves_every_byte_as_it_was(folder: Path, step: int) -> None:
    before = on_disk(folder.parent)

    def stop(stage: str, done: int, total: int) -> None:
        if done == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extend_folder(folder, dataset(NEW), share=1, progress=stop)
    assert on_disk(folder.parent) == before


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
@pytest.mark.parametrize("anything_new", [True, False])
def test_a_share_outside_its_range_is_refused_whatever_is_new(folder: Path, share: float, anything_new: bool) -> None:
    before = on_disk(folder)
    pairs = NEW if anything_new else named(load(folder).interactions)
    with pytest.raises(SharingError, match=r"share ratio .* lies outside \[0, 1\]"):
        extend_folder(folder, dataset(pairs), share=share)
    assert on_disk(folder) == before


@pytest.mark.parametrize("system", ["fedshare", "lightgcn", "unlearnrec"])
def test_what_must_train_again_is_refused(tmp_path: Path, system: str) -> None:
    if system == "fedshare":
        make_folder(tmp_path / "run")
    else:
        few = {"lightgcn": {"steps": "3"}, "unlearnrec": {"epochs": "3", "pretrain_steps": "1", "withheld": "0.2"}}
        train_folder(make_system(system, few[system]), tiny_dataset(), tmp_path / "run", TrainOptions(share=1))
    others = "exact and personalfr can$"
    with pytest.raises(ConfigError, match=f"^{system} cannot take in new data without training again; {others}"):
        extend_folder(tmp_path / "run", dataset(NEW), share=1)


def test_where_the_devices_are_elsewhere_nothing_can_be_taken_in(folder: Path) -> None:
    shutil.rmtree(folder / "devices")
    before = on_disk(folder)
    with pytest.raises(FederationError, match="new data enters where the devices are, and their half is not here"):
        extend_folder(folder, dataset(NEW), share=1)
    assert on_disk(folder) == before


def test_what_a_kill_left_unsettled_is_settled_before_a_newer_version_forgets_it(folder: Path) -> None:
    ask(folder, "unshare", "u1")
    trained, held = TrainedFolder(folder), load(folder)
    asked = [(request, codes_of(trained, request, held.sharing)) for request in pending_of(trained)]
    found = forget(held, batch_of(held, asked))
    trained.replace(held, found.after, found.withdrawals)  # and then the process died
    extend_folder(folder, dataset(NEW), share=1)
    assert [(request.pending, request.items) for request in requests(folder)] == [(False, ())]
    assert apply(folder).requests == 0
