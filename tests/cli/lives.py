"""A life of a trained folder, command by command, to be struck anywhere; run as a program by `test_faults.py`.

The parent never computes, so that it can fork: every command runs in a child. It loads beforehand what they load.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from retract.cli import main
from retract.errors import UnknownIdError
from retract.stores.folder import TrainedFolder
from retract.stores.reading import recommend_folder
from tests.cli.commands import SETTINGS, retract, write_ratings
from tests.faults import Child, Ended, Fault, Kind

USERS = ("u1", "u2", "u3", "new")
NONE = Fault()
NOBODY = 65534
HALF = ("--share", "0.5", "--test", "0.2")


def life(system: str) -> list[list[str]]:
    """Commands, with DIR, DATA and NEWS to be filled in."""
    train = ["train", system, "--data", "DATA", "--out", "DIR", *HALF]
    if system != "exact":
        train += [*SETTINGS, "--keep-every", "0"]
    first = [train, ["unshare", "DIR", "--user", "u1"], ["erase", "DIR", "--user", "u2"], ["unlearn", "DIR"]]
    if system != "exact":
        return first
    then = [["extend", "DIR", "--data", "NEWS", "--share", "1"], ["erase", "DIR", "--user", "u3"]]
    return [*first, *then, ["unlearn", "DIR", "--audit"], [*train, "--force", "--seed", "7"]]


@dataclass(frozen=True)
class Look:
    """What whoever reads a folder finds, and what lies on the disk, both without what differs from run to run."""

    read: str
    disk: frozenset[str]


class Life:
    """The life of a folder as it is without faults: what is there after each command, and what readers find there.

    Parameters
    ----------
    room
        Nobody else's.
    """

    def __init__(self, room: Path, system: str) -> None:
        self.room, self.commands = room, life(system)
        self.files = {"DATA": str(write_ratings(room / "ratings.csv")), "NEWS": str(room / "news.csv")}
        Path(self.files["NEWS"]).write_text(
            "user,item,rating\n" + "".join(f"new,{item},4\n" for item in ("i0", "i1", "j0"))
        )
        (room / "streams").mkdir()
        self.at(0).mkdir()
        self._load()
        self.steps = [self._live(number) for number in range(len(self.commands))]
        self.looks = [look(self.at(number)) for number in range(len(self.commands) + 1)]

    def at(self, number: int) -> Path:
        """The place as it is after so many commands."""
        return self.room / f"at{number}"

    def start(self, command: list[str], place: Path, fault: Fault) -> Child:
        """Start a command in a place, which holds the signing key as well."""
        named = {**self.files, "DIR": str(place / "DIR")}
        os.environ["RETRACT_KEY"] = str(place / "keys" / "key.pem")
        return Child(lambda: main([named.get(word, word) for word in command]), fault, self.room / "streams")

    def run(self, command: list[str], place: Path, fault: Fault = NONE) -> Ended:
        """Run a command in a place."""
        return self.start(command, place, fault).ended()

    def fresh(self, number: int, name: str = "tried") -> Path:
        """A copy of the place as it is after so many commands."""
        shutil.rmtree(self.room / name, ignore_errors=True)
        return Path(shutil.copytree(self.at(number), self.room / name))

    def struck(self, number: int, fault: Fault) -> dict[str, str]:
        """Strike one command; what was struck, how it ended, what was left then, and after the command came again."""
        place = self.fresh(number)
        ended = self.run(self.commands[number], place, fault)
        found = {"command": self.commands[number][0], "struck": ended.struck, "code": str(ended.code), "err": ended.err}
        found["left"] = self.which(number, look(place).read)
        found["again"] = self.finish(number, place)
        return found

    def which(self, number: int, read: str) -> str:
        """Whether what readers find is as before a command or as after it."""
        names = {self.looks[number].read: "old", self.looks[number + 1].read: "new"}
        return names.get(read, f"neither: {read}")

    def finish(self, number: int, place: Path) -> str:
        """Give a command again: "new" where all is then as if nothing had happened."""
        done = self.run(self.commands[number], place)
        if "--resume" in done.err:
            done = self.run([*self.commands[number], "--resume"], place)
        if done.code not in (0, 2) or len(errors(done)) > 1:
            return f"{done}"
        after, want = look(place), self.looks[number + 1]
        while after.disk != want.disk and self.commands[number][0] != "unlearn" and number + 1 < len(self.commands):
            number += 1  # it is unlearning that clears up
            self.run(self.commands[number], place)
            after, want = look(place), self.looks[number + 1]
        if after.read != want.read:
            return f"{done}: {self.which(number, after.read)}"
        return "new" if after.disk == want.disk else f"on the disk: {sorted(after.disk ^ want.disk)}"

    def _load(self) -> None:
        """Run all commands in a child, and load what they loaded."""
        names, place = self.room / "modules", self.room / "all"

        def all_of_them() -> int:
            named = {**self.files, "DIR": str(place / "DIR")}
            os.environ["RETRACT_KEY"] = str(place / "keys" / "key.pem")
            code = sum(main([named.get(word, word) for word in command]) for command in self.commands)
            names.write_text("\n".join(name for name in sys.modules if name != "__main__"))
            return code

        done = Child(all_of_them, NONE, self.room / "streams").ended()
        assert done.code == 0, done
        for name in names.read_text().splitlines():
            with suppress(ImportError):
                importlib.import_module(name)

    def _live(self, number: int) -> int:
        """Run a command without a fault; its steps."""
        done = self.run(self.commands[number], self.fresh(number, f"at{number + 1}"))
        assert done.code == 0, done
        return int(done.struck)


def errors(ended: Ended) -> list[str]:
    """The lines on stderr that are no notes."""
    return [line for line in ended.err.splitlines() if not line.startswith("note: ")]


def look(place: Path) -> Look:
    """Read a folder by every command that reads."""
    folder, seen = place / "DIR", []
    for command in (["status"], ["recommend", "--user", "u5", "-k", "5"], ["audit"]):
        answer = retract(command[0], folder, *command[1:], "--json")
        if answer.code and "`retract train` makes one" in answer.refusal():
            return Look("no model", frozenset(_names(place)))
        seen.append(_stable(json.loads(answer.out)) if answer.code == 0 else answer.refusal())
    seen += [_listed(folder, user) for user in USERS]
    for audit in TrainedFolder(folder).audits():
        certificate = folder / audit["certificate"]  # after a kill the next unlearning lays it there
        assert not certificate.exists() or retract("verify", certificate, "--json").code == 0
    return Look(json.dumps(seen).replace(str(folder), "DIR"), frozenset(_names(place)))


def _listed(folder: Path, user: str) -> str:
    try:
        return str([(line.item, round(line.score, 6)) for line in recommend_folder(folder, user).items])
    except UnknownIdError:
        return "unknown"


UNSTABLE = {
    "id",
    "received",
    "completed",
    "withdrawal",
    "version",
    "seconds",
    "oracle_seconds",
    "speedup",
    "certificate",
    "certificates",
    "title",
}


def _stable(found: Any) -> Any:
    """A command's answer without what differs from run to run."""
    if isinstance(found, dict):
        if found.get("status") == "in_progress":  # a dead process worked on it; whoever unlearns next takes it up
            found["status"] = "pending"
        return {name: _stable(value) for name, value in found.items() if name not in UNSTABLE}
    if isinstance(found, list):
        return [_stable(value) for value in found]
    return round(found, 6) if isinstance(found, float) else found


def _names(place: Path) -> Iterator[str]:
    """Every file and folder, and who of the erased it mentions; the version that is served goes without its number."""
    pointer = place / "DIR" / "server" / "current"
    served = str(json.loads(pointer.read_bytes())["version"]) if pointer.exists() else "none"
    for path in (place / "DIR").rglob("*"):
        name = path.relative_to(place).as_posix().replace(f"versions/{served}", "versions/served")
        content = path.read_bytes() if path.is_file() else b""
        said = [user for user in ("u2", "u3") if f'"{user}"'.encode() in content]
        yield re.sub(r"[0-9a-f]{8}[0-9a-f-]{4,}", "ID", name) + "".join(f" mentions {user}" for user in said)


def kills(life: Life, part: int) -> list[dict[str, str]]:
    """Kill at a hundred random moments."""
    return at_random(life, part, 100, ("kill",))


def stops(life: Life, part: int) -> list[dict[str, str]]:
    """Kill and press Ctrl-C, at twenty random moments each."""
    return at_random(life, part, 20, ("kill", "interrupt"))


def at_random(life: Life, seed: int, moments: int, kinds: tuple[Kind, ...]) -> list[dict[str, str]]:
    """Strike at random moments of the whole life, each step of it alike."""
    draw, found = random.Random(seed), []
    for kind in kinds * moments:
        number = draw.choices(range(len(life.commands)), life.steps)[0]
        fault = Fault(kind, draw.randint(1, life.steps[number]), draw.random() < 0.5)
        found.append({"kind": kind, **life.struck(number, fault)})
    return found


def full(life: Life, part: int) -> list[dict[str, str]]:
    """Let the disk be full from each step on, every other time after a short write; half of the commands."""
    found = []
    for number in range(part, len(life.commands), 2):
        for at in count(1):
            found.append(life.struck(number, Fault("full", at, at % 2 == 0)))
            if not found[-1]["struck"]:
                found.pop()
                break
    return found


def meetings(life: Life) -> list[tuple[int, list[str], list[str]]]:
    """From which place on, and which two commands."""
    own = [line.split(",")[1] for line in Path(life.files["DATA"]).read_text().splitlines() if line.startswith("u3,")]
    some = ["erase", "DIR", "--user", "u3", "--items", own[0], "--items", own[1]]
    unlearn, extend = ["unlearn", "DIR"], life.commands[4]
    return [
        (3, unlearn, unlearn),
        (3, unlearn, some),
        (3, some, unlearn),
        (3, unlearn, ["erase", "DIR", "--user", "u2", "--all"]),
        (3, unlearn, extend),
        (3, extend, unlearn),
        (1, some, some),
        (4, life.commands[7], ["recommend", "DIR", "--user", "u5", "--json"]),
    ]


def together(life: Life, part: int) -> list[dict[str, str]]:
    """Halt one process at random steps, let another do its work or wait, and let the first one go on."""
    draw, found = random.Random(part), []
    for number, first, second in meetings(life)[part::2]:
        alone = [_in_turn(life, number, [first, second]), _in_turn(life, number, [second, first])]
        steps = int(life.run(first, life.fresh(number)).struck)
        moments = draw.sample(range(1, steps + 1), min(8, steps))
        found += [_meet(life, number, (first, second), at, alone) for at in moments]
    return found


def _in_turn(life: Life, number: int, commands: list[list[str]]) -> tuple[Look, str]:
    """What commands leave that come one after the other, once what is pending is applied; and what they listed."""
    place = life.fresh(number)
    listed = [done.out for command in commands if (done := life.run(command, place)) and command[0] == "recommend"]
    life.run(["unlearn", "DIR"], place)
    return look(place), "".join(listed)


def _meet(
    life: Life, number: int, commands: tuple[list[str], list[str]], at: int, alone: list[tuple[Look, str]]
) -> dict[str, str]:
    """Two commands at once; how they ended, and whether that is what they leave in turn."""
    place = life.fresh(number)
    one = life.start(commands[0], place, Fault("halt", at))
    assert one.halted()
    other, late = life.start(commands[1], place, NONE), time.monotonic() + 1
    while not other.over() and time.monotonic() < late:  # it may wait for the first
        time.sleep(0.01)
    one.goes_on()
    ends = [one.ended(), other.ended()]
    wrong = [end for end in ends if end.code not in (0, 2) or len(errors(end)) > 1 or "our fault" in end.err]
    if commands[1][0] == "recommend" and ends[1].out not in [said for _, said in alone]:
        wrong.append(ends[1])
    for command, end in zip(commands, ends, strict=True):
        if end.code == 2:
            life.run(command, place)
    life.run(["unlearn", "DIR"], place)
    found = look(place)
    left = "as in turn" if found in [look for look, _ in alone] else f"{found}, not {alone}"
    pair = f"{commands[0][0]} + {commands[1][0]}"
    return {
        "pair": pair,
        "struck": ends[0].struck,
        "codes": str([end.code for end in ends]),
        "wrong": str(wrong),
        "left": left,
    }


READING = [["status"], ["recommend", "--user", "u5"], ["audit"]]
WRITING = [["unshare", "--user", "u5"], ["erase", "--user", "u5"], ["unlearn"], ["extend", "--data", "NEWS"]]


def read_only(life: Life, part: int) -> list[dict[str, str]]:
    """Give every command to somebody who may read the folder and not write to it."""
    place = life.fresh(7)
    Path(life.files["NEWS"]).write_text("user,item,rating\nnewer,i0,4\nnewer,i1,4\n")
    for path in (place / "DIR", *(place / "DIR").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    for path in (place / "keys", *(place / "keys").iterdir()) if os.getuid() == 0 else ():
        os.chown(path, NOBODY, NOBODY)
    os.environ["RETRACT_KEY"] = str(place / "keys" / "key.pem")
    before, found = sorted(look(place).disk), []
    train = ["train", "exact", "--data", "DATA", "--out", str(place / "DIR"), "--force"]
    for command in [*([one[0], str(place / "DIR"), *one[1:]] for one in (*READING, *WRITING)), train]:
        named = [life.files.get(word, word) for word in command]
        ended = Child(lambda named=named: _as_nobody(named), NONE, life.room / "streams").ended()
        found.append({"command": command[0], "code": str(ended.code), "out": ended.out, "err": ended.err})
    assert sorted(look(place).disk) == before
    return found


def _as_nobody(command: list[str]) -> int:
    if os.getuid() == 0:  # root may write anywhere
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return main(command)


SCENARIOS = {"kills": kills, "stops": stops, "full": full, "together": together, "read only": read_only}

if __name__ == "__main__":
    place, system, what, part = sys.argv[1:]
    print(json.dumps(SCENARIOS[what](Life(Path(place), system), int(part))))
