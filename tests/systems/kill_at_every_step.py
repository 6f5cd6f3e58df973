"""Kill a swap before each of its steps, and then the repair before each of its own; print what was wrong as JSON.

A step is any call that changes the file system. Run as a program: it forks, and is small enough to do so safely.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from retract.systems.storage import locked, read_file, read_manifest, swap_in

STEPS = ("mkdir", "link", "rename", "replace", "unlink", "rmdir", "fsync", "open")
OLD, NEW = {"server/a": b"old a", "b": b"old b"}, {"server/a": b"new a", "b": b"new b"}


def make(folder: Path) -> None:
    with locked(folder, "create"):
        swap_in(folder, "test", {**OLD, "clients/kept": b"kept"})


def change(folder: Path) -> None:
    with locked(folder, "change"):
        swap_in(folder, "test", NEW, keep=read_manifest(folder))


def repair(folder: Path) -> None:
    with locked(folder, "read"):
        pass


def survives(work: Callable[[Path], None], folder: Path, step: int) -> bool:
    """Do `work` in a child that kills itself before its `step`-th step; whether it got to the end."""
    child = os.fork()
    if child == 0:
        _kill_before(step)
        work(folder)
        os._exit(0)
    _, verdict = os.waitpid(child, 0)
    if os.WIFSIGNALED(verdict) and os.WTERMSIG(verdict) == signal.SIGKILL:
        return False
    assert verdict == 0, f"the child failed at step {step}: {verdict}"
    return True


def _kill_before(step: int) -> None:
    count = 0

    def counted(original: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        return call

    for name in STEPS:
        setattr(os, name, counted(getattr(os, name)))


def state(folder: Path) -> str:
    """ "old" or "new", or what is wrong."""
    with locked(folder, "read"):
        manifest = read_manifest(folder)
        held = {name: read_file(folder, manifest, name) for name in manifest.files}
    left = {path.name for path in folder.parent.iterdir()} - {folder.name, f".{folder.name}.retract-lock"}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if left or found != {"manifest.json", *held}:
        return f"left behind: {sorted(left)}, {sorted(found)}"
    if held.pop("clients/kept", None) != b"kept":
        return "a kept file changed"
    return {tuple(OLD.items()): "old", tuple(NEW.items()): "new"}.get(
        tuple(sorted(held.items(), reverse=True)), "mixed"
    )


def main(room: Path) -> None:
    original, tried = room / "original" / "DIR", room / "tried" / "DIR"
    original.parent.mkdir(parents=True)
    make(original)
    states: list[str] = []
    for step in range(1, 1000):
        for second in range(1, 1000):
            shutil.rmtree(tried.parent, ignore_errors=True)
            shutil.copytree(original.parent, tried.parent)
            ended = survives(change, tried, step)
            repaired = survives(repair, tried, second)
            states.append(state(tried))
            if repaired:
                break
        if ended:
            break
    print(json.dumps({"steps": step, "kills": len(states), "states": sorted(set(states)), "last": states[-1]}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
