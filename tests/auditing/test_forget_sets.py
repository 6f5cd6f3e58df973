"""Forget sets by name."""

import numpy as np
import pytest

from retract.auditing.forget_sets import ForgetSet
from retract.data import Interactions, Sharing
from retract.errors import ConfigError, DataError
from tests.samples import random_interactions

HELD = random_interactions(0, 40, 50, 0.3)
SHARING = Sharing.by_ratio(HELD, 0.5)
NOTHING = Interactions.empty(HELD.catalog)


def drawn(text: str, kind="unshare", seed=0, sharing=SHARING) -> Interactions:
    spec = ForgetSet.parse(text)
    return spec.drawn(spec.planted(sharing, NOTHING, seed), sharing, kind, seed)


@pytest.mark.parametrize("text", ["random:0.2", "users:0.2", "core:0.2", "edge:0.2", "canary:20", "unlikely:20"])
def test_a_draw_is_keyed_and_written_back_as_it_was_read(text):
    assert str(ForgetSet.parse(text)) == text
    assert drawn(text) == drawn(text)
    assert drawn(text) != drawn(text, seed=1) or text[:4] in ("core", "edge")


def test_random_takes_a_part_of_what_can_be_withdrawn():
    assert len(drawn("random:0.2")) == pytest.approx(0.2 * len(SHARING.shared), abs=1)
    assert not len(drawn("random:0.2") - SHARING.shared)
    assert len(drawn("random:0.2", "erase") - SHARING.shared) > 0


def test_users_withdraw_everything_they_share_or_have():
    forget = drawn("users:0.25")
    assert len(forget.active_users()) == round(0.25 * len(SHARING.shared.active_users()))
    assert forget == SHARING.shared.of_users(forget.active_users())
    erased = drawn("users:0.25", "erase")
    assert erased == HELD.of_users(erased.active_users())


def test_core_are_the_best_connected_users_and_edge_the_least():
    degrees = SHARING.shared.user_degrees()
    core, edge = (degrees[drawn(text).active_users()] for text in ("core:0.1", "edge:0.1"))
    assert core.min() >= np.quantile(degrees[degrees > 0], 0.85)
    assert edge.max() <= np.quantile(degrees[degrees > 0], 0.15)


@pytest.mark.parametrize("form", ["canary", "unlikely"])
def test_planted_edges_are_new_edges_of_active_users_and_shared(form):
    spec = ForgetSet.parse(f"{form}:30")
    avoid = random_interactions(1, 40, 50, 0.2)
    sharing = spec.planted(SHARING, avoid, 3)
    canaries = spec.drawn(sharing, SHARING, "unshare", 3)
    assert len(canaries) == 30
    assert not len(canaries & (HELD | avoid))
    assert sharing.shared == SHARING.shared | canaries
    assert sharing.private == SHARING.private
    assert np.isin(canaries.users, HELD.active_users()).all()


def test_non_members_of_unlikely_edges_are_unlikely_too_and_canaries_need_none():
    spec = ForgetSet.parse("unlikely:30")
    avoid = random_interactions(1, 40, 50, 0.2)
    edges = spec.planted(SHARING, avoid, 3).shared - SHARING.shared
    decoys = spec.decoys(SHARING, avoid, 3)
    assert np.array_equal(decoys.users, edges.users)
    assert not len(decoys & (HELD | avoid | edges))
    assert not len(ForgetSet.parse("canary:30").decoys(SHARING, avoid, 3))


def test_a_file_names_pairs_by_their_ids(tmp_path):
    path = tmp_path / "forget.csv"
    some = SHARING.shared.where(np.arange(len(SHARING.shared)) < 5)
    path.write_text("user,item\n" + "".join(f"u{u},i{i}\n" for u, i in zip(some.users, some.items, strict=True)))
    assert drawn(f"file:{path}") == some
    private = SHARING.private
    path.write_text(f"user,item\nu{private.users[0]},i{private.items[0]}\n")
    with pytest.raises(DataError, match="not shared"):
        drawn(f"file:{path}")
    assert len(drawn(f"file:{path}", "erase")) == 1
    path.write_text("user,item\nnobody,i1\n")
    with pytest.raises(DataError, match="nobody"):
        drawn(f"file:{path}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("users", "none of"),
        ("user:0.1", "none of"),
        ("users:", "none of"),
        ("users:x", "not a number"),
        ("users:nan", "between 0 and 1"),
        ("users:0", "between 0 and 1"),
        ("random:1", "between 0 and 1"),
        ("canary:0", "whole number"),
        ("canary:2.5", "whole number"),
        ("canary:-3", "whole number"),
        ("unlikely:0.1", "whole number"),
    ],
)
def test_what_is_no_forget_set_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        ForgetSet.parse(text)


def test_more_canaries_than_can_hide_are_refused():
    with pytest.raises(ConfigError, match="too few to hide in"):
        drawn("canary:5000")


def test_nothing_to_forget_is_refused():
    with pytest.raises(ConfigError, match="empty"):
        drawn("users:0.5", sharing=Sharing.by_ratio(HELD, 0))
