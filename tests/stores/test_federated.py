"""A federation without a network: the same model as on one machine, and what passes between server and nodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retract.data import Interactions
from retract.errors import ConfigError, DataError, FederationError, FolderError, SharingError, UnknownIdError
from retract.stores.federated import FederateOptions, train_federated, unlearn_federated
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import UnlearnOptions
from retract.stores.meeting import Wanted
from retract.stores.members import Members
from retract.stores.node import NodeFolder
from retract.stores.requests import Wish
from retract.systems.registry import make_system
from tests.federation.grids import DirectLink
from tests.stores.federations import NODES, SYSTEMS, Local, World
from tests.tiny import TINY_OF

# --- the same model ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_training_unshare_and_erase_give_what_one_machine_gives(tmp_path: Path, name: str) -> None:
    world = World(tmp_path, name)
    local, report = Local(world), world.train()
    users = world.data.interactions.catalog.user_ids.tolist()
    assert (report.nodes, report.users, world.link.complaints) == (NODES, len(users), [])
    assert report.shared == len(local.trained.shared)
    assert np.abs(world.scores(users) - local.scores(users)).max() <= 1e-4
    shared, catalog = local.devices.sharing.shared, world.data.interactions.catalog
    world.node_of("u1").ask(Wish("unshare", "u1"))
    world.unlearn()
    local.withdraw("unshare", shared.of_users([catalog.user("u1")]))
    assert np.abs(world.scores(users) - local.scores(users)).max() <= 1e-4
    world.restart()
    world.node_of("u2").ask(Wish("erase", "u2"))
    world.unlearn()
    local.withdraw("erase", local.devices.interactions.of_users([catalog.user("u2")]))
    users.remove("u2")
    assert np.abs(world.scores(users) - local.scores(users)).max() <= 1e-4
    served = TrainedFolder(world.out).load_server()
    assert served.shared.keys.tolist() == local.trained.shared.keys.tolist()
    if name == "exact":
        assert np.array_equal(served.model["inverse"], local.trained.model["inverse"])
    assert "u2" not in served.shared.catalog.known_users
    assert "u2" not in (world.out / "server" / "federation.json").read_text().split('"')


def test_the_folder_is_the_servers_half_alone_and_its_commands_work(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.train()
    held = TrainedFolder(world.out).load()
    assert held.devices is None
    assert not (world.out / "devices" / "versions").exists()


# --- what the server sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_no_private_interaction_and_no_item_beyond_what_is_shared_reaches_the_server(tmp_path: Path, name: str) -> None:
    world = World(tmp_path, name)
    world.train()
    world.node_of("u1").ask(Wish("erase", "u1"))
    world.unlearn()
    catalog = world.data.interactions.catalog
    shared = world.data.shared
    assert shared is not None
    private = world.data.interactions - shared
    for action, _, parcel in world.link.received:
        if action == "codes" and parcel.arrays:
            told = Interactions.of(catalog, parcel.arrays["user"], parcel.arrays["item"])
            assert len(told & private) == 0
            assert told.contains(told & shared).all()
        text = json.dumps(dict(parcel.fields))
        own = catalog.user("u1")
        hidden = [catalog.item_ids[item] for item in private.items_of(own)]
        assert not any(f'"{item}"' in text for item in hidden)
        assert not {"state", "vector", "items"} & parcel.arrays.keys()


def test_an_erasure_of_private_data_alone_names_its_user_and_no_item(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.train()
    node = world.node_of("u1")
    catalog = node.devices.sharing.shared.catalog
    private = node.devices.sharing.private.items_of(catalog.user("u1"))
    before = TrainedFolder(world.out).load_server()
    asked = node.ask(Wish("erase", "u1", items=[str(catalog.item_ids[private[0]])]))
    report = world.unlearn()
    told = [one for action, _, parcel in world.link.received if action == "hello" for one in parcel.fields["requests"]]
    assert told == [{"id": asked.id, "kind": "erase", "user": "u1", "items": []}]
    after = TrainedFolder(world.out).load_server()
    assert report.requests == 1
    assert after.shared.keys.tolist() == before.shared.keys.tolist()
    assert not np.array_equal(after.model["inverse"], before.model["inverse"])
    assert "u1" in after.shared.catalog.known_users


# --- requests ---------------------------------------------------------------------------------------------------------


def test_a_request_is_applied_once_however_often_it_is_told(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.train()
    asked = world.node_of("u1").ask(Wish("unshare", "u1"))
    place = next(p for p in world.places if (p / "requests" / f"{asked.id}.json").exists())
    assert world.unlearn().requests == 1
    assert not list((place / "requests").glob("*.json"))
    assert world.unlearn().requests == 0
    assert len(TrainedFolder(world.out).ledger.requests()) == 1


def test_a_node_that_was_not_told_of_the_end_tells_again_and_nothing_is_done_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.train()
    world.node_of("u1").ask(Wish("erase", "u1"))

    def fail(action: str) -> None:
        if action == "settle":
            raise KeyboardInterrupt

    world.link.before = fail
    with pytest.raises(KeyboardInterrupt):
        world.unlearn()
    world.link.before = lambda action: None
    world.restart()
    assert world.unlearn().requests == 0
    assert not [path for place in world.places for path in (place / "requests").glob("*.json")]


def test_a_request_that_a_kill_cut_off_is_finished_by_the_next_process(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.train()
    node = world.node_of("u1")
    asked = node.ask(Wish("erase", "u1"))
    looked = node.outbox.looked_at(asked, node.devices.sharing.shared)
    named = node.devices.interactions.of_users([node.devices.sharing.shared.catalog.user("u1")])
    node.devices.erase(named)  # and here the kill
    world.restart()
    world.unlearn()
    told = [one for action, _, parcel in world.link.received if action == "hello" for one in parcel.fields["requests"]]
    assert told[-1]["items"] == list(looked.told or ())
    assert "u1" not in TrainedFolder(world.out).load_server().shared.catalog.known_users


def test_what_cannot_be_withdrawn_is_refused_where_it_is_asked(tmp_path: Path) -> None:
    world = World(tmp_path)
    node = world.node_of("u1")
    with pytest.raises(UnknownIdError):
        node.ask(Wish("erase", "nobody"))
    catalog = node.devices.sharing.shared.catalog
    item = node.devices.sharing.private.items_of(catalog.user("u1"))[0]
    with pytest.raises(SharingError, match="not shared"):
        node.ask(Wish("unshare", "u1", items=[str(catalog.item_ids[item])]))
    node.ask(Wish("erase", "u1"))
    with pytest.raises(SharingError, match="nothing left"):
        node.ask(Wish("erase", "u1"))


def test_a_node_that_leaves_for_good_is_an_erasure_of_all_its_users(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.train()
    gone = set(NodeFolder(world.places[0]).devices.sharing.shared.catalog.known_users)
    assert len(NodeFolder(world.places[0]).leave()) == len(gone)
    world.unlearn()
    known = set(TrainedFolder(world.out).load_server().shared.catalog.known_users)
    assert not known & gone
    assert known == set(world.data.interactions.catalog.user_ids.tolist()) - gone
    fresh = World(tmp_path / "rest", data=world.data)
    fresh.link.there.pop(0)
    fresh.train()
    mine, theirs = (TrainedFolder(each.out).load_server().model["inverse"] for each in (world, fresh))
    assert np.array_equal(mine, theirs)


def test_requests_of_others_users_are_dropped(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.train()
    node = world.link.there[0]
    answer = node.answer

    def forged(action: str, parcel: Any) -> Any:
        found = answer(action, parcel)
        if action != "hello":
            return found
        other = {"id": "x", "kind": "erase", "user": "u1", "items": []}
        return replace(found, fields={**found.fields, "requests": [other]})

    owner = next(n for n, each in world.link.there.items() if "u1" in each.devices.sharing.shared.catalog.known_users)
    other = next(number for number in world.link.there if number != owner)
    node, answer = world.link.there[other], world.link.there[other].answer
    node.answer = forged  # type: ignore[method-assign]
    assert world.unlearn().requests == 0
    assert any("others' data" in line for line in world.link.complaints)


# --- who takes part ---------------------------------------------------------------------------------------------------


def test_a_node_with_items_that_the_catalog_lacks_is_refused_and_they_are_told_to_its_own_log_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = World(tmp_path)
    items = (tmp_path / "items.tsv").read_text().splitlines()
    held = NodeFolder(world.places[0]).devices.interactions
    lacking = str(held.catalog.item_ids[held.items[0]])
    (tmp_path / "items.tsv").write_text("\n".join(line for line in items if line.split("\t")[0] != lacking))
    with pytest.raises(FederationError) as error:
        world.train()
    assert lacking not in str(error.value).replace(",", " ").split()
    assert all("catalog lacks" in line for line in world.link.complaints)
    assert lacking in capsys.readouterr().err


def test_who_claims_anothers_users_does_not_take_part(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.link.there[9] = NodeFolder(world.places[0])
    world.link.keys[9] = "key 9, of somebody else"
    report = world.train()
    assert report.nodes == NODES
    assert any("whose data another node holds" in line for line in world.link.complaints)


def test_a_late_joiner_takes_part_in_the_next_training(tmp_path: Path) -> None:
    world = World(tmp_path)
    late = world.link.there.pop(2)
    assert world.train().nodes == 2
    world.link.there[2] = late
    assert world.unlearn().requests == 0
    assert any("came late" in line for line in world.link.complaints)
    assert world.train(force=True).nodes == 3
    codes = Members.at(world.out)
    assert codes is not None
    assert sorted(codes.catalog.known_users) == sorted(world.data.interactions.catalog.user_ids.tolist())


def test_too_few_nodes_and_none_at_all_are_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    options = replace(world.options(), wanted=Wanted(7, 0.0, 5.0))
    with pytest.raises(FederationError, match="3 of 7"):
        train_federated(world.system, world.link, world.out, options)
    world.link.there = {}
    with pytest.raises(FederationError, match="0 of 1"):
        world.train()
    assert not world.out.exists()


def test_a_system_that_needs_everybody_stops_where_a_node_is_silent(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.link.before = lambda action: world.link.silent.add(1) if action == "task" else None
    with pytest.raises(FederationError, match="did not answer"):
        world.train()
    assert not (world.out / "server" / "current").exists()


def test_central_systems_say_in_one_line_that_they_cannot(tmp_path: Path) -> None:
    world = World(tmp_path)
    for name in ("lightgcn", "receraser", "unlearnrec"):
        with pytest.raises(ConfigError, match=f"{name} is central"):
            train_federated(make_system(name, TINY_OF[name]), world.link, world.out, world.options())


def test_items_have_to_be_named_once_each(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(DataError, match="knows no items yet"):
        train_federated(world.system, world.link, world.out, FederateOptions(wanted=Wanted(1, 0.0)))
    for text in ("", "i1\ni1\n"):
        (tmp_path / "items.tsv").write_text(text)
        with pytest.raises(DataError):
            world.train()


def test_a_folder_without_nodes_is_unlearnt_by_the_other_command(tmp_path: Path) -> None:
    from tests.stores.folders import make_folder

    make_folder(tmp_path / "m", "exact", 1.0)
    with pytest.raises(FolderError, match="has no nodes"):
        unlearn_federated(TrainedFolder(tmp_path / "m"), DirectLink({}), UnlearnOptions())


# --- measuring and recommending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SYSTEMS)
def test_metrics_are_sums_of_what_nodes_judge_by_what_they_held_out(tmp_path: Path, name: str) -> None:
    from retract.stores.measuring import measure

    world = World(tmp_path, name, test=0.2)
    report = world.train()
    parts = [NodeFolder(place) for place in world.places]
    history, test = parts[0].devices.interactions, parts[0].held_out.interactions
    catalog = history.catalog
    for part in parts[1:]:
        history = Interactions.of(
            catalog,
            *(
                np.concatenate(pair)
                for pair in zip(_columns(history), _columns(part.devices.interactions), strict=True)
            ),
        )
        test = Interactions.of(
            catalog,
            *(np.concatenate(pair) for pair in zip(_columns(test), _columns(part.held_out.interactions), strict=True)),
        )
    assert report.measured_on == len(test) > 0
    if name == "exact":
        trained = parts[0].published()
        wanted = measure(world.system.device.reader(trained.published, parts[0].devices.kept("")), history, test)
        assert report.metrics == pytest.approx(wanted)
    assert all(value is not None for value in report.metrics.values())


def _columns(held: Interactions) -> tuple[np.ndarray, np.ndarray]:
    return held.users, held.items


def test_a_node_recommends_by_itself_and_says_where_it_cannot(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(FolderError, match="has got no model"):
        world.node_of("u1").lists(["u1"])
    world.train()
    found = world.node_of("u1").lists(["u1"], 3)[0]
    assert len(found.items) == 3
    assert found.items[0].title.startswith("Film")
    other = next(NodeFolder(p) for p in world.places if p != world.node_of("u1").path)
    with pytest.raises(UnknownIdError):
        other.lists(["u1"])


# --- resuming ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedshare", "personalfr"])
@pytest.mark.parametrize("stop", [3, 5])
def test_a_training_that_was_killed_goes_on_bit_for_bit(tmp_path: Path, name: str, stop: int) -> None:
    whole, cut = World(tmp_path / "a", name), World(tmp_path / "b", name)
    whole.train()
    asked = 0

    def kill(action: str) -> None:
        nonlocal asked
        asked += action == "task"
        if asked == stop:
            raise KeyboardInterrupt

    cut.link.before = kill
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    cut.link.before = lambda action: None
    cut.restart()
    report = cut.train(resume=True)
    assert report.resumed_at is not None
    mine, theirs = (TrainedFolder(each.out).load_server().model for each in (whole, cut))
    assert all(np.array_equal(mine[table], theirs[table]) for table in mine)
    users = whole.data.interactions.catalog.user_ids.tolist()
    assert np.array_equal(whole.scores(users), cut.scores(users))


def test_a_training_that_was_killed_before_its_first_round_begins_anew(tmp_path: Path) -> None:
    world = World(tmp_path)

    def kill(action: str) -> None:
        if action == "task":
            raise KeyboardInterrupt

    world.link.before = kill
    with pytest.raises(KeyboardInterrupt):
        world.train()
    world.link.before = lambda action: None
    world.restart()
    assert world.train().nodes == NODES


@pytest.mark.slow
def test_a_training_is_not_resumed_once_somebody_withdrew(tmp_path: Path) -> None:
    world = World(tmp_path, "fedshare")

    def kill(action: str) -> None:
        if action == "task" and len(world.link.sent) > 12:
            raise KeyboardInterrupt

    world.link.before = kill
    with pytest.raises(KeyboardInterrupt):
        world.train()
    world.link.before = lambda action: None
    world.node_of("u1").ask(Wish("erase", "u1"))
    with pytest.raises(ConfigError, match="withdrawn"):
        world.train(resume=True)
    assert world.train(force=True).users == 11
