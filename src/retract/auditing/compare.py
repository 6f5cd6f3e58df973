"""Any systems, methods, forget sets and seeds through the same withdrawals: rows for a table, measured in parallel."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from retract.atomic import write_atomically
from retract.auditing.attacks import attack_type
from retract.auditing.cell import Cell, share_of
from retract.auditing.forget_sets import ForgetSet
from retract.data import Columns, Dataset, load
from retract.data.columns import USUAL
from retract.data.digest import retained_digest
from retract.errors import ConfigError, FolderError, MissingExtraError
from retract.report.page import describe_machine
from retract.systems.base import Kind, Progress, no_progress
from retract.systems.likes import suited_to
from retract.systems.registry import make_method, make_system, method_names, method_type, system_names, system_type
from retract.threads import cores, given_to_children, take, threads
from retract.version import __version__

PLAN = "plan.json"
PARTS = "rows"


@dataclass(frozen=True)
class Plan:
    """What is compared.

    Parameters
    ----------
    data, columns
        The data set, as `retract.data.load` takes it.
    systems, methods
        Names. Methods that do not fit a system are skipped, and said so.
    forget
        Forget sets, as text.
    seeds
        Each is the seed of split, sharing, training and forget set.
    kind, share
        The request; and the part that every user shares. Unless that is given, a column `shared` of the data says it
        one by one, and without either it is half.
    settings
        Of the systems, by name.
    batches
        Sizes in users of the batches whose leakage of the difference is measured; none unless given.
    attacks
        Further attacks by name, such as those that packages plug in; see `retract.auditing.audit.Auditor`.
    at_least_rating
        What is rated lower is left out; see `retract.data.load`.

    Raises
    ------
    ConfigError
        If a name is unknown, a forget set is none, or no method fits any system.
    """

    data: str
    systems: tuple[str, ...]
    methods: tuple[str, ...]
    forget: tuple[str, ...]
    seeds: tuple[int, ...]
    kind: Kind = "unshare"
    share: float | None = None
    settings: Mapping[str, Mapping[str, str]] | None = None
    batches: tuple[int, ...] = ()
    columns: Columns = USUAL
    attacks: tuple[str, ...] = ()
    at_least_rating: float | None = None

    def __post_init__(self) -> None:
        for what, given in (("system", self.systems), ("forget set", self.forget), ("seed", self.seeds)):
            if not given:
                raise ConfigError(f"no {what} is given: name at least one")
        if self.share is not None and not 0 < self.share <= 1:
            raise ConfigError(f"share is {self.share:g}: something must be shared to be withdrawn, at most 1")
        for text in self.forget:
            ForgetSet.parse(text)
        for name in self.attacks:
            attack_type(name)
        for name in self.methods:
            method_type(name)
        unknown = sorted(set(self.settings or {}) - set(self.systems))
        if unknown:
            raise ConfigError(f"settings are given for {', '.join(unknown)}, which is not among the systems compared")
        if not any(self.fitting(system) for system in self.systems):
            raise ConfigError(f"none of {', '.join(self.methods)} fits any of {', '.join(self.systems)}")

    def dataset(self) -> Dataset:
        """The data set."""
        return load(self.data, columns=self.columns, at_least_rating=self.at_least_rating)

    def settings_of(self, system: str) -> Mapping[str, str]:
        """What was set of a system."""
        return (self.settings or {}).get(system, {})

    def fitting(self, system: str) -> tuple[str, ...]:
        """The methods that fit a system, in the order asked for."""
        left_out = {skipped["method"] for skipped in self.skipped() if skipped["system"] == system}
        return tuple(name for name in self.methods if name not in left_out)

    def skipped(self) -> list[dict[str, str]]:
        """The combinations that cannot be, each with the reason."""
        found = []
        for system in self.systems:
            made = make_system(system, self.settings_of(system))
            for method in self.methods:
                try:
                    make_method(method, made)
                except (ConfigError, MissingExtraError) as error:
                    found.append({"system": system, "method": method, "reason": str(error)})
        return found

    def cells(self) -> list[Cell]:
        """The work, in pieces that can run beside each other."""
        return [
            Cell(system, self.settings_of(system), forget, self.kind, self.share, seed, self.batches, self.attacks)
            for seed in self.seeds
            for forget in self.forget
            for system in self.systems
            if self.fitting(system)
        ]


def named(texts: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Systems and methods from names of either.

    Raises
    ------
    ConfigError
        If a name is neither.
    """
    for text in texts:
        if text not in system_names() and text not in method_names():
            known = f"systems {', '.join(system_names())}; methods {', '.join(method_names())}"
            raise ConfigError(f"unknown system {text!r}; known are the {known}")
    systems = tuple(text for text in dict.fromkeys(texts) if text in system_names())
    return systems, tuple(text for text in dict.fromkeys(texts) if text in method_names())


def compare(
    plan: Plan, out: Path, *, jobs: int | None = None, force: bool = False, progress: Progress = no_progress
) -> list[dict[str, Any]]:
    """Run what `out` does not hold yet, and return all rows in the order of the plan.

    Every row is written as it is measured, so an interrupted comparison goes on where it was.

    Parameters
    ----------
    out
        Folder for the rows; it remembers the plan.
    jobs
        Processes; as many as there are cores unless given. They share the cores' threads.
    force
        Throw away the rows of another plan.

    Raises
    ------
    FolderError
        If `out` holds the rows of another plan and `force` is not given, or is no folder of a comparison.
    ConfigError
        If a forget set is empty, `jobs` is below 1, or a model diverged.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"jobs is {jobs}: at least 1 process is needed")
    dataset = plan.dataset()  # what is wrong with it shows before anything starts
    for cell in plan.cells():
        cell.drawn(dataset)
    _require_same_plan(plan, retained_digest(dataset.interactions), out, force)
    cells = plan.cells()
    missing = [(cell, left) for cell in cells if (left := _missing(plan, cell, out))]
    jobs = max(1, min(cores() if jobs is None else jobs, len(missing)))
    done, total = 0, sum(len(left) for _, left in missing)
    progress("rows", done, total)
    for count in _run(plan, missing, out, jobs):
        done += count
        progress("rows", done, total)
    order = {name: place for place, name in enumerate(plan.methods)}
    found = ([row for row in _rows(cell, out) if row["method"] in order] for cell in cells)
    return [row for rows in found for row in sorted(rows, key=lambda row: order[row["method"]])]


def about(plan: Plan, command: str) -> dict[str, Any]:
    """What a reader of the table must know beside it."""
    dataset = suited_to(system_type(plan.systems[0]), plan.dataset())
    train, test = dataset.split(seed=plan.seeds[0])
    return {
        "data": dataset.name,
        "users": len(train.active_users()),
        "items": train.n_items,
        "interactions": len(train) + len(test),
        "split": "as the data gives it" if dataset.is_test is not None else "80/20 per user, by seed",
        "share": share_of(plan.share, dataset),
        "kind": plan.kind,
        "seeds": list(plan.seeds),
        "machine": describe_machine(),
        "cores": cores(),
        "threads": threads(),
        "retract": __version__,
        "command": command,
        "skipped": plan.skipped(),
        "notes": list(dataset.reading_notes),
    }


def _run(plan: Plan, missing: Sequence[tuple[Cell, tuple[str, ...]]], out: Path, jobs: int) -> Iterator[int]:
    """Run the cells, and count the rows as cells end."""
    if jobs == 1:
        for cell, methods in missing:
            yield _measure(plan, cell, methods, out)
        return
    each = max(1, cores() // jobs)
    context = multiprocessing.get_context("spawn")  # a forked process would share threads, which do not survive it
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(each,)) as pool:
        try:
            with given_to_children(each):  # a process is started when it is first needed, which is while work comes in
                work = [pool.submit(_measure, plan, cell, left, out) for cell, left in missing]
            for future in as_completed(work):
                yield future.result()
        except BaseException:
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(threads: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    take(threads)


def _measure(plan: Plan, cell: Cell, methods: Sequence[str], out: Path) -> int:
    """Append the rows of a cell to its file, one by one."""
    path = _part(cell, out)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.read_bytes().endswith(b"\n"):
        path.write_bytes(path.read_bytes() + b"\n")  # what a killed process left must not swallow the next row
    for row in cell.run(plan.dataset(), methods):
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return len(methods)


def _missing(plan: Plan, cell: Cell, out: Path) -> tuple[str, ...]:
    done = {row["method"] for row in _rows(cell, out)}
    return tuple(name for name in plan.fitting(cell.system) if name not in done)


def _rows(cell: Cell, out: Path) -> list[dict[str, Any]]:
    """The rows of a cell so far; a line that a killed process left unfinished is none.

    Forget sets from files of like names may share one file of rows.
    """
    path = _part(cell, out)
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in rows if row["forget"] == cell.forget]


def _part(cell: Cell, out: Path) -> Path:
    forget = "".join(letter if letter.isalnum() or letter in ".-" else "_" for letter in cell.forget)
    return out / PARTS / f"{cell.system}-{forget}-{cell.seed}.jsonl"


def _require_same_plan(plan: Plan, digest: str, out: Path, force: bool) -> None:
    """Rows of another data set or other settings must not stand in one table; more methods or seeds may be added."""
    fixed = {
        name: value for name, value in asdict(plan).items() if name not in ("systems", "methods", "forget", "seeds")
    }
    content = json.dumps({**fixed, "digest": digest, "retract": __version__}, indent=1, sort_keys=True)
    path = out / PLAN
    if out.exists() and not out.is_dir():
        raise FolderError(f"{out} is a file: give a folder for the comparison")
    if path.exists() and path.read_text(encoding="utf-8") != content:
        if not force:
            raise FolderError(
                f"{out} holds a comparison of other data or settings: --force begins anew, or give another"
            )
        for part in (out / PARTS).glob("*.jsonl"):
            part.unlink()
    elif not path.exists() and out.is_dir() and any(out.iterdir()):
        raise FolderError(f"{out} holds files and no comparison: give a folder that is empty or does not exist")
    write_atomically(path, content.encode())
