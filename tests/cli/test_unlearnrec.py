"""UnlearnRec by commands: its backbone, its stages, and what it says to those who share nothing any more."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from retract.cli.output import progress_bars
from retract.stores.held import state_digests
from retract.stores.training import TrainOptions, train_folder
from retract.systems.registry import make_system
from tests.cli.commands import Answer, on_disk, retract
from tests.cli.test_interrupts import ENDLESS, interrupted
from tests.stores.folders import load, tiny_dataset

QUICK = ["dimension=4", "layers=1", "epochs=3", "pretrain_steps=2", "withheld=0.2"]


def command(data: Path, out: Path, *settings: str) -> list[object]:
    pairs = (part for pair in (*QUICK, *settings) for part in ("--set", pair))
    return ["train", "unlearnrec", "--data", data, "--out", out, "--share", 1, *pairs]


@pytest.fixture(scope="session")
def prepared(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained folder; ask for `folder` to change it."""
    out = tmp_path_factory.mktemp("unlearnrec") / "run"
    assert retract(*command(ratings, out)).code == 0
    return out


@pytest.fixture
def folder(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "run"))


def forget(folder: Path, *kinds_and_users: str) -> Answer:
    for text in kinds_and_users:
        kind, user = text.split()
        assert retract(kind, folder, "--user", user, "--all").code == 0
    return retract("unlearn", folder, "--json")


# --- the backbone -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["lightgcn", "sgl", "simgcl"])
def test_the_backbone_is_the_setting_of_that_name(ratings: Path, tmp_path: Path, backbone: str) -> None:
    by_option, by_setting = tmp_path / "a", tmp_path / "b"
    assert retract(*command(ratings, by_option), "--backbone", backbone).code == 0
    assert retract(*command(ratings, by_setting, f"backbone={backbone}")).code == 0
    one, other = load(by_option), load(by_setting)
    assert one.trained.config.model_dump()["backbone"] == backbone
    assert one.trained.config == other.trained.config
    assert state_digests(one.trained) == state_digests(other.trained)


@pytest.mark.parametrize(
    ("system", "options", "message"),
    [
        ("unlearnrec", ["--backbone", "gcn"], "backbone of unlearnrec is 'gcn': it must be one of lightgcn, sgl, simg"),
        ("fedshare", ["--backbone", "sgl"], "fedshare has no setting 'backbone': the nearest are"),
        ("unlearnrec", ["--backbone", "sgl", "--set", "backbone=simgcl"], "given twice: --backbone sgl and --set back"),
        ("unlearnrec", ["--backbone", "simgcl", "--set", "layers=0"], "layers is 0: simgcl is the mean of the layers"),
        ("unlearnrec", ["--set", "encoder=none"], "encoder of unlearnrec is 'none': it must be one of calibrated, pap"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    ratings: Path, tmp_path: Path, system: str, options: list[str], message: str
) -> None:
    line = retract("train", system, "--data", ratings, "--out", tmp_path / "run", *options).refusal()
    assert re.search(message, line), line
    assert on_disk(tmp_path) == {}


def test_data_too_small_for_a_twin_is_refused_and_the_way_out_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data.csv"
    data.write_text("user,item\na,x\na,y\nb,y\n")
    line = retract(*command(data, tmp_path / "run")).refusal()
    assert re.search("3 shared interactions are too few to withhold .*--set encoder=paper", line), line
    assert retract(*command(data, tmp_path / "run", "encoder=paper")).code == 0


def test_a_comparison_takes_the_backbone_as_a_setting(ratings: Path, tmp_path: Path) -> None:
    plan = ["compare", "--data", ratings, "--systems", "unlearnrec", "--methods", "own", "--forget", "users:0.2"]
    pairs = [part for pair in (*QUICK, "backbone=gcn") for part in ("--set", f"unlearnrec.{pair}")]
    line = retract(*plan, "--out", tmp_path / "out", *pairs).refusal()
    assert "setting backbone of unlearnrec is 'gcn': it must be one of" in line


# --- those without a shared interaction -------------------------------------------------------------------------------


def test_who_shares_nothing_any_more_is_told_that_lists_go_by_popularity(folder: Path) -> None:
    before = retract("recommend", folder, "--user", "u1", "--json")
    assert (before.json["fallback"], before.err) == (None, "")
    done = forget(folder, "unshare u1")
    assert done.json["isolated_users"] == 1
    assert done.json["notes"][0] == "users who share nothing any more, whose lists go by popularity from now on: 1"
    assert [line.removeprefix("note: ") for line in done.err.splitlines()] == done.json["notes"]

    after = retract("recommend", folder, "--user", "u1", "--json")
    assert after.json["fallback"] == "popularity"
    told = "note: user u1 shares nothing, so the model does not know them: the list goes by popularity\n"
    assert after.err == told
    shared = load(folder).trained.shared
    degrees = dict(zip(shared.catalog.item_ids.tolist(), shared.item_degrees().tolist(), strict=True))
    counts = [degrees[line["item"]] for line in after.json["items"]]
    assert counts == sorted(counts, reverse=True)
    assert retract("recommend", folder, "--user", "u2").err == ""


def test_who_was_erased_is_nobody_to_be_told_and_items_count_as_well(folder: Path) -> None:
    held = load(folder)
    done = forget(folder, *(f"erase u{n}" for n in range(1, 11))).json
    assert done["isolated_users"] == 0
    lost = (held.trained.shared.item_degrees() > 0) & (load(folder).trained.shared.item_degrees() == 0)
    assert done["isolated_items"] == lost.sum() > 0
    assert done["notes"] == [f"items that nobody shares any more, of which the model knows nothing now: {lost.sum()}"]


def test_a_system_that_falls_back_on_nothing_counts_the_isolated_and_says_no_more(
    ratings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert retract("train", "exact", "--data", ratings, "--out", out, "--share", 1).code == 0
    done = forget(out, "unshare u1")
    assert (done.json["isolated_users"], done.json["notes"], done.err) == (1, [], "")
    assert retract("recommend", out, "--user", "u1", "--json").json["fallback"] is None


# --- stages -----------------------------------------------------------------------------------------------------------


def test_the_twin_is_no_second_training_of_the_model(tmp_path: Path) -> None:
    seen: list[str] = []
    settings = dict(pair.split("=") for pair in QUICK)
    train_folder(
        make_system("unlearnrec", settings),
        tiny_dataset(),
        tmp_path / "run",
        TrainOptions(share=1.0),
        progress=lambda stage, done, total: seen.append(stage),
    )
    assert seen == ["training"] * 3 + ["training a twin"] * 3 + ["pre-training"] * 2


def test_the_bar_of_a_stage_that_begins_anew_does_so_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, for rich
    monkeypatch.setenv("COLUMNS", "100")
    with progress_bars() as report:
        for done in (1, 2, 3, 1):
            report("training", done, 3)
    last = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).split("training")[-1]
    assert "1/3" in last
    assert "0:00:00" not in last  # as it would stand beside what was finished once


@pytest.mark.slow
def test_ctrl_c_while_preparing_leaves_nothing(ratings: Path, tmp_path: Path) -> None:
    answer = interrupted("pre-training", *command(ratings, tmp_path / "run", f"pretrain_steps={ENDLESS}"))
    assert (answer.code, answer.out) == (130, "")
    assert answer.err.rstrip().endswith("was not made; nothing was written: run it again")
    assert on_disk(tmp_path) == {}
