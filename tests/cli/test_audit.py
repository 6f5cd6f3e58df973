"""Audited unlearning and the comparison, command by command."""

from __future__ import annotations

import json

import polars as pl
import pytest

from tests.audit.worlds import clustered
from tests.cli.commands import SETTINGS, on_disk, retract

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


def trained(data, out, system="exact", *settings):
    assert retract("train", system, "--data", data, "--out", out, *settings).code == 0
    return out


def asked(data, tmp_path, *settings, system="exact"):
    folder = trained(data, tmp_path / "model", system, *settings)
    for user in ("u1", "u2", "u3"):
        assert retract("unshare", folder, "--user", user, "--all").code == 0
    return folder


def test_an_audited_unlearning_tells_its_figures_and_leaves_a_certificate_that_verifies(data, tmp_path, key):
    folder = asked(data, tmp_path)
    answer = retract("unlearn", folder, "--audit", "--oracle", "--json")
    found = answer.json["audit"]
    assert found["attack"] == "learned"
    for model in ("before", "after", "oracle"):
        assert set(found[model]) >= AUDITED
    assert found["parameter_distance"] <= 1e-9
    assert found["ks_after"] == 0 < found["ks_before"]
    assert {"seconds", "oracle_seconds", "speedup", "memory_bytes", "bytes_sent"} <= set(found)
    assert "made a key" in answer.err
    assert key.stat().st_mode & 0o777 == 0o600
    assert retract("verify", answer.json["certificate"]).out.startswith("valid: 3 request(s)")
    shown = retract("audit", folder, "--json").json["audits"]
    assert shown == [found]
    assert "oracle" in retract("audit", folder).out


def test_certificates_chain_and_an_older_one_still_verifies(data, tmp_path):
    folder = asked(data, tmp_path)
    first = retract("unlearn", folder, "--audit", "--json").json
    assert retract("erase", folder, "--user", "u9").code == 0
    second = retract("unlearn", folder, "--audit", "--json").json
    assert "1 later unlearning(s)" in retract("verify", first["certificate"]).out
    assert "later" not in retract("verify", second["certificate"]).out
    assert len(retract("audit", folder, "--json").json["audits"]) == 2


def test_nothing_that_stays_names_who_withdrew_or_what(data, tmp_path):
    folder = asked(data, tmp_path)
    answer = retract("unlearn", folder, "--audit", "--oracle", "--json").json
    for text in ((folder / "audits.jsonl").read_text(), (folder / answer["audit"]["certificate"]).read_text()):
        assert not any(f'"{name}"' in text for name in ("u1", "u2", "u3"))


def test_without_the_oracle_the_plain_attacks_run_and_nothing_is_trained(data, tmp_path):
    found = retract("unlearn", asked(data, tmp_path), "--audit", "--json").json["audit"]
    assert found["attack"] == "score"
    assert found["oracle"] is found["ks_after"] is found["speedup"] is None


def test_erasures_and_unsharings_at_once_are_audited_apart(data, tmp_path):
    folder = asked(data, tmp_path)
    assert retract("erase", folder, "--user", "u7").code == 0
    found = retract("unlearn", folder, "--audit", "--json").json
    assert [one["kind"] for one in found["audits"]] == ["erase", "unshare"]
    assert found["audit"] == found["audits"][0]
    assert retract("verify", found["certificate"]).code == 0


def test_fedshare_is_audited_too(data, tmp_path):
    folder = asked(data, tmp_path, *SETTINGS, system="fedshare")
    found = retract("unlearn", folder, "--audit", "--oracle", "--json").json["audit"]
    assert found["bytes_sent"] > 0
    assert found["oracle_bytes_sent"] > found["bytes_sent"]


def test_a_trained_folder_can_be_the_oracle_and_any_other_is_refused(data, tmp_path):
    folder = asked(data, tmp_path)
    before = on_disk(folder)
    wrong = trained(data, tmp_path / "seed", "exact", "--seed", "1")
    assert "another seed" in retract("unlearn", folder, "--audit", "--oracle-folder", wrong).refusal()
    other = trained(data, tmp_path / "ridge", "exact", "--set", "ridge=7")
    assert "another configuration" in retract("unlearn", folder, "--audit", "--oracle-folder", other).refusal()
    same = trained(data, tmp_path / "same")
    assert "other data" in retract("unlearn", folder, "--audit", "--oracle-folder", same).refusal()
    assert on_disk(folder) == before
    for user in ("u1", "u2", "u3"):
        assert retract("unshare", same, "--user", user, "--all").code == 0
    assert retract("unlearn", same).code == 0
    found = retract("unlearn", folder, "--audit", "--oracle-folder", same, "--json").json["audit"]
    assert found["parameter_distance"] == 0


def test_nothing_pending_needs_no_audit(data, tmp_path):
    folder = trained(data, tmp_path / "model")
    answer = retract("unlearn", folder, "--audit", "--json").json
    assert answer["audit"] is answer["certificate"] is None
    assert "No unlearning" in retract("audit", folder).out


def test_an_oracle_without_an_audit_is_refused(data, tmp_path):
    assert "need --audit" in retract("unlearn", asked(data, tmp_path), "--oracle").refusal()


def test_a_key_that_others_can_read_is_refused_before_anything_is_done(data, tmp_path, key):
    folder = asked(data, tmp_path)
    assert retract("keys", "new").code == 0
    key.chmod(0o644)
    before = on_disk(folder)
    assert str(key) in retract("unlearn", folder, "--audit").refusal()
    assert on_disk(folder) == before


def compare(data, out, *options):
    return retract("compare", "--data", data, "--out", out, "--forget", "users:0.2", "--jobs", 1, *options)


def test_a_comparison_writes_rows_a_table_and_a_page(data, tmp_path):
    answer = compare(data, tmp_path / "out", "--systems", "exact,naive,own", "--json").json
    assert [row["method"] for row in answer["rows"]] == ["naive", "own"]
    assert answer["report"] == str(tmp_path / "out" / "index.html")
    assert "<html" in (tmp_path / "out" / "index.html").read_text()
    assert len(pl.read_csv(tmp_path / "out" / "rows.csv")) == 2
    assert r"\begin{tabular}" in (tmp_path / "out" / "table.tex").read_text()
    again = compare(data, tmp_path / "out", "--systems", "exact,naive,own", "--json").json
    assert json.dumps(again["rows"]) == json.dumps(answer["rows"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
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
