"""Stop real commands at random moments, by kill -9 and by Ctrl-C in turn; print what is found after each stop as JSON.

Run as a program. The parent loads once what takes long to load and never computes, so that it can fork: every child is
a fresh process that works on one folder until it is stopped. Polars, whose threads no fork survives, it does not load.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch

import retract.cli.run
import retract.systems.fedshare.client
import retract.systems.fedshare.unlearning  # noqa: F401
from retract.cli import main
from retract.stores.folder import TrainedFolder
from retract.stores.status import status
from tests.cli.commands import SETTINGS, write_ratings
from tests.stores.folders import load, pairs_on_disk

STOPS = 40
INTERRUPTED = 130
WHOLE = [(False, False, 0, 0, 0), (False, False, 0, 1, 0), (False, False, 0, 2, 0), (True, True, 2, 0, 2)]
"""What may be found: unshared, erased, withdrawals in the log, requests pending and applied."""


def live(data: Path, folder: Path) -> None:
    """Train, ask and unlearn, again and again, from where the last one stopped, until a command does not end well."""
    train = ["train", "fedshare", "--data", str(data), "--out", str(folder), "--force", *SETTINGS]
    ask = [[kind, str(folder), "--user", user] for kind, user in (("unshare", "u1"), ("erase", "u2"))]
    commands = [train, *ask, ["unlearn", str(folder)]]
    try:
        told = status(folder)
        for command in islice(cycle(commands), 0 if told.applied else 1 + told.pending, None):
            if code := main([*command, "--json"]):
                os._exit(code)
    except KeyboardInterrupt:  # between two commands
        os._exit(INTERRUPTED)


def look(folder: Path) -> str:
    """Read the folder, which checks every file; say which whole state it is in, and whether a repair leaves more."""
    held, told = load(folder), status(folder)
    catalog = held.catalog
    unshared = not len(held.sharing.shared.items_of(catalog.user("u1")))
    erased = not len(held.interactions.items_of(catalog.user("u2"))) if "u2" in catalog.user_ids else True
    forgot = [record["stage"] for record in held.trained.log].count("unlearn")
    found = (unshared, erased, forgot, told.pending, told.applied)
    if found not in WHOLE:
        return f"half: {found}"
    with TrainedFolder(folder).unlearning():  # as whoever changes the folder next
        pass
    left = [path.name for path in folder.parent.iterdir() if path != folder]
    left += [str(path) for path in folder.rglob(".*")]
    left += [str(path) for path in folder.glob("*/versions/*") if path.name != str(held.version)]
    if erased:
        left += [f"u2 in {path}" for path in folder.rglob("*") if path.is_file() and b'"u2"' in path.read_bytes()]
        known = np.flatnonzero(catalog.user_ids != "")
        left += [f"code {user}" for user, _ in pairs_on_disk(folder) if user not in known]
    repaired = status(folder)
    if (repaired.pending, repaired.applied) != (told.pending, told.applied):
        left.append(f"another status: {repaired}")
    return f"left: {left}" if left else f"whole: {found}"


def in_child(work: Callable[[], object], streams: Path) -> int:
    """Start `work` in a forked child that writes into `streams`; its process id."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        file = os.open(streams, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(file, 2)
        try:
            work()
            os._exit(0)
        except BaseException as error:  # whatever it was, the parent must see it
            os.write(2, repr(error).encode())
            os._exit(1)
    return child


def stop(child: int, how: signal.Signals, streams: Path) -> str:
    """How the child took it, or what was wrong with that."""
    os.kill(child, how)
    _, verdict = os.waitpid(child, 0)
    code, said = os.waitstatus_to_exitcode(verdict), streams.read_text().splitlines()
    if how == signal.SIGKILL:
        return "killed" if (code, said) == (-signal.SIGKILL, []) else f"{code}: {said}"
    well = code == INTERRUPTED and len(said) <= 1 and all(line.startswith("interrupted") for line in said)
    return "interrupted" if well else f"{code}: {said}"


def torment(room: Path) -> None:
    torch.optim.Adam([torch.zeros(1, requires_grad=True)])  # what torch loads for the first optimiser takes a second
    draw, found = random.Random(0), []
    data, streams, folder = write_ratings(room / "ratings.csv"), room / "streams", room / "folder" / "DIR"
    train = ["train", "fedshare", "--data", str(data), "--out", str(folder), *SETTINGS]
    os.waitpid(in_child(lambda: main(train), streams), 0)
    for number in range(STOPS):
        child = in_child(lambda: live(data, folder), streams)
        time.sleep(draw.uniform(0.02, 1.0))
        taken = stop(child, (signal.SIGKILL, signal.SIGINT)[number % 2], streams)
        answer = room / f"answer{number}"
        os.waitpid(in_child(lambda answer=answer: answer.write_text(look(folder)), streams), 0)
        found.append([taken, answer.read_text() if answer.exists() else f"not loaded: {streams.read_text()}"])
    print(json.dumps(found))


if __name__ == "__main__":
    torment(Path(sys.argv[1]))
