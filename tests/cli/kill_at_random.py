"""Stop real commands at random moments, by kill -9 and by Ctrl-C in turn; print what is found after each stop as JSON.

Run as a program. The parent loads torch once and never computes, so that it can fork: every child is a fresh process
that works on one folder until it is stopped.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from retract.systems.folder import load

from retract.cli import main
from tests.cli.commands import SETTINGS, write_ratings
from tests.stores.folders import pairs_on_disk

STOPS = 40
INTERRUPTED = 130


def live(data: Path, folder: Path) -> None:
    """Train, ask and unlearn, again and again, until a command does not end well."""
    train = ["train", "fedshare", "--data", str(data), "--out", str(folder), "--force", *SETTINGS]
    ask = [[kind, str(folder), "--user", user] for kind, user in (("unshare", "u1"), ("erase", "u2"))]
    try:
        while True:
            for command in (train, *ask, ["unlearn", str(folder)]):
                if code := main([*command, "--json"]):
                    os._exit(code)
    except KeyboardInterrupt:  # between two commands
        os._exit(INTERRUPTED)


def look(folder: Path) -> str:
    """Load the folder, which checks every file, and say which whole state it is in, or what is wrong."""
    held = load(folder)
    catalog, sharing = held.catalog, held.clients.sharing
    unshared = not len(sharing.shared.items_of(catalog.user("u1")))
    erased = not any(user == catalog.user("u2") for user, _ in pairs_on_disk(folder))
    forgot = [record["stage"] for record in held.trained.log].count("unlearn")
    pending = [request.kind for request in held.pending]
    applied = len(held.requests) - len(pending)
    whole = [
        (False, False, 0, [], 0),
        (False, False, 0, ["unshare"], 0),
        (False, False, 0, ["unshare", "erase"], 0),
        (True, True, 2, [], 2),
    ]
    found = (unshared, erased, forgot, pending, applied)
    left = sorted(path.name for path in folder.parent.iterdir() if path.name not in (folder.name, ".DIR.retract-lock"))
    return "whole" if found in whole and not left else f"half: {found}, beside it {left}"


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
    draw, found = random.Random(0), []
    data, streams, folder = write_ratings(room / "ratings.csv"), room / "streams", room / "folder" / "DIR"
    train = ["train", "fedshare", "--data", str(data), "--out", str(folder), *SETTINGS]
    os.waitpid(in_child(lambda: main(train), streams), 0)
    for number in range(STOPS):
        child = in_child(lambda: live(data, folder), streams)
        time.sleep(draw.uniform(0.02, 0.6))
        taken = stop(child, (signal.SIGKILL, signal.SIGINT)[number % 2], streams)
        answer = room / f"answer{number}"
        os.waitpid(in_child(lambda answer=answer: answer.write_text(look(folder)), streams), 0)
        found.append([taken, answer.read_text() if answer.exists() else f"not loaded: {streams.read_text()}"])
    print(json.dumps(found))


if __name__ == "__main__":
    torment(Path(sys.argv[1]))
