"""The demo on small data: what is written, that the page stands alone, and that nothing in the data can break it."""

import importlib.metadata
import json
import re
import subprocess
import sys
from dataclasses import replace
from errno import ENOSPC

import numpy as np
import polars as pl
import pytest

from retract.atomic import write_atomically
from retract.auditing.demo import run_demo, tell
from retract.data import load
from retract.errors import MissingExtraError
from retract.report import page as pages
from retract.report.demo import write_demo
from retract.report.page import Setting, describe_versions, render
from retract.systems.fedshare import FedShareConfig

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


@pytest.mark.slow
def test_it_writes_a_page_and_its_figures_and_nothing_else(written):
    out, figures, _ = written
    assert sorted(path.name for path in out.iterdir()) == ["figures.json", "index.html"]
    assert json.loads((out / "figures.json").read_text()) == {k: v for k, v in figures.items() if k != "report"}
    assert figures["report"] == str(out / "index.html")


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_same_seed_tells_the_same_story(source):
    one, two = (tell(load(source), seed=3, config=CONFIG) for _ in range(2))
    assert one.people == two.people
    assert one.device == two.device
    assert [level.accuracy for level in one.levels] == [level.accuracy for level in two.levels]


@pytest.fixture(scope="module")
def story(source):
    return tell(load(source), config=CONFIG)


def made(page):
    """The section that says how the page was made."""
    (section,) = re.findall(r'<section aria-labelledby="made">.*?</section>', page, re.DOTALL)
    return section


@pytest.mark.slow
def test_the_page_says_how_it_was_made(story):
    section = made(render(story, Setting("retract demo --seed 0", "a <machine>", "some versions", "some day", 12.0)))
    assert "<code>retract demo --seed 0</code>" in section
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", section, re.DOTALL))
    assert facts["Machine"] == "a &lt;machine&gt;"
    assert facts["Versions"] == "some versions"
    assert facts["Made"] == "some day, in 12.0\u202fs"
    assert facts["System"] == "FedShare, 12 rounds, 8 dimensions"
    assert facts["Seed"].startswith("0,")
    assert re.match(r"films: 60 users, 30 items,\s+\d+ ratings; held back for testing: ", facts["Data"])


@pytest.mark.slow
def test_settings_that_differ_from_the_defaults_are_told_and_no_others(story):
    setting = Setting("retract demo", "a machine", "versions", "today", 1.0)
    assert "<code>dimension=8</code>, <code>rounds=4</code>." in made(render(story, setting))
    usual = replace(story, about=replace(story.about, config=FedShareConfig()))
    assert "differ from the defaults" not in made(render(usual, setting))


@pytest.mark.slow
def test_writing_a_story_gives_its_figures(story, tmp_path):
    figures = write_demo(tmp_path, story, Setting.here("retract demo", 1.234))
    assert figures["seconds"] == 1.23
    assert json.loads((tmp_path / "figures.json").read_text())["forgotten"] == story.withdrawn
    assert f"Python {sys.version.split()[0]}" in made((tmp_path / "index.html").read_text())


def test_versions_are_told_of_what_is_installed(monkeypatch):
    assert "torch" in describe_versions()

    def lacking(name):
        if name == "torch":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(pages, "version", lacking)
    assert describe_versions().endswith(", numpy 1.2, scipy 1.2")
    assert "torch" not in describe_versions()


@pytest.mark.parametrize("lacks", ["matplotlib", "jinja2"])
def test_who_lacks_the_extra_is_told_so_in_one_line_before_anything_is_done(lacks, source, tmp_path, monkeypatch):
    monkeypatch.setattr("retract.systems.checks.find_spec", lambda name: None if name == lacks else object())
    message = rf"^a page needs {lacks}, which is not installed: pip install 'retract\[report\]'$"
    with pytest.raises(MissingExtraError, match=message):
        run_demo(tmp_path / "out", data=source, progress=lambda *step: pytest.fail("it began"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_room_needs_nothing_to_draw_with_until_it_draws_and_never_torch():
    code = (
        "import sys\n"
        "from retract.report import comparison, demo, entries, facts, findings, page, wording\n"
        "from retract.auditing import attacks, audit, case, cell, compare, demo, forget_sets, relearning, shadows\n"
        "print(*{name.split('.')[0] for name in sys.modules} & {'matplotlib', 'jinja2', 'markupsafe', 'torch'})\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_a_write_that_fails_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "index.html"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(ENOSPC, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
