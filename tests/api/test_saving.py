"""A model in memory and its folders: nothing that was withdrawn anywhere comes back, and no request is lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import retract
from retract.errors import ConfigError, FolderError, SharingError
from retract.stores.folder import TrainedFolder
from retract.stores.versions import VersionStore
from tests.stores.folders import TINY_OF, apply, ask, tiny_dataset


class Killed(BaseException):
    """What stands for a kill."""


def fitted(**given: Any) -> retract.Exact:
    model: retract.Exact = retract.Exact(**TINY_OF["exact"]).fit(tiny_dataset(), **{"share": 0.5, **given})
    return model


def test_a_model_that_was_saved_in_two_folders_goes_on_in_both(tmp_path: Path) -> None:
    model = fitted()
    for name in ("a", "a", "b", "a", "b"):
        model.save(tmp_path / name)
    assert [TrainedFolder(tmp_path / name).manifest().version for name in "ab"] == [3, 2]


def test_what_was_erased_in_one_folder_does_not_come_back_by_way_of_another(tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / "a")
    ask(tmp_path / "a", "erase", "u1")
    apply(tmp_path / "a")
    model.save(tmp_path / "b")
    model.save(tmp_path / "b")  # the same number of versions as in the first folder
    with pytest.raises(FolderError, match="was changed by somebody else"):
        model.save(tmp_path / "a")
    assert "u1" not in retract.load(tmp_path / "a").users


def test_a_copy_of_a_folder_is_as_good_as_the_folder(tmp_path: Path) -> None:
    fitted().save(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    model = retract.load(tmp_path / "a")
    model.erase("u1")
    model.unlearn()
    model.save(tmp_path / "copy")
    assert "u1" not in retract.load(tmp_path / "copy").users
    assert "u1" in retract.load(tmp_path / "a").users


@pytest.mark.parametrize("force", [False, True])
def test_a_model_is_not_served_without_what_was_asked_of_it(
    tmp_path: Path, force: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if force:
        fitted(test=0.5).save(tmp_path / "m")
        ask(tmp_path / "m", "unshare", "u2")
    model = fitted()
    asked = model.erase("u1")
    original = VersionStore.commit

    def killed(self: VersionStore, *arguments: Any) -> Any:
        original(self, *arguments)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(VersionStore, "commit", killed)
        with pytest.raises(Killed):
            model.save(tmp_path / "m", force=force)
    (found,) = retract.load(tmp_path / "m").pending
    assert (found.id, found.count) == (asked.id, 5)
    apply(tmp_path / "m")
    again = retract.load(tmp_path / "m")
    assert "u1" not in again.users
    assert not again.pending


def test_a_request_for_what_a_kill_kept_from_the_folder_has_nothing_to_withdraw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fitted(share=1.0)
    model.save(tmp_path / "m")
    model.extend(_rows([("u1", "new"), ("u99", "new")]), share=1.0)
    model.erase("u1", ["new"])
    model.erase("u99")
    with monkeypatch.context() as patch:
        patch.setattr(VersionStore, "commit", _killed)
        with pytest.raises(Killed):
            model.save(tmp_path / "m")
    assert apply(tmp_path / "m").requests == 2
    assert not retract.load(tmp_path / "m").pending


def _killed(*arguments: Any) -> Any:
    raise Killed


def _rows(pairs: list[tuple[str, str]]) -> object:
    return pd.DataFrame(pairs, columns=["user", "item"])


def test_ids_are_text_once_one_of_them_is_no_number(tmp_path: Path) -> None:
    data = tiny_dataset().interactions
    model = retract.Exact().fit(pd.DataFrame({"user": data.users, "item": data.items}))
    assert model.users[:2] == [0, 1]
    model.extend(_rows([("x", "y"), ("x", "3")]))
    assert model.users[:2] == ["0", "1"]
    assert model.users[-1] == "x"
    assert "y" in model.items


def test_lists_of_nobody_are_empty_and_lists_of_nothing_are_refused() -> None:
    model = fitted(test=0.2)
    assert len(model.recommend([])) == 0
    for ask_for in (model.recommend, lambda k: model.similar_items("i1", k=k), lambda k: model.evaluate(k=k)):
        for k in (0, -3):
            with pytest.raises(ConfigError, match=f"k is {k}"):
                ask_for(k=k)


def test_an_audit_of_nothing_makes_no_key(tmp_path: Path) -> None:
    assert fitted().unlearn(audit=True, key=tmp_path / "key.pem").requests == 0
    assert not list(tmp_path.iterdir())


def test_what_was_recorded_by_others_stays_pending(tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / "m")
    asked = ask(tmp_path / "m", "erase", "u3")
    model.save(tmp_path / "m")
    assert [one.id for one in TrainedFolder(tmp_path / "m").inbox.pending()] == [asked.id]
    with pytest.raises(SharingError):
        ask(tmp_path / "m", "erase", "u3")
