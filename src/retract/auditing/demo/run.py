"""`retract demo`: the whole story on real data, from choosing what to share to the report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from retract.auditing.demo.story import tell
from retract.data import load
from retract.report.demo import write_demo
from retract.report.page import Setting, require_page
from retract.systems.base import Progress, Stopwatch, no_progress
from retract.systems.fedshare import FEDSHARE, FedShareConfig
from retract.systems.likes import suited_to


def run_demo(
    out: Path,
    *,
    data: str = "movielens-small",
    seed: int = 0,
    progress: Progress = no_progress,
    config: FedShareConfig | None = None,
) -> dict[str, Any]:
    """Tell the story, and have it written to a folder: a page to look at and the figures as JSON.

    Parameters
    ----------
    out
        The folder; made where it is missing.
    data
        A file, or the name of a data set that retract knows.
    seed
        Key of every draw.
    progress
        Called as (stage, done, total).
    config
        Settings of FedShare; the defaults unless given.

    Returns
    -------
    dict
        The figures, and the page's path under "report".

    Raises
    ------
    MissingExtraError
        If the packages that draw the page are not installed; nothing is trained then.
    """
    require_page()
    watch = Stopwatch()
    progress("loading the data", 0, 1)
    dataset = suited_to(FEDSHARE, load(data))
    progress("loading the data", 1, 1)
    story = tell(dataset, seed=seed, config=config, progress=progress)
    progress("writing the report", 0, 1)
    command = shlex.join(["retract", "demo", "--data", data, "--seed", str(seed), "--out", "demo"])
    figures = write_demo(out, story, Setting.here(command, watch.seconds))
    progress("writing the report", 1, 1)
    return figures
