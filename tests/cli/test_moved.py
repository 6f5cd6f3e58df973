"""A folder that is moved, linked to, or named from elsewhere is the same folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.cli.commands import retract

pytestmark = pytest.mark.slow


@pytest.fixture
def audited(ratings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trained folder with a certificate and a request that waits."""
    monkeypatch.setenv("RETRACT_KEY", str(tmp_path / "keys" / "key.pem"))
    out = tmp_path / "here" / "run"
    for command in (
        ["train", "exact", "--data", ratings, "--out", out],
        ["erase", out, "--user", "u2"],
        ["unlearn", out, "--audit"],
        ["erase", out, "--user", "u3"],
    ):
        assert retract(*command).code == 0
    return out


@pytest.mark.parametrize("how", ["moved", "linked", "from elsewhere"])
def test_everything_works_where_a_folder_is_now(
    audited: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    listed = retract("recommend", audited, "--user", "u5", "--json").json
    folder = tmp_path / "there" / "run"
    folder.parent.mkdir()
    if how == "moved":
        shutil.move(audited, folder)
    elif how == "linked":
        folder.symlink_to(audited)
    else:
        monkeypatch.chdir(folder.parent)
        folder = Path(os.path.relpath(audited))
    assert retract("recommend", folder, "--user", "u5", "--json").json == listed
    assert retract("status", folder, "--json").json["pending"] == 1
    news = tmp_path / "news.csv"
    news.write_text("user,item,rating\nnew,i0,4\nnew,i1,4\n")
    assert retract("extend", folder, "--data", news, "--json").json["added"] == 2
    assert retract("unlearn", folder, "--audit", "--json").json["requests"] == 1
    certificates = sorted(folder.glob("certificates/*.json"))
    assert len(certificates) == 2
    assert retract("verify", *certificates).code == 0
    assert retract("verify", folder).code == 0
    assert len(retract("audit", folder, "--json").json["audits"]) == 2
    assert "unknown user" in retract("recommend", folder, "--user", "u3").err
