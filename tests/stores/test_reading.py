"""Recommending from a folder, and from a version that is opened once."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from retract.data import load as load_data
from retract.errors import ConfigError, DataError, UnknownIdError
from retract.stores.reading import Opened, Served, recommend_folder
from retract.stores.training import TrainOptions, train_folder
from retract.systems.registry import make_system
from tests.stores.folders import apply, ask, items, load, tiny_dataset


def test_recommendations_are_the_best_of_what_the_user_has_not_had(folder: Path) -> None:
    held, found = load(folder), recommend_folder(folder, "u3", 10).items
    had = items(held, "shared", "u3") | items(held, "private", "u3")
    assert len(found) == 10
    assert not had & {line.item for line in found}
    assert [line.score for line in found] == sorted((line.score for line in found), reverse=True)
    assert all(line.title == f"Film {line.item[1:]}" for line in found)


def test_a_list_ends_where_nothing_unseen_is_left(folder: Path) -> None:
    held = load(folder)
    left = 15 - len({*items(held, "shared", "u3"), *items(held, "private", "u3"), *items(held, "test", "u3")})
    assert len(recommend_folder(folder, "u3", 15).items) == left


@pytest.mark.parametrize("k", [0, -1, 16])
def test_a_list_of_impossible_length_is_refused(folder: Path, k: int) -> None:
    with pytest.raises(ConfigError, match=rf"k is {k}: it must lie between 1 and the 15 items"):
        recommend_folder(folder, "u3", k)


def test_several_users_at_once_get_the_lists_that_they_get_alone(folder: Path) -> None:
    opened = Opened(load(folder))
    users = ["u3", "u0", "u7"]
    together = opened.lists(users, 6)
    assert [each.user for each in together] == users
    for each in together:
        alone = opened.lists([each.user], 6)[0]
        assert [line.item for line in each.items] == [line.item for line in alone.items]
        assert np.allclose(
            [line.score for line in each.items], [line.score for line in alone.items], rtol=1e-5, atol=1e-6
        )


def test_an_unknown_user_is_answered_without_the_ids_of_others(folder: Path) -> None:
    with pytest.raises(UnknownIdError, match=r"unknown user 'u99'$"):
        recommend_folder(folder, "u99")


def test_a_user_without_an_interaction_has_no_list(folder: Path) -> None:
    held = load(folder)
    ask(folder, "erase", "u2", items=sorted(items(held, "shared", "u2") | items(held, "private", "u2")))
    opened = Opened(held)
    apply(folder)
    assert len(opened.lists(["u2"])[0].items) == 10  # who has it open still has it, until it is looked at again
    with pytest.raises((DataError, UnknownIdError)):
        Opened(load(folder)).lists(["u2"])


def test_a_served_folder_is_opened_once_and_again_when_there_is_a_newer_version(folder: Path) -> None:
    served = Served(folder)
    first = served.opened()
    assert served.opened() is first
    ask(folder, "unshare", "u1")
    assert served.opened() is first  # a request is no version
    apply(folder)
    second = served.opened()
    assert second is not first
    assert (first.held.version, second.held.version) == (1, 2)
    assert items(second.held, "shared", "u1") == set()


def test_a_model_trained_anew_is_noticed(folder: Path) -> None:
    served = Served(folder)
    assert served.opened().held.trained.system == "fedshare"
    train_folder(make_system("exact"), tiny_dataset(), folder, TrainOptions(force=True))
    assert served.opened().held.trained.system == "exact"


@pytest.mark.slow
def test_a_list_of_movielens_takes_five_milliseconds(shared_data: Path, tmp_path: Path) -> None:
    data = load_data(shared_data / "ml-1m.parquet")
    train_folder(make_system("exact"), data, tmp_path / "run", TrainOptions(share=1.0))
    opened = Served(tmp_path / "run").opened()
    users = opened.held.catalog.user_ids[::97].tolist()
    seconds = []
    for user in [users[0], *users]:  # the first one alone warms up
        began = time.perf_counter()
        opened.lists([user])
        seconds.append(time.perf_counter() - began)
    assert np.median(seconds[1:]) < 0.005, np.median(seconds[1:])
