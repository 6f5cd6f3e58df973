"""The demo on small data: what is written, that the page stands alone, and that nothing in the data can break it."""

import json
import re

import numpy as np
import polars as pl
import pytest

from retract.data import load
from retract.report.demo import run_demo
from retract.report.page import Setting, render
from retract.report.story import tell
from retract.systems.fedshare import FedShareConfig
from retract.systems.storage import write_atomically

CONFIG = FedShareConfig(dimension=8, rounds=4)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """60 users of 30 items, whose titles are hostile."""
    draw = np.random.default_rng(0)
    users, items = np.nonzero(draw.random((60, 30)) < 0.3)
    path = tmp_path_factory.mktemp("data") / "films.csv"
    titles = [f"<b>Film</b> {item} & $x^2$ [red]" for item in items]
    pl.DataFrame({"user": users, "item": items, "title": titles}).write_csv(path)
    return str(path)


@pytest.fixture(scope="module")
def written(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "deep" / "demo"
    stages = []
    figures = run_demo(out, data=source, config=CONFIG, progress=lambda *step: stages.append(step))
    return out, figures, stages


def test_it_writes_a_page_and_its_figures_and_nothing_else(written):
    out, figures, _ = written
    assert sorted(path.name for path in out.iterdir()) == ["figures.json", "index.html"]
    assert json.loads((out / "figures.json").read_text()) == {k: v for k, v in figures.items() if k != "report"}
    assert figures["report"] == str(out / "index.html")


def test_the_page_stands_alone(written):
    page = (written[0] / "index.html").read_text()
    assert "<script" not in page
    assert "@import" not in page
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    assert page.count("<svg") == 5


def test_titles_are_text_whatever_they_hold(written):
    page = (written[0] / "index.html").read_text()
    assert "<b>Film" not in page
    assert "&lt;b&gt;Film&lt;/b&gt;" in page


def test_the_figures_hold_the_whole_story(written):
    _, figures, stages = written
    assert [level["ratio"] for level in figures["sharing"]] == [0, 0.25, 0.5, 0.75, 1]
    assert figures["withdrawers"] == 6
    assert {"before", "after", "oracle", "gap_closed"} == figures["rank_device"].keys() == figures["rank_server"].keys()
    assert [group["users"] for group in figures["groups"]] == [60, 6, 54]
    assert figures["unlearn_bytes"]["up"] < figures["oracle_bytes"]["up"]
    assert all(0 <= done <= total for _, done, total in stages)
    assert stages[-1] == ("writing the report", 1, 1)


def test_the_same_seed_tells_the_same_story(source):
    one, two = (tell(load(source), seed=3, config=CONFIG) for _ in range(2))
    assert one.people == two.people
    assert one.device == two.device
    assert [level.accuracy for level in one.levels] == [level.accuracy for level in two.levels]


def test_settings_that_differ_from_the_defaults_are_told(source):
    page = render(tell(load(source), config=CONFIG), Setting("retract demo", "a machine", "versions", "today", 1.0))
    assert "rounds" in page
    assert "dimension" in page


def test_a_write_that_fails_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
