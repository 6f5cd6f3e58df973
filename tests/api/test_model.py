from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp

import retract
from retract.data import Columns
from retract.errors import ConfigError, DataError, FolderError, SharingError, UnknownIdError
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import unlearn_folder
from retract.stores.status import status
from tests.samples import checkerboard
from tests.stores.folders import TINY_OF, tiny_dataset

SYSTEMS = ["Exact", "FedShare", "LightGCN", "PersonalFR", "RecEraser", "UnlearnRec"]


def frame(library: str = "pandas", integer: bool = True) -> object:
    """The tiny data as a frame; users 0, 1, ... and items 100, 101, ..., or as text with letters."""
    data = tiny_dataset().interactions
    users, items = data.users, data.items + 100
    columns = {
        "user": users if integer else [f"u{user}" for user in users],
        "item": items if integer else [f"i{item}" for item in items],
        "rating": data.ratings,
    }
    return pd.DataFrame(columns) if library == "pandas" else pl.DataFrame(columns)


def made(name: str) -> retract.api.Model:  # type: ignore[name-defined]
    return getattr(retract, name)(**TINY_OF[name.lower()])


# --- every system, in the same few lines ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SYSTEMS)
def test_six_lines_fit_recommend_forget_and_save(name: str, tmp_path: Path) -> None:
    model = made(name).fit(frame(), share=0.0 if name == "PersonalFR" else 1.0)
    lists = model.recommend([7, 9], k=3)
    model.erase(9)
    receipt = model.unlearn()
    model.save(tmp_path / "m")
    again = retract.load(tmp_path / "m")
    assert lists.columns.tolist() == ["user", "item", "score", "rank"]
    assert set(lists["user"]) == {7, 9}
    assert (receipt.requests, receipt.forgotten) == (1, 5)
    assert 9 not in again.users
    assert 7 in again.users
    pd.testing.assert_frame_equal(model.recommend([7], k=3), pd.DataFrame(again.recommend([7], k=3).to_dict()))
    with pytest.raises(UnknownIdError, match="unknown user '9'"):
        model.recommend(9)


@pytest.mark.parametrize("name", SYSTEMS)
def test_help_lists_every_setting_with_its_default(name: str) -> None:
    kind = getattr(retract, name)
    for setting, field in kind.kind.config.model_fields.items():
        assert f"    {setting}\n        {field.description}" in kind.__doc__
    assert str(kind.__signature__).startswith("(*, ")


def test_import_alone_loads_nothing_heavy() -> None:
    code = (
        "import sys, time; began = time.perf_counter(); import retract; seconds = time.perf_counter() - began\n"
        "heavy = [name for name in ('numpy', 'scipy', 'torch', 'polars', 'pydantic') if name in sys.modules]\n"
        "assert not heavy, heavy\nassert seconds < 0.3, seconds\nassert 'Exact' in dir(retract)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- what goes in -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_a_frame_goes_in_and_one_of_the_same_library_comes_out(library: str) -> None:
    model = retract.Exact().fit(frame(library))
    lists = model.recommend([3, 4], k=2)
    assert type(lists).__module__.split(".")[0] == library
    assert lists.shape == (4, 4)
    assert list(lists["rank"]) == [1, 2, 1, 2]
    assert all(isinstance(int(item), int) and item >= 100 for item in lists["item"])


def test_ids_come_out_as_they_went_in() -> None:
    text = retract.Exact().fit(frame(integer=False)).recommend("u3", k=2)
    assert set(text["user"]) == {"u3"}
    assert all(item.startswith("i") for item in text["item"])
    numbers_as_text = frame().astype({"user": str, "item": str})  # type: ignore[attr-defined]
    assert set(retract.Exact().fit(numbers_as_text).recommend(3, k=1)["user"]) == {"3"}


def test_all_forms_of_the_same_data_give_the_same_model(tmp_path: Path) -> None:
    pandas, polars = frame("pandas"), frame("polars")
    polars.write_csv(tmp_path / "r.csv")  # type: ignore[attr-defined]
    data = tiny_dataset().interactions
    matrix = sp.csr_matrix((np.ones(len(data)), (data.users, data.items)))
    forms = [pandas, polars, tmp_path / "r.csv", str(tmp_path / "r.csv"), tiny_dataset(), data, matrix]
    lists = [retract.Exact(form="ease").fit(form).recommend(k=3) for form in forms]  # some have times to settle by
    for other in lists[1:]:
        assert np.allclose(np.array(other["score"]), np.array(lists[0]["score"]))


def test_a_known_right_answer_is_found_in_a_frame() -> None:
    train, test = checkerboard()
    model = retract.Exact().fit(train)
    found = model.evaluate(test)
    assert found["recall@20"] == 1.0
    lists = model.recommend("u3", k=4)
    assert all(int(item[1:]) % 2 == 1 for item in lists["item"])


def test_nothing_is_held_out_unless_asked_for() -> None:
    model = retract.Exact().fit(frame())
    assert model.evaluate() == {"recall@20": None, "ndcg@20": None}
    assert retract.Exact().fit(frame(), test=0.2).evaluate()["recall@20"] is not None


@pytest.mark.slow
def test_a_shared_column_is_each_users_choice() -> None:
    data = frame()
    data["shared"] = data["item"] % 2 == 0  # type: ignore[index]
    model = made("FedShare").fit(data)
    held = model._fitted
    assert set(held.catalog.item_ids[held.trained.shared.items].astype(int) % 2) == {0}
    assert len(held.sharing.private)


def test_fedshare_asks_what_is_shared() -> None:
    with pytest.raises(SharingError, match="what is shared is for the users to choose: give a share"):
        made("FedShare").fit(frame())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([1, 2], "list"),
        (pd.DataFrame({"user": [1, 2]}), "no item column"),
        (pd.DataFrame({"user": [1, 1], "item": [1, 2]}), "users with something to train on: 1; at least 2 are needed"),
        ("nowhere.csv", "nowhere.csv"),
    ],
)
def test_bad_data_is_one_clear_line(data: object, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        retract.Exact().fit(data)
    assert "\n" not in str(caught.value)


def test_a_wrong_setting_is_named_with_what_is_possible() -> None:
    with pytest.raises(ConfigError, match="exact has no setting 'rigde': the nearest are ridge"):
        retract.Exact(rigde=50)
    with pytest.raises(ConfigError, match="ridge of exact is -1: it must be a number above 0"):
        retract.Exact(ridge=-1)


def test_a_model_that_is_not_fitted_says_so() -> None:
    for ask in (lambda m: m.recommend(1), lambda m: m.erase(1), lambda m: m.unlearn(), lambda m: m.save("x")):
        with pytest.raises(ConfigError, match=r"this Exact is not fitted yet: call fit\(data\) first"):
            ask(retract.Exact())


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_everybody_gets_a_list_that_holds_nothing_they_had() -> None:
    data = frame()
    lists = retract.Exact().fit(data).recommend(k=4)
    assert len(lists) == 12 * 4
    had = set(zip(data["user"], data["item"], strict=True))  # type: ignore[index]
    assert not had & set(zip(lists["user"], lists["item"], strict=True))
    assert (lists.groupby("user")["score"].diff().dropna() <= 0).all()


def test_similar_items_leave_the_item_itself_out() -> None:
    for name in ("Exact", "LightGCN"):
        near = made(name).fit(frame()).similar_items([100, 103], k=3)
        assert near.columns.tolist() == ["item", "similar", "score", "rank"]
        assert (near["item"] != near["similar"]).all()


def test_without_a_frame_library_rows_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from retract.api import frames

    monkeypatch.setattr(frames, "find_spec", lambda name: None)
    monkeypatch.setattr(frames, "sys", type("sys", (), {"modules": {}}))
    rows = retract.Exact().fit(tiny_dataset()).recommend("u3", k=2)
    assert [row.rank for row in rows] == [1, 2]
    assert rows[0].user == "u3"


# --- taking back ------------------------------------------------------------------------------------------------------


def test_what_is_unshared_is_private_and_the_model_is_that_of_the_rest() -> None:
    model = retract.Exact(form="ease").fit(frame())
    model.unshare(7)
    model.unlearn()
    held = model._fitted
    rest = held.trained.shared
    assert 7 not in set(rest.catalog.user_ids[rest.users].astype(int))
    again = retract.Exact(form="ease").fit(rest)
    assert np.allclose(held.trained.model["inverse"], again._fitted.trained.model["inverse"], atol=1e-12)
    assert len(model.recommend(7, k=2)) == 2


def test_an_erasure_waits_for_company_and_then_all_go_together() -> None:
    model = retract.Exact().fit(frame())
    model.erase(3)
    receipt = model.unlearn(at_least=2)
    assert (receipt.requests, receipt.waiting) == (0, 1)
    model.erase(4, items=[model._fitted.catalog.item_ids[model._fitted.interactions.items_of(4)[0]]])
    assert model.unlearn(at_least=2).requests == 2
    assert model.pending == []


def test_what_cannot_be_withdrawn_is_refused_and_nothing_is_recorded() -> None:
    model = retract.Exact().fit(frame())
    with pytest.raises(SharingError, match="is not held, so it cannot be erased"):
        model.erase(3, items=[i for i in model.items if i not in set(frame().query("user == 3")["item"])][:1])  # type: ignore[attr-defined]
    model.erase(3)
    with pytest.raises(SharingError, match="nothing left to erase that is not pending already"):
        model.erase(3)
    assert len(model.pending) == 1


def test_an_audited_unlearning_gives_figures_and_a_certificate_that_holds(tmp_path: Path) -> None:
    from retract.auditing.certificate import read

    model = retract.Exact().fit(frame(), test=0.2)
    model.erase(3)
    receipt = model.unlearn(audit=True, oracle=True, key=tmp_path / "key.pem")
    assert receipt.audits[0]["parameter_distance"] < 1e-9
    assert receipt.certificate is not None
    assert read(receipt.certificate, "the receipt").system == "exact"
    with pytest.raises(ConfigError, match="oracle=True needs audit=True"):
        model.unlearn(oracle=True)


def test_pending_requests_are_saved_and_a_command_can_apply_them(tmp_path: Path) -> None:
    model = retract.Exact().fit(frame(), share=0.5)
    asked = model.erase(3)
    model.save(tmp_path / "m")
    assert unlearn_folder(TrainedFolder(tmp_path / "m")).forgotten == asked.count == 5
    again = retract.load(tmp_path / "m")
    assert 3 not in again.users
    assert again.pending == []


def test_a_loaded_model_goes_on_where_the_saved_one_stood(tmp_path: Path) -> None:
    model = retract.Exact().fit(frame(), share=0.5)
    model.erase(3)
    model.save(tmp_path / "m")
    again = retract.load(tmp_path / "m")
    assert [request.id for request in again.pending] == [request.id for request in model.pending]
    again.unlearn()
    again.save(tmp_path / "m")  # the same model: its own folder may be written again
    assert 3 not in retract.load(tmp_path / "m").users
    with pytest.raises(FolderError, match="--force replaces it"):
        retract.Exact().fit(frame()).save(tmp_path / "m")
    with pytest.raises(FolderError, match="keeps a list of what was erased or unshared there"):
        retract.Exact().fit(frame()).save(tmp_path / "m", force=True)
    others = frame()[frame()["user"] != 3]
    retract.Exact().fit(others).save(tmp_path / "m", force=True)
    assert retract.load(tmp_path / "m").extend(frame()).added == 0  # the list stays


def test_new_users_and_items_enter_exact() -> None:
    model = retract.Exact().fit(frame())
    report = model.extend(pd.DataFrame({"user": [50, 50], "item": [100, 999]}))
    assert report.added == 2
    assert 50 in model.users
    assert 999 in model.items
    with pytest.raises(ConfigError, match="cannot take in new data"):
        made("LightGCN").fit(frame()).extend(pd.DataFrame({"user": [50], "item": [100]}))


@pytest.mark.parametrize("share", [None, 1.0])
def test_of_new_data_a_column_says_what_is_shared_unless_a_ratio_does(share: float | None) -> None:
    model = retract.Exact().fit(frame())
    new = pd.DataFrame({"user": [50] * 3, "item": [100, 101, 102], "shared": [True, False, False]})
    before = len(model._fitted.sharing.private)
    model.extend(new, share=share)
    assert len(model._fitted.sharing.private) - before == (2 if share is None else 0)


def test_a_fit_begins_anew() -> None:
    model = retract.Exact().fit(frame())
    model.erase(3)
    model.fit(frame("polars"))
    assert model.pending == []
    assert 3 in model.users


def test_any_system_by_name_and_an_unknown_one() -> None:
    assert retract.model("exact", ridge=7).config.model_dump()["ridge"] == 7
    with pytest.raises(ConfigError, match="unknown system 'exakt'; known systems: exact"):
        retract.model("exakt")


def test_what_a_loaded_model_unlearned_is_settled_in_its_folder(tmp_path: Path) -> None:
    model = retract.Exact().fit(frame())
    model.erase(model.users[0])
    model.save(tmp_path / "m")
    again = retract.load(tmp_path / "m")
    again.unlearn()
    again.save(tmp_path / "m")
    told = status(tmp_path / "m")
    assert (told.pending, told.applied) == (0, 1)
    assert not retract.load(tmp_path / "m").pending


def test_a_model_that_is_older_than_its_folder_is_not_saved_over_it(tmp_path: Path) -> None:
    model = retract.Exact().fit(frame())
    model.save(tmp_path / "m")
    other = retract.load(tmp_path / "m")
    other.erase(other.users[0])
    other.unlearn()
    other.save(tmp_path / "m")
    with pytest.raises(FolderError, match="changed by somebody else"):
        model.save(tmp_path / "m")
    assert len(retract.load(tmp_path / "m").users) == len(other.users)


def test_what_is_no_like_is_left_out_and_told_and_the_lowest_like_can_be_given():
    rows = pl.DataFrame(
        [(f"u{user}", f"i{(user + n) % 7}", float(n)) for user in range(6) for n in range(4)], orient="row"
    )
    columns = Columns(names=("user", "item", "rating"))
    model = retract.Exact().fit(rows, columns=columns)
    assert len(model.scores()) == 6
    assert "left out because rated 0 or below, which is no like: 6 of 24" in model.notes
    assert "i1" in model.recommend("u1", k=7)["item"].to_list()  # rated 0, so it is not theirs
    model = retract.Exact().fit(rows, columns=columns, at_least_rating=3)
    assert "left out because rated below 3: 18 of 24" in model.notes
    more = pl.DataFrame({"user": ["v", "v"], "item": ["i1", "i2"], "rating": [0, 2]})
    report = model.extend(more)
    assert (report.added, report.notes) == (1, ("left out because rated 0 or below, which is no like: 1 of 2",))
    assert model.extend(more.with_columns(user=pl.lit("w"), rating=3), at_least_rating=3).added == 2
    disliked = pl.DataFrame({"user": ["u2", "nobody"], "item": ["i3", "i3"], "rating": [-1, 5]})
    assert model.evaluate(disliked)["recall@20"] is None
