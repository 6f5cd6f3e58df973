"""Kill a change of files before each of its steps, and then the repair before each of its own; print what was left.

A step is any call that changes the file system. Run as a program: it forks, and is small enough to do so safely.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from retract.auditing.verifying import Standing
from retract.federation import LocalEngine
from retract.stores.audits import STEP_AUDITS
from retract.stores.device_folder import FolderDevices
from retract.stores.devices import MemoryDevices
from retract.stores.folder import STEP_CERTIFICATE, TrainedFolder
from retract.stores.forgetting import Forgotten, batch_of, commit, forget
from retract.stores.held import Held
from retract.stores.ledger import Request
from retract.stores.requests import Wish, add_request, codes_of, pending_of
from retract.stores.resuming import Place
from retract.stores.status import status
from retract.stores.versions import AUDITS
from retract.systems.base import Checkpoint
from tests.contracts.tasks import TASKS, broadcast, data, spec
from tests.contracts.tasks import sharing as tiny_sharing
from tests.stores.folders import load, make_folder

STEPS = ("mkdir", "link", "rename", "replace", "unlink", "rmdir", "fsync", "open")
ROOMS = ("server/ledger", "server/records", "devices/requests")
"""Where each model has a place of its own."""
Work = Callable[[Path], None]


def survives(work: Work, folder: Path, step: int) -> bool:
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


def names(folder: Path) -> set[str]:
    """All files but locks."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.endswith(("/lock", ".lock")) and name != "lock"}


def mentions(folder: Path, word: str) -> set[str]:
    """The files that hold a word in quotes."""
    return {name for name in names(folder) if f'"{word}"'.encode() in (folder / name).read_bytes()}


# --- a trained folder -------------------------------------------------------------------------------------------------


def make(folder: Path) -> None:
    """A trained folder with requests: of whoever erases everything more than one."""
    make_folder(folder, "exact")
    trained = TrainedFolder(folder)
    for kind, user in (("unshare", "u2"), ("erase", "u2"), ("unshare", "u1")):
        add_request(trained, Wish(kind, user))  # type: ignore[arg-type]


def apply(folder: Path) -> None:
    """Apply the requests as `unlearn_folder` does."""
    trained, forgotten = TrainedFolder(folder), forgotten_once(folder.parents[1] / "original" / "DIR")
    with trained.unlearning():
        trained.ledger.claim([request.id for request in forgotten.batch.requests])
        told = {"certificate": "certificates/one.json", "audits": [{"certificate": "certificates/one.json"}]}
        commit(trained, forgotten, {STEP_AUDITS: json.dumps(told).encode(), STEP_CERTIFICATE: b"signed"})


@cache
def forgotten_once(folder: Path) -> Forgotten:
    """What applying the requests of a folder comes to; computed once, for that changes no file."""
    trained, held = TrainedFolder(folder), load(folder)
    asked = [(request, codes_of(trained, request, held.sharing)) for request in pending_of(trained)]
    return forget(held, batch_of(held, asked))


def ask(folder: Path) -> None:
    """Record one more erasure, of private items too."""
    add_request(TrainedFolder(folder), Wish("erase", "u3"), "key")


def train_anew(folder: Path) -> None:
    """Replace the model by another."""
    held = load(folder)
    TrainedFolder(folder).save(Held(replace(held.trained, seed=7), held.devices, held.test))


def save_another(folder: Path) -> None:
    """Replace the model by another, of which something is to be erased: private items too."""
    held = load(folder)
    asked = Request.of("erase", "u3", 2, ["i1"])
    TrainedFolder(folder).save(Held(replace(held.trained, seed=7), held.devices, held.test), asked=[(asked, ["i2"])])


def change_key(folder: Path) -> None:
    """Let another key sign from now on."""
    TrainedFolder(folder).seals.change_key(folder.parents[1] / "new.pem")


def repair(folder: Path) -> None:
    """What whoever comes next does first."""
    with TrainedFolder(folder).unlearning():
        pass


def readable(folder: Path) -> str:
    """What a reader finds, who takes no lock."""
    held, told = load(folder), status(folder)
    Standing.of(folder)  # the chain is whole before the repair too
    assert held.version == told.version
    return f"{told.system} {told.pending} pending"


def situation(folder: Path) -> tuple[object, ...]:
    """What a repair goes by; of situations that are alike in it, only one needs to be repaired in every way."""
    served = json.loads((folder / "server" / "current").read_bytes())["version"]
    events = [
        [json.loads(line)["event"] for line in path.read_bytes().splitlines()]
        for path in sorted((folder / "server" / "ledger").glob("*/ledger.jsonl"))
    ]
    kinds = {"/".join(Path(name).parts[:3]) for name in names(folder) if "versions/" not in name}
    counts = [len(list((folder / half / "versions").glob("*"))) for half in ("server", "devices")]
    return served, str(events), len(kinds), *counts


def folder_state(folder: Path) -> str:
    """ "old" or "new" in every respect, or what is wrong."""
    held, trained = load(folder), TrainedFolder(folder)
    made = [link.record.made for link in Standing.of(folder).links]
    requests = trained.ledger.requests()
    version = str(held.version)
    stray = [name for name in names(folder) if "/." in name or name.startswith(".")]
    stray += [name for name in names(folder) if "versions/" in name and f"versions/{version}/" not in name]
    asked = {request.id for request in requests if request.pending}
    stray += [name for name in names(folder) if "devices/requests/" in name and Path(name).stem not in asked]
    recorded = {request.id for request in requests}
    stray += [
        name for name in names(folder) if "ledger/" in name and "/requests/" in name and Path(name).stem not in recorded
    ]
    stray += [name for name in names(folder) if name.endswith("record.json")]
    if stray or any(len(list((folder / room).glob("*"))) > 1 for room in ROOMS):
        return f"left behind: {stray}"
    anew = held.trained.seed == 7
    if [one for one in made if one != "new key"] != (["train"] if anew or version == "1" else ["train", "unlearn"]):
        return f"another chain: {made}"
    if "new key" in made:
        return "new"
    if anew and requests:
        whole = [(one.pending, one.items, trained.inbox.told_to_devices(one)) for one in requests]
        return "new" if whole == [(True, ("i1",), ("i2",))] else f"a request is not whole: {whole}"
    if anew:
        return "new" if not requests and not (folder / AUDITS).exists() else f"of the old model: {requests}"
    if version == "1":
        whole = all(request.status == "pending" and request.items for request in requests)
        told = [bool(trained.inbox.told_to_devices(request)) for request in requests]
        erasing = [request.kind == "erase" for request in requests]
        if not whole or told != erasing:
            return f"a request is not whole: {requests}, {told}"
        return "new" if len(requests) == 4 else "old"
    if any(request.pending or request.items for request in requests) or mentions(folder, "u2"):
        return f"not settled: {requests}, {mentions(folder, 'u2')}"
    if not trained.suppression().server.users:
        return "not suppressed"
    published = len(trained.audits()) == 1 and (folder / "certificates" / "one.json").read_bytes() == b"signed"
    return "new" if published else "not published"


# --- devices in a folder ----------------------------------------------------------------------------------------------


def make_devices(folder: Path) -> None:
    """Devices that took part in a round."""
    devices = FolderDevices.create(folder, tiny_sharing())
    LocalEngine(devices, TASKS).run(spec("write"), broadcast(0), devices.users, seed=1)


def count_again(folder: Path) -> None:
    """One more round, all in one cohort."""
    devices = FolderDevices(folder)
    LocalEngine(devices, TASKS).run(spec("write"), broadcast(1), devices.users, seed=1)


def erase_one(folder: Path) -> None:
    """A user erases everything."""
    devices = FolderDevices(folder)
    devices.erase(devices.interactions.of_users([4]))


def open_devices(folder: Path) -> None:
    """There is nothing to repair."""
    FolderDevices(folder)


def devices_state(folder: Path) -> str:
    """ "old" or "new", or what is wrong; the next change clears up."""
    devices = FolderDevices(folder)
    found = devices.kept("a").state["seen"].tolist(), len(devices.interactions), len(devices.users)
    devices.forget_runs("a")
    if len(names(folder)) != 5 or any(name.startswith(".") for name in names(folder)):
        return f"left behind: {sorted(names(folder))}"
    return {str(_counted([0])): "old", str(_counted([0, 1])): "new", str(_without(4)): "new"}.get(
        str(found), str(found)
    )


def _counted(rounds: list[int]) -> tuple[list[int], int, int]:
    devices = MemoryDevices(tiny_sharing())
    for round in rounds:
        LocalEngine(devices, TASKS).run(spec("write"), broadcast(round), devices.users, seed=1)
    return devices.kept("a").state["seen"].tolist(), len(devices.interactions), len(devices.users)


def _without(user: int) -> tuple[list[int], int, int]:
    seen, _, n = _counted([0])
    left = data() - data().of_users([user])
    users = data().active_users().tolist()
    return [count for count, own in zip(seen, users, strict=True) if own != user], len(left), n - 1


# --- the place of a training ------------------------------------------------------------------------------------------


def _place(folder: Path) -> Place:
    return Place(folder, MemoryDevices(tiny_sharing()), 0.0)


def _at(step: int) -> Checkpoint:
    return Checkpoint("exact", {}, 0, "a", "training", step, {"step": np.asarray(step)}, ({"step": step},))


def keep_first(folder: Path) -> None:
    """A training that was kept after its first step."""
    place = _place(folder)
    LocalEngine(place.devices, TASKS).run(spec("count"), broadcast(0), place.devices.users, seed=1)
    place.keep(lambda: _at(1))


def keep_second(folder: Path) -> None:
    """It goes on, and is kept after its second step."""
    place = _place(folder)
    place.taken_up()
    LocalEngine(place.devices, TASKS).run(spec("count"), broadcast(1), place.devices.users, seed=1)
    place.keep(lambda: _at(2))


def place_state(folder: Path) -> str:
    """ "old" or "new" on both sides, or what is wrong."""
    place = _place(folder)
    kept = place.taken_up()
    seen = place.devices.kept("a").state["seen"].tolist()
    if seen != _counted(list(range(kept.done)))[0] or int(kept.tables["step"]) != kept.done:
        return f"mixed: {kept}, {seen}"
    return "old" if kept.done == 1 else "new"


def nothing(folder: Path) -> None:
    """No repair: what is there is used as it is."""


SCENARIOS: dict[str, tuple[Work, Work, Work, Callable[[Path], str]]] = {
    "apply": (make, apply, repair, folder_state),
    "ask": (make, ask, repair, folder_state),
    "train anew": (make, train_anew, repair, folder_state),
    "save another": (make, save_another, repair, folder_state),
    "change the key": (make, change_key, repair, folder_state),
    "keep a round": (make_devices, count_again, open_devices, devices_state),
    "erase on devices": (make_devices, erase_one, open_devices, devices_state),
    "keep a place": (keep_first, keep_second, nothing, place_state),
}


def main(room: Path, name: str) -> None:
    """Sweep one scenario."""
    begin, change, mend, state = SCENARIOS[name]
    original, tried = room / "original" / "DIR", room / "tried" / "DIR"
    original.parent.mkdir(parents=True)
    begin(original)
    if change is apply:
        forgotten_once(original)
    states: list[str] = []
    read, met, again = set(), set[tuple[object, ...]](), False
    for step in range(1, 1000):
        for second in range(1 + step % 3, 1000, 3):
            shutil.rmtree(tried.parent, ignore_errors=True)
            shutil.copytree(original.parent, tried.parent)
            ended = survives(change, tried, step)
            if mend is repair:
                read.add(readable(tried))
                known = situation(tried)
                again = second < 4 and known in met
                met.add(known)
            repaired = survives(mend, tried, 1000 if again else second)
            if not repaired:
                mend(tried)
            states.append(state(tried))
            if repaired:
                break
        if ended:
            break
    found = {"steps": step, "kills": len(states), "states": sorted(set(states)), "last": states[-1]}
    print(json.dumps({**found, "read": sorted(read)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
