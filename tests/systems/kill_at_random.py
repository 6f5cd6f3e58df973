"""Kill real training, asking and unlearning at random moments; print what is found after each kill as JSON.

Run as a program. The parent loads torch once and never computes, so that it can fork: every child is a fresh process
that works on one folder until it is killed.
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
from retract.systems.lifecycle import add_request, apply_requests, train_folder
from tests.systems.folders import pairs_on_disk, tiny_dataset, tiny_system

KILLS = 24


def live(folder: Path) -> None:
    """Train, ask and unlearn, again and again."""
    while True:
        train_folder(tiny_system(), tiny_dataset(), folder, share=0.5, force=True)
        add_request(folder, "unshare", "u1")
        add_request(folder, "erase", "u2")
        apply_requests(folder)


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


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a forked child; its process id."""
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)
        try:
            work()
            os._exit(0)
        except BaseException as error:  # whatever it was, the parent must see it
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    return child


def main(folder: Path) -> None:
    draw = random.Random(0)
    found = []
    os.waitpid(in_child(lambda: train_folder(tiny_system(), tiny_dataset(), folder, share=0.5)), 0)
    for number in range(KILLS):
        child = in_child(lambda: live(folder))
        time.sleep(draw.uniform(0.02, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        answer = folder.parent.parent / f"answer{number}"
        os.waitpid(in_child(lambda answer=answer: answer.write_text(look(folder))), 0)
        found.append(answer.read_text() if answer.exists() else "could not be loaded")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
