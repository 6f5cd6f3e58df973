"""What people and scripts see: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from retract.cli.refusals import InterruptedRunError, LackingError, lacking
from retract.report import wording

ATTACKS = {
    "learned": "tells withdrawn items from others, by what it learnt on models of which all is known",
    "score": "tells withdrawn items from others by their score alone",
}
"""What the attacks of an audit go by."""
Report = Callable[[str, int, int], None]


LINE_EVERY = 10.0
"""Seconds between two lines of progress where there is no terminal."""


def emit(fields: Mapping[str, Any], as_json: bool, *parts: RenderableType) -> None:
    """Print a result: one JSON object of `fields`, or the `parts` for a person."""
    try:
        if as_json:
            sys.stdout.write(json.dumps(fields, allow_nan=False) + "\n")
        else:
            console = Console(markup=False, highlight=False, emoji=False)  # titles such as "[REC]" are no markup
            for part in parts:
                console.print(part, soft_wrap=isinstance(part, str))
        sys.stdout.flush()
    except OSError as error:
        if (lack := lacking(error)) is None:
            raise
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what waits to be printed would fail again at the exit
        raise LackingError(f"the result cannot be printed ({lack[0]}), but the command did its work", lack[1]) from None


def note(text: str) -> None:
    """Tell a person something beside the result."""
    sys.stderr.write(f"note: {text}\n")


def complain(text: str) -> None:
    """Tell a person of one of several bad inputs, in one line."""
    sys.stderr.write(f"error: {' '.join(text.split())}\n")


def facts(rows: Mapping[str, object]) -> Table:
    """A table of names and values."""
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    table.add_column(style="dim")
    table.add_column()
    for name, value in rows.items():
        table.add_row(name, str(value))
    return table


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[str] = ()) -> Table:
    """A table with a header; `numeric` columns stand right."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)  # wide ones need the room
    for column in columns:
        table.add_column(column, justify="right" if column in numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def audit_tables(audit: Mapping[str, Any]) -> list[RenderableType]:
    """An audit for people: the verdict, the models side by side, and what it took."""
    models = [name for name in ("before", "after", "oracle") if audit[name] is not None]
    shown = [(name, phrase) for name, phrase in wording.PHRASES.items() if audit["after"].get(name) is not None]
    rows = [[phrase, *(_figure(name, audit[model]) for model in models)] for name, phrase in shown]
    return [wording.verdict(audit)[1], grid(["", *models], rows, numeric=models), facts(_way(audit))]


def _figure(name: str, model: Mapping[str, Any]) -> str:
    """A figure of one model, that of the attack with its 95 % interval."""
    if name == "attack_auc":
        return wording.ranged(model[name], model["attack_low"], model["attack_high"])
    return metric(model[name])


def _way(audit: Mapping[str, Any]) -> dict[str, str]:
    """What was audited, and the way from before to after."""
    users = f"{audit['users']:,} user{'s' if audit['users'] > 1 else ''}"
    count = f"{audit['forgotten']:,} interactions of {users}"
    rows = {
        "audited": f"{audit['kind']} of {count}, all that the model had learnt of what was asked",
        "the attack": ATTACKS.get(audit["attack"], audit["attack"]),
        "who holds both versions": wording.leak(audit),
        "time": wording.seconds(audit["seconds"]).replace("\u202f", " "),
    }
    if audit["memory_bytes"]:
        rows["kept to forget by"] = size(audit["memory_bytes"])
    if audit["bytes_sent"]:
        rows["sent, simulated"] = sent(audit["bytes_sent"], audit["rounds"], audit.get("client_updates", 0))
    if audit["oracle"] is not None:
        apart = f"{metric(audit['ks_before'])} before, {metric(audit['ks_after'])} after"
        rows["places of the withdrawn"] = f"{apart} from the oracle’s (KS: 0 alike, 1 apart)"
    if audit["speedup"] is not None:
        rows["time"] += f", {wording.pace(audit['speedup'])}"
    return rows


def sent(total: int, rounds: int, updates: int) -> str:
    """Bytes over a network that is simulated: in all, and of one device in one round."""
    each = f", {size(total / updates)} per device and round" if updates else ""
    return f"{size(total)} in {rounds:,} rounds{each}"


def metric(value: float | None) -> str:
    """A metric in four digits; a dash where there was nothing to measure."""
    return "–" if value is None else f"{value:.4f}"


def size(count: float) -> str:
    """Bytes in the unit that suits them, three digits."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 999.5:  # more would be rounded to 1e+03
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def span(seconds: float) -> str:
    """A time, in milliseconds where it is below a second."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def with_paths(audits: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Audits of a trained folder whose certificates are named from where the command runs, as all paths are."""
    return [{**audit, "certificate": str(folder / audit["certificate"])} for audit in audits]


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Progress on stderr: bars, one per stage, on a terminal, and elsewhere a line every ten seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        with _progress_lines() as report:
            yield report
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            elif done < bars.tasks[tasks[stage]].completed:  # the stage begins anew, for another model
                bars.reset(tasks[stage])
            bars.update(tasks[stage], completed=done, total=total)

        yield report


@contextmanager
def _progress_lines() -> Iterator[Report]:
    """A line every ten seconds, however long a step takes: a step may be a single call of a library."""
    began, over = time.monotonic(), Event()
    last: list[tuple[str, int, int]] = []

    def tell() -> None:
        while not over.wait(LINE_EVERY):
            stage, done, total = last[0] if last else ("starting", 0, 0)
            steps = f", {done:,} of {total:,}" if total > 1 else ""
            sys.stderr.write(f"{stage}{steps}, {time.monotonic() - began:,.0f} s so far\n")
            sys.stderr.flush()

    def report(stage: str, done: int, total: int) -> None:
        last[:] = [(stage, done, total)]

    teller = Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield report
    finally:
        over.set()
        teller.join()


@contextmanager
def telling_what_is_left(path: Path, marker: str, kept: Callable[[], str | None] = lambda: None) -> Iterator[None]:
    """Turn Ctrl-C, a full disk and too little memory into a line that says which state is left.

    Parameters
    ----------
    path
        The folder that is worked on.
    marker
        A file in it that changes whenever its state does.
    kept
        What to say instead where work is saved as it goes; None where nothing was saved yet.
    """
    before, there = _content(path / marker), path.exists()

    def left() -> str:
        if _content(path / marker) != before:
            return f"{path} was already saved and holds the new state"
        if (saved := kept()) is not None:
            return f"{path}: {saved}"
        return f"{path} is as it was" if there else f"{path} was not made"

    try:
        yield
    except KeyboardInterrupt:
        told = left()
        again = "; nothing was written: run it again" if told.startswith((f"{path} is", f"{path} was not")) else ""
        raise InterruptedRunError(told + again) from None
    except (OSError, MemoryError, RuntimeError) as error:
        if (lack := lacking(error)) is None:
            raise
        raise LackingError(f"{lack[0]}; {left()}", lack[1]) from error


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
