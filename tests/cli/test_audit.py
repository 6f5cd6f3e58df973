"""Audited unlearning and the comparison, command by command."""

from __future__ import annotations

import html
import json
import time

import polars as pl
import pytest

from tests.auditing.worlds import clustered
from tests.cli.commands import SETTINGS, on_disk, retract
from tests.stores.folders import load
from tests.systems.preparing import registered

AUDITED = {"attack_auc", "rank_mean", "recall@20", "ndcg@20", "mi_bf", "mi_ng"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    held = clustered(60, 60).interactions
    path = tmp_path_factory.mktemp("data") / "clustered.csv"
    pl.DataFrame({"user": [f"u{n}" for n in held.users], "item": held.items}).write_csv(path)
    return path


@pytest.fixture(autouse=True)
def key(tmp_path, monkeypatch):
    path = tmp_path / "keys" / "key.pem"
    monkeypatch.setenv("RETRACT_KEY", str(path))
    return path


EASE = ("--set", "form=ease")
"""Then nothing is left to be found, which other data might find otherwise."""


def trained(data, out, system="exact", *settings):
    assert retract("train", system, "--data", data, "--out", out, *settings).code == 0
    return out


def asked(data, tmp_path, *settings, system="exact"):
    folder = trained(data, tmp_path / "model", system, *settings)
    for user in ("u1", "u2", "u3"):
        assert retract("unshare", folder, "--user", user, "--all").code == 0
    return folder


@pytest.mark.slow
def test_an_audited_unlearning_tells_its_figures_and_leaves_a_certificate_that_verifies(data, tmp_path, key):
    folder = asked(data, tmp_path)
    answer = retract("unlearn", folder, "--audit", "--oracle", "--json")
    found = answer.json["audits"][0]
    assert found["attack"] == "learned"
    for model in ("before", "after", "oracle"):
        assert set(found[model]) >= AUDITED
    assert found["parameter_distance"] <= 1e-9
    assert found["ks_after"] == 0 < found["ks_before"]
    assert {"seconds", "oracle_seconds", "speedup", "memory_bytes", "bytes_sent"} <= set(found)
    assert key.stat().st_mode & 0o777 == 0o600
    assert retract("verify", answer.json["certificate"], "--json").json["valid"]
    shown = retract("audit", folder, "--json").json["audits"]
    assert shown == [found]
    assert "oracle" in retract("audit", folder).out


def test_a_system_that_prepares_is_prepared_by_training_and_its_oracle_never_is(data, tmp_path, monkeypatch):
    system = registered(monkeypatch)
    folder = asked(data, tmp_path, system="preparing")
    assert system.calls == {"train": 1, "prepare": 1}
    answer = retract("unlearn", folder, "--audit", "--oracle", "--json").json
    assert system.calls == {"train": 4, "prepare": 1, "unlearn": 1}
    assert answer["memory_bytes"] == answer["audits"][0]["memory_bytes"] == 40
    assert answer["audits"][0]["parameter_distance"] <= 1e-9


def test_training_tells_what_preparing_took_where_something_was_prepared(data, tmp_path, monkeypatch):
    system = registered(monkeypatch)
    prepare = system.prepare

    def slow(*arguments, **named):
        time.sleep(0.06)
        return prepare(*arguments, **named)

    monkeypatch.setattr(system, "prepare", slow)
    assert "time to prepare" in retract("train", "preparing", "--data", data, "--out", tmp_path / "a").out
    assert "prepare" not in retract("train", "exact", "--data", data, "--out", tmp_path / "b").out


@pytest.mark.slow
def test_certificates_chain_and_an_older_one_still_verifies(data, tmp_path):
    folder = asked(data, tmp_path)
    first = retract("unlearn", folder, "--audit", "--json").json
    assert retract("erase", folder, "--user", "u9").code == 0
    second = retract("unlearn", folder, "--audit", "--json").json
    for found in (first, second):
        assert retract("verify", found["certificate"], "--json").json["valid"]
    assert len(retract("audit", folder, "--json").json["audits"]) == 2


def test_nothing_that_stays_names_who_withdrew_or_what(data, tmp_path):
    folder = asked(data, tmp_path)
    answer = retract("unlearn", folder, "--audit", "--oracle", "--json").json
    for text in ((folder / "audits.jsonl").read_text(), (folder / answer["audits"][0]["certificate"]).read_text()):
        assert not any(f'"{name}"' in text for name in ("u1", "u2", "u3"))


def test_without_the_oracle_the_plain_attacks_run_and_nothing_is_trained(data, tmp_path):
    found = retract("unlearn", asked(data, tmp_path), "--audit", "--json").json["audits"][0]
    assert found["attack"] == "score"
    assert found["oracle"] is found["ks_after"] is found["speedup"] is None


def test_erasures_and_unsharings_at_once_are_audited_apart(data, tmp_path):
    folder = asked(data, tmp_path)
    assert retract("erase", folder, "--user", "u7").code == 0
    found = retract("unlearn", folder, "--audit", "--json").json
    assert [one["kind"] for one in found["audits"]] == ["erase", "unshare"]
    assert retract("verify", found["certificate"]).code == 0


@pytest.mark.slow
def test_fedshare_is_audited_too(data, tmp_path):
    folder = asked(data, tmp_path, *SETTINGS, system="fedshare")
    found = retract("unlearn", folder, "--audit", "--oracle", "--json").json["audits"][0]
    assert (found["bytes_sent"], found["rounds"]) == (0, 0)  # what is unshared is forgotten by the server alone
    assert found["oracle_bytes_sent"] > 0
    assert found["parameter_distance"] == 0


@pytest.mark.slow
def test_a_trained_folder_can_be_the_oracle_and_any_other_is_refused(data, tmp_path):
    folder = asked(data, tmp_path)
    before = on_disk(folder)
    wrong = trained(data, tmp_path / "seed", "exact", "--seed", "1")
    assert "another seed" in retract("unlearn", folder, "--audit", "--oracle-folder", wrong).refusal()
    other = trained(data, tmp_path / "ridge", "exact", "--set", "ridge=7")
    refusal = retract("unlearn", folder, "--audit", "--oracle-folder", other).refusal()
    assert "another configuration than the model: ridge 7.0 instead of 50.0; train it with --set ridge=50.0" in refusal
    same = trained(data, tmp_path / "same")
    assert "other data" in retract("unlearn", folder, "--audit", "--oracle-folder", same).refusal()
    now = on_disk(folder)  # the ledger alone tells that requests were claimed and released
    assert now.keys() == before.keys()
    assert {name.split("/")[-1] for name in now if now[name] != before[name]} <= {"ledger.jsonl"}
    for user in ("u1", "u2", "u3"):
        assert retract("unshare", same, "--user", user, "--all").code == 0
    assert retract("unlearn", same).code == 0
    found = retract("unlearn", folder, "--audit", "--oracle-folder", same, "--json").json["audits"][0]
    assert found["parameter_distance"] == 0


@pytest.mark.slow
def test_an_oracle_of_another_system_or_catalog_is_refused_before_it_is_read(data, tmp_path):
    folder = asked(data, tmp_path, *EASE)
    other = trained(data, tmp_path / "other", "lightgcn", "--set", "steps=2")
    assert "another system" in retract("unlearn", folder, "--audit", "--oracle-folder", other).refusal()
    small = tmp_path / "small.csv"
    pl.read_csv(data).head(300).write_csv(small)
    fewer = trained(small, tmp_path / "fewer", "exact", *EASE)
    assert "other data" in retract("unlearn", folder, "--audit", "--oracle-folder", fewer).refusal()


@pytest.mark.slow
def test_a_folder_that_forgot_the_same_user_can_be_the_oracle_of_an_erasure(data, tmp_path):
    folder, same = (trained(data, tmp_path / name) for name in ("model", "same"))
    for each in (folder, same):
        assert retract("erase", each, "--user", "u1").code == 0
    assert retract("unlearn", same).code == 0
    assert retract("unshare", folder, "--user", "u2").code == 0
    assert "one withdrawal" in retract("unlearn", folder, "--audit", "--oracle-folder", same).refusal()
    again = trained(data, tmp_path / "again")
    assert retract("erase", again, "--user", "u1").code == 0
    found = retract("unlearn", again, "--audit", "--oracle-folder", same, "--json").json["audits"][0]
    assert found["parameter_distance"] == 0


def test_an_erasure_by_users_who_had_every_item_is_audited(tmp_path):
    path = tmp_path / "full.csv"
    pl.DataFrame({"user": [f"u{n // 5}" for n in range(20)], "item": [n % 5 for n in range(20)]}).write_csv(path)
    folder = trained(path, tmp_path / "model", "exact", "--share", 1)
    assert retract("erase", folder, "--user", "u1").code == 0
    assert retract("unlearn", folder, "--audit", "--oracle", "--json").json["audits"][0]["attack"] == "score"


def test_one_user_alone_is_no_certainty(data, tmp_path):
    folder = trained(data, tmp_path / "model")
    assert retract("unshare", folder, "--user", "u1").code == 0
    found = retract("unlearn", folder, "--audit", "--json").json["audits"][0]["after"]
    assert (found["attack_low"], found["attack_high"]) == (0, 1)


@pytest.mark.slow
def test_where_nothing_is_left_to_learn_from_the_oracle_knows_nothing_either(data, tmp_path):
    folder = trained(data, tmp_path / "model")
    for number in range(60):
        retract("unshare", folder, "--user", f"u{number}")
    found = retract("unlearn", folder, "--audit", "--oracle", "--json").json["audits"][0]
    assert found["after"]["attack_auc"] == found["oracle"]["attack_auc"] == 0.5
    assert (found["ks_after"], found["parameter_distance"]) == (0, 0)


def test_a_wrong_folder_leaves_no_key_behind(tmp_path, key):
    assert "does not exist" in retract("unlearn", tmp_path / "nowhere", "--audit").refusal()
    assert not key.exists()


def test_nothing_pending_needs_no_audit(data, tmp_path):
    folder = trained(data, tmp_path / "model")
    answer = retract("unlearn", folder, "--audit", "--json").json
    assert (answer["audits"], answer["certificate"]) == ([], None)
    assert "No unlearning" in retract("audit", folder).out


def test_what_no_model_had_learnt_is_certified_without_an_audit(data, tmp_path):
    folder = trained(data, tmp_path / "model", "exact", "--test", 0.2)
    held = load(folder)
    user = held.test.active_users()[0]
    items = ",".join(held.catalog.item_ids[held.test.items_of(user)])
    assert retract("erase", folder, "--user", held.catalog.user_ids[user], "--items", items).code == 0
    answer = retract("unlearn", folder, "--audit")
    (certificate,) = (folder / "certificates").iterdir()
    assert answer.out.endswith(f"certificate: {certificate}\n")
    assert "not that no trace is left" in retract("verify", certificate).out
    assert retract("audit", folder, "--json").json["audits"] == []


def test_an_oracle_without_an_audit_is_refused(data, tmp_path):
    assert "need --audit" in retract("unlearn", asked(data, tmp_path), "--oracle").refusal()


def test_a_key_that_others_can_read_is_refused_before_anything_is_done(data, tmp_path, key):
    folder = asked(data, tmp_path)
    key.chmod(0o644)
    before = on_disk(folder)
    assert str(key) in retract("unlearn", folder, "--audit").refusal()
    assert on_disk(folder) == before


def compare(data, out, *options):
    return retract("compare", "--data", data, "--out", out, "--forget", "users:0.2", "--jobs", 1, *options)


@pytest.mark.slow
def test_a_comparison_writes_rows_a_table_and_a_page(data, tmp_path):
    answer = compare(data, tmp_path / "out", "--systems", "exact,naive,own", "--json").json
    assert [row["method"] for row in answer["rows"]] == ["naive", "own"]
    assert answer["report"] == str(tmp_path / "out" / "index.html")
    assert "<html" in (tmp_path / "out" / "index.html").read_text()
    assert len(pl.read_csv(tmp_path / "out" / "rows.csv")) == 2
    assert r"\begin{tabular}" in (tmp_path / "out" / "table.tex").read_text()
    again = compare(data, tmp_path / "out", "--systems", "exact,naive,own", "--json").json
    assert json.dumps(again["rows"]) == json.dumps(answer["rows"])


@pytest.mark.slow
def test_the_command_on_the_page_makes_it_again(tmp_path):
    held = clustered(60, 60).interactions
    path = tmp_path / "my data.csv"
    pl.DataFrame({"who": held.users, "item": held.items}).write_csv(path)
    assert compare(path, tmp_path / "out", "--systems", "exact,naive", "--user-col", "who").code == 0
    page = html.unescape((tmp_path / "out" / "index.html").read_text())
    assert f"--data '{path}' --systems exact" in page
    assert "--user-col who" in page


def test_a_model_that_diverges_is_one_line(data, tmp_path):
    options = ["--systems", "lightgcn,own", "--set", "lightgcn.rate=1e30", "--set", "lightgcn.steps=5"]
    assert "lightgcn diverged" in compare(data, tmp_path / "out", *options).refusal()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jobs", "0"], "jobs is 0"),
        (["--forget", "canary:inf"], "a whole number of edges"),
        (["--batches", "²"], "whole numbers"),
        (["--systems", "exat"], "unknown system 'exat'"),
        (["--forget", "canary:x"], "'x' is not a number"),
        (["--forget", "canary:99999"], "too few to hide in"),
        (["--forget", "file:nowhere.csv"], "nowhere.csv"),
        (["--share", "0"], "share is 0"),
        (["--seeds", "0"], "seeds is 0"),
        (["--batches", "1,x"], "whole numbers"),
        (["--set", "ridge=5"], "SYSTEM.KEY=VALUE"),
        (["--systems", "exact", "--set", "exact.rigde=5"], "no setting 'rigde'"),
        (["--systems", "exact", "--methods", "fru"], "none of fru fits"),
    ],
)
def test_a_comparison_that_cannot_be_is_one_line(data, tmp_path, options, message):
    assert message in compare(data, tmp_path / "out", *options).refusal()
    assert not (tmp_path / "out").exists()
