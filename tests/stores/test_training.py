"""Training into a folder, and going on with a training that was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retract.data import Catalog, Dataset, Interactions
from retract.errors import ConfigError, DataError, FolderError
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import Forgotten, unlearn_folder
from retract.stores.held import MODEL, Held
from retract.stores.ledger import Kind
from retract.stores.measuring import measure
from retract.stores.resuming import Place
from retract.stores.training import TrainOptions, TrainReport, train_folder
from retract.systems.base import Checkpoint, no_progress
from retract.systems.registry import make_system
from retract.systems.system import System
from tests.auditing.statements import files_of
from tests.stores.folders import TINY_OF, apply, ask, items, load, on_disk, tiny_dataset, tiny_system


def test_the_report_of_training_tells_what_the_folder_holds(tmp_path: Path) -> None:
    report = train_folder(tiny_system(), tiny_dataset(), tmp_path / "run", TrainOptions(share=0.5))
    held = load(tmp_path / "run")
    assert (report.system, report.users, report.items) == ("fedshare", 12, 15)
    assert report.shared == len(held.trained.shared)
    assert report.shared + report.private + len(held.test) == 60
    assert report.metrics == measure(held.recommender(), held.interactions, held.test)
    assert report.memory_bytes == held.trained.memory.nbytes
    assert min(report.bytes_up, report.bytes_down, report.client_updates_per_second, report.seconds) > 0
    assert 50 < report.peak_mb < 20_000


def test_two_trainings_with_one_seed_are_equal_and_with_another_are_not(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 4), ("d", 5)):
        train_folder(tiny_system(), tiny_dataset(), tmp_path / name, TrainOptions(share=0.5, seed=seed))
    a, b, c = (load(tmp_path / name).trained.model["items"] for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


def test_items_that_nobody_touches_in_training_are_kept_and_reported(tmp_path: Path) -> None:
    catalog = Catalog(np.array(["a", "b"]), np.array([f"i{n}" for n in range(6)]))
    data = Dataset("gaps", Interactions.of(catalog, [0, 0, 1, 1], [0, 1, 1, 2]), np.array([0, 0, 0, 1], bool), ())
    report = train_folder(tiny_system(), data, tmp_path / "run", TrainOptions(share=0.5))
    assert report.notes == ("items that nobody touches in the training part, kept all the same: 4 of 6",)
    assert load(tmp_path / "run").catalog.n_items == 6


def test_a_data_set_with_one_user_is_refused(tmp_path: Path) -> None:
    catalog = Catalog(np.array(["a"]), np.array(["x", "y", "z"]))
    data = Dataset("lonely", Interactions.of(catalog, [0, 0, 0], [0, 1, 2]), None, ())
    with pytest.raises(DataError, match="lonely: users with something to train on: 1; at least 2 are needed"):
        train_folder(tiny_system(), data, tmp_path / "run", TrainOptions(share=0.5))
    assert not list(tmp_path.iterdir())


def test_a_target_that_cannot_be_used_is_refused_before_training(folder: Path) -> None:
    system = tiny_system()
    system.server.train = None  # type: ignore[method-assign, assignment] # it would fail were it called
    with pytest.raises(FolderError, match="--force"):
        train_folder(system, tiny_dataset(), folder, TrainOptions(share=0.5))


def test_a_centralised_system_lives_the_same_life(tmp_path: Path) -> None:
    report = train_folder(
        make_system("lightgcn", {"steps": "3"}), tiny_dataset(), tmp_path / "run", TrainOptions(share=1.0)
    )
    assert (report.memory_bytes, report.bytes_up, report.client_updates_per_second) == (0, 0, 0.0)
    ask(tmp_path / "run", "unshare", "u1")
    apply(tmp_path / "run")
    assert items(load(tmp_path / "run"), "shared", "u1") == set()


# --- going on with what was interrupted -------------------------------------------------------------------------------

RESUMABLE = sorted(TINY_OF.keys() - {"exact"})


LONGER = {"fedshare": {"rounds": 7}, "lightgcn": {"steps": 8}, "personalfr": {"rounds": 8}, "receraser": {"shards": 4}}


def long_system(name: str, **settings: object) -> System:
    """A system with little to do, in several steps."""
    return make_system(name, {**TINY_OF[name], **LONGER.get(name, {}), **settings})


class Stopped(BaseException):
    """What stands for a kill."""


class StopAt:
    """A progress that stops a training at its n-th call, and counts them."""

    def __init__(self, call: int) -> None:
        self.call, self.calls = call, 0

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.calls += 1
        if self.calls == self.call:
            raise Stopped


def options(name: str, **given: Any) -> TrainOptions:
    """Every step is kept; central systems need all that there is."""
    share = 0.5 if name in ("exact", "fedshare", "personalfr") else 1.0
    return TrainOptions(**{"share": share, "keep_every": 0.0, "seed": 3, **given})


def train(name: str, out: Path, progress: Any = no_progress, **given: Any) -> TrainReport:
    return train_folder(long_system(name), tiny_dataset(), out, options(name, **given), progress)


def interrupted(name: str, out: Path, call: int = 4) -> Path:
    """A folder whose training was stopped."""
    with pytest.raises(Stopped):
        train(name, out, StopAt(call))
    return out


def without_seconds(log: Any) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if not name.endswith("seconds")} for record in log]


def assert_equal_to_the_last_bit(mine: Held, theirs: Held) -> None:
    assert mine.devices is not None
    assert theirs.devices is not None
    kept, wanted = (held.devices.kept(held.trained.run) for held in (mine, theirs))  # type: ignore[union-attr]
    assert kept.clients.tolist() == wanted.clients.tolist()
    for got, want in (
        (mine.trained.model, theirs.trained.model),
        (mine.trained.memory.tables, theirs.trained.memory.tables),
        (kept.state, wanted.state),
    ):
        assert got.keys() == want.keys()
        for name in want:
            assert got[name].dtype == want[name].dtype, name
            assert got[name].tobytes() == want[name].tobytes(), name
    assert mine.trained.memory.on_devices == theirs.trained.memory.on_devices
    assert without_seconds(mine.trained.log) == without_seconds(theirs.trained.log)
    assert (mine.trained.shared, mine.sharing, mine.test) == (theirs.trained.shared, theirs.sharing, theirs.test)


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMABLE)
def test_a_resumed_training_is_the_undisturbed_one_bit_for_bit(tmp_path: Path, name: str) -> None:
    counted = StopAt(0)
    train(name, tmp_path / "whole", counted)
    whole, resumed = load(tmp_path / "whole"), set()
    for call in sorted({2, 3, counted.calls // 2, 2 * counted.calls // 3, counted.calls - 1, counted.calls}):
        out = interrupted(name, tmp_path / str(call), call)
        if Place.told(out) is None:
            continue  # nothing was done yet
        assert "resume" in str(Place.left(out))
        resumed.add(train(name, out, resume=True).resumed_at)
        assert_equal_to_the_last_bit(load(out), whole)
        assert Place.told(out) is None
        assert kinds(out) == kinds(tmp_path / "whole")
    assert len(resumed) >= 2
    assert None not in resumed


def kinds(folder: Path) -> list[str]:
    """The files of a folder, but for the id of its model, which every training draws anew."""
    model = TrainedFolder(folder).manifest().facts["model"]
    return sorted(name.replace(model, "MODEL") for name in on_disk(folder))


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMABLE)
def test_it_is_so_wherever_its_place_was_kept(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls, stop = Place.keep, 0, 0

    def keep(self: Place, checkpoint: Callable[[], Checkpoint]) -> None:
        nonlocal calls
        original(self, checkpoint)
        calls += 1
        if calls == stop:
            raise Stopped

    monkeypatch.setattr(Place, "keep", keep)
    train(name, tmp_path / "whole")
    whole, every = load(tmp_path / "whole"), calls
    assert every >= 4
    for stop in sorted({1, every // 4, every // 2, every - 1, every}):
        calls = 0
        with pytest.raises(Stopped):
            train(name, tmp_path / str(stop))
        calls = every
        train(name, tmp_path / str(stop), resume=True)
        assert_equal_to_the_last_bit(load(tmp_path / str(stop)), whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fedshare", "personalfr"])
def test_a_training_may_be_interrupted_again_and_again(tmp_path: Path, name: str) -> None:
    train(name, tmp_path / "whole")
    out = interrupted(name, tmp_path / "run", 2)
    places = [Place.told(out)]
    for _ in range(100):
        try:
            train(name, out, StopAt(3), resume=places[-1] is not None)
            break
        except Stopped:
            places.append(Place.told(out))
    assert len(set(places)) > 2
    assert_equal_to_the_last_bit(load(out), load(tmp_path / "whole"))


def test_an_interrupted_training_without_a_word_of_what_to_do_with_it_is_refused(tmp_path: Path) -> None:
    out = interrupted("lightgcn", tmp_path / "run")
    before = on_disk(out)
    with pytest.raises(FolderError, match=r"holds an interrupted training \(.*, step \d+\): --resume goes on .*anew$"):
        train("lightgcn", out)
    assert on_disk(out) == before
    assert train("lightgcn", out, force=True).resumed_at is None
    assert Place.told(out) is None


@pytest.mark.parametrize("trained", [False, True])
def test_where_nothing_was_interrupted_there_is_nothing_to_resume(tmp_path: Path, trained: bool) -> None:
    if trained:
        train("exact", tmp_path / "run")
    before = on_disk(tmp_path)
    with pytest.raises(FolderError, match=r"run holds no interrupted training: leave --resume out$"):
        train("exact", tmp_path / "run", resume=True)
    assert on_disk(tmp_path) == before


def test_a_training_of_one_step_is_begun_anew(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train("exact", tmp_path / "run", StopAt(1))
    assert not (tmp_path / "run").exists()
    train("exact", tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMABLE)
def test_another_data_set_other_settings_or_another_seed_are_refused(tmp_path: Path, name: str) -> None:
    out = interrupted(name, tmp_path / "run")
    before = on_disk(out)
    rate = next(setting for setting in TINY_OF[name] if setting in ("steps", "rounds", "epochs"))
    others = {
        r"holds a training on other data or another sharing": lambda: train_folder(
            long_system(name), tiny_dataset(seed=1), out, options(name, resume=True)
        ),
        r"on other data or another sharing: resume with the same, or begin anew": lambda: train(
            name, out, resume=True, share=0.25
        ),
        r"on other data or another|was another one \(seed was 3 and is 4\)": lambda: train(
            name, out, resume=True, seed=4
        ),
        rf"was another one \({rate} was \d+ and is 9\): resume with the same, or begin anew": lambda: train_folder(
            long_system(name, **{rate: 9}), tiny_dataset(), out, options(name, resume=True)
        ),
        r"was another one \(.*system was": lambda: train_folder(
            make_system("lightgcn" if name != "lightgcn" else "receraser"),
            tiny_dataset(),
            out,
            options(name, resume=True),
        ),
    }
    for message, resume in others.items():
        with pytest.raises(ConfigError, match=message) as refusal:
            resume()
        assert "\n" not in str(refusal.value)
        assert on_disk(out) == before
    assert train(name, out, resume=True).resumed_at is not None


def test_another_seed_alone_is_refused_where_the_data_is_the_same(tmp_path: Path) -> None:
    data = tiny_dataset()
    held_out = np.arange(len(data.interactions)) % 5 == 0
    parted = Dataset("tiny", data.interactions, held_out, ())
    with pytest.raises(Stopped):
        train_folder(long_system("lightgcn"), parted, tmp_path / "run", options("lightgcn"), StopAt(3))
    with pytest.raises(ConfigError, match=r"was another one \(seed was 3 and is 4\): resume with the same"):
        train_folder(long_system("lightgcn"), parted, tmp_path / "run", options("lightgcn", seed=4, resume=True))


@pytest.mark.slow
@pytest.mark.parametrize("file", ["place.json", "tables"])
def test_a_damaged_place_is_named_and_only_force_begins_anew(tmp_path: Path, file: str) -> None:
    out = interrupted("fedshare", tmp_path / "run")
    for half in ("server", "devices") if file == "tables" else ("server",):
        room = out / half / "training"
        path = room / "place.json" if file == "place.json" else next(room.glob("*.safetensors"))
        content = path.read_bytes()
        for damaged in (content[:-20], b"{}", b"", content[:-9] + b"x" + content[-8:]):
            path.write_bytes(damaged)
            with pytest.raises((FolderError, ConfigError), match=r"server/training is damaged: --force|on other data"):
                train("fedshare", out, resume=True)
        path.unlink()
        with pytest.raises(FolderError, match=r"is damaged|holds no interrupted training"):
            train("fedshare", out, resume=True)
        path.write_bytes(content)
    train("fedshare", out, force=True)
    assert load(out).version == 1


def test_an_interrupted_training_over_a_trained_folder_leaves_that_one_served(tmp_path: Path) -> None:
    train("exact", tmp_path / "run")
    out = interrupted_over(tmp_path / "run")
    assert load(out).trained.system == "exact"
    with pytest.raises(FolderError, match="--force replaces it"):
        train("fedshare", out)
    ask(out, "unshare", "u1")
    with pytest.raises(FolderError, match=r"1 request\(s\) of it are pending, which the training would lose"):
        train("fedshare", out, resume=True)
    train("fedshare", out, resume=True, force=True)
    assert load(out).trained.system == "fedshare"


def interrupted_over(out: Path) -> Path:
    """A trained folder with an interrupted training that is to replace its model."""
    with pytest.raises(Stopped):
        train("fedshare", out, StopAt(4), force=True)
    return out


@pytest.mark.parametrize("kind", ["unshare", "erase"])
def test_a_withdrawal_takes_the_place_of_a_training_that_had_learnt_it_away(tmp_path: Path, kind: Kind) -> None:
    train("exact", tmp_path / "run")
    out = interrupted_over(tmp_path / "run")
    ask(out, kind, "u1")
    done = apply(out)
    assert done.requests == 1
    assert "its place is gone, train anew" in done.notes[0]
    assert not any((out / half / "training").exists() for half in ("server", "devices"))
    with pytest.raises(FolderError, match="holds no interrupted training"):
        train("fedshare", out, resume=True)
    assert apply(out).notes == ()


def test_a_model_that_learnt_what_was_withdrawn_meanwhile_is_not_saved(tmp_path: Path) -> None:
    train("exact", tmp_path / "run")
    out, calls = tmp_path / "run", 0

    def meanwhile(stage: str, done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            ask(out, "erase", "u1")
            apply(out)

    with pytest.raises(FolderError, match=r"something was withdrawn from .* while this model was trained"):
        train("fedshare", out, meanwhile, force=True)
    assert load(out).trained.system == "exact"
    assert Place.told(out) is None
    train("fedshare", out, force=True)
    assert "u1" not in load(out).catalog.user_ids[load(out).interactions.active_users()]


def test_a_training_of_another_system_is_not_gone_on_with_and_not_lost(tmp_path: Path) -> None:
    out = interrupted("fedshare", tmp_path / "run")
    with pytest.raises(ConfigError, match="system was 'fedshare' and is 'exact'"):
        train("exact", out, resume=True)
    assert train("fedshare", out, resume=True).resumed_at is not None


def test_a_kill_between_the_model_and_the_end_of_its_training_loses_no_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = interrupted("fedshare", tmp_path / "run")

    def killed(self: Place) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Place, "leave", killed)
        with pytest.raises(Stopped):
            train("fedshare", out, resume=True)
    asked, manifest = ask(out, "erase", "u1"), TrainedFolder(out).manifest()
    report = train("fedshare", out, resume=True)
    assert "had ended already" in report.notes[0]
    assert report.metrics == manifest.facts["metrics"]
    assert TrainedFolder(out).manifest() == manifest
    assert [request.id for request in TrainedFolder(out).inbox.pending()] == [asked.id]
    assert Place.told(out) is None


def test_a_model_that_is_replaced_while_another_process_unlearns_is_named(tmp_path: Path) -> None:
    train("exact", tmp_path / "run")
    out = tmp_path / "run"
    ask(out, "erase", "u1")

    def judge(forgotten: Forgotten) -> dict[str, bytes]:
        train("exact", out, force=True)
        return {}

    with pytest.raises(FolderError, match="was changed by somebody else"):
        unlearn_folder(TrainedFolder(out), judge=judge)
    assert not TrainedFolder(out).ledger.requests()


def test_places_are_kept_as_often_as_asked_and_nothing_older_stays(tmp_path: Path) -> None:
    out = interrupted("lightgcn", tmp_path / "run")
    told = json.loads((out / "server" / "training" / "place.json").read_bytes())
    for half in ("server", "devices"):
        assert {path.name for path in (out / half / "training").iterdir()} - {"place.json"} == {told["tables"]}
    with pytest.raises(Stopped):
        train("lightgcn", tmp_path / "rarely", StopAt(4), keep_every=3600.0)
    assert not (tmp_path / "rarely").exists()


# --- what is held out -------------------------------------------------------------------------------------------------


def test_a_model_learns_from_everything_unless_somebody_holds_something_out(tmp_path: Path) -> None:
    report = train_folder(make_system("exact"), tiny_dataset(), tmp_path / "run", TrainOptions(test=0.0))
    assert (report.learnt, report.interactions, report.held_out, report.measured_on) == (60, 60, 0, 0)
    assert set(report.metrics.values()) == {None}
    assert load(tmp_path / "run").interactions == tiny_dataset().interactions


def test_what_is_held_out_is_measured_and_no_model_learns_from_it(tmp_path: Path) -> None:
    report = train_folder(make_system("exact"), tiny_dataset(), tmp_path / "run", TrainOptions(test=0.2))
    assert (report.learnt, report.interactions, report.held_out, report.measured_on) == (48, 60, 12, 12)
    assert report.metrics["recall@20"] is not None


@pytest.mark.parametrize("folds", [False, True])
def test_evaluating_measures_a_model_of_a_part_and_keeps_one_of_everything(tmp_path: Path, folds: bool) -> None:
    data = tiny_dataset()
    if folds:
        data = replace(data, is_test=np.arange(60) % 5 == 0)
    part = train_folder(make_system("exact"), data, tmp_path / "part", TrainOptions(test=None if folds else 0.2))
    seen: list[str] = []
    report = train_folder(
        make_system("exact"),
        data,
        tmp_path / "run",
        TrainOptions(evaluate=True),
        lambda stage, done, total: seen.append(stage),
    )
    assert (report.metrics, report.measured_on) == (part.metrics, 12)
    assert (report.learnt, report.interactions, report.held_out) == (60, 60, 0)
    whole = train_folder(make_system("exact"), tiny_dataset(), tmp_path / "whole")
    assert files_of(tmp_path / "run")[MODEL] == files_of(tmp_path / "whole")[MODEL]
    assert whole.learnt == 60
    assert all(stage.endswith(", to evaluate") for stage in seen[: len(seen) // 2])


def test_to_hold_out_for_good_and_to_learn_from_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        TrainOptions(test=0.2, evaluate=True)


@pytest.mark.slow
def test_what_was_measured_first_outlives_an_interruption(tmp_path: Path) -> None:
    given = {"evaluate": True, "share": 1.0}
    whole = train("lightgcn", tmp_path / "whole", **given)
    calls = StopAt(10**9)
    train("lightgcn", tmp_path / "counted", calls, **given)
    with pytest.raises(Stopped):
        train("lightgcn", tmp_path / "run", StopAt(calls.calls - 2), **given)
    seen: list[str] = []
    report = train("lightgcn", tmp_path / "run", lambda stage, done, total: seen.append(stage), resume=True, **given)
    assert (report.metrics, report.measured_on) == (whole.metrics, whole.measured_on)
    assert report.resumed_at is not None
    assert not any("evaluate" in stage for stage in seen)
    assert files_of(tmp_path / "run")[MODEL] == files_of(tmp_path / "whole")[MODEL]
