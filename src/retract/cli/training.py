"""The commands that make a model: demo, train, tune."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retract.cli.app import app
from retract.cli.options import (
    SYSTEMS,
    Again,
    Data,
    DataOptions,
    EngineName,
    Json,
    Key,
    Seed,
    Settings,
    Share,
    Test,
    computing,
    options_of,
    settings_of,
    with_options,
)
from retract.cli.output import emit, facts, grid, metric, note, progress_bars, size, span, telling_what_is_left
from retract.cli.usage import UsageError
from retract.errors import ConfigError, FolderError

if TYPE_CHECKING:
    from retract.stores.training import TrainOptions, TrainReport

SHOWN = 10


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = Path("demo"),
    data: Data = "movielens-small",
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Tell the whole story on real data, with a report to look at."""
    if out.exists() and not out.is_dir():
        raise FolderError(f"{out} is a file: give a folder for the report")
    from retract.auditing.demo.run import run_demo

    with telling_what_is_left(out, "figures.json"), progress_bars() as progress:
        summary = run_demo(out, data=data, seed=seed, progress=progress)
    emit(summary, as_json, f"report: {summary['report']}")


@dataclass(frozen=True)
class Training:
    """How a training is set up."""

    share: Share = None
    test: Test = None
    evaluate: Annotated[
        bool,
        typer.Option("--evaluate", help="Measure on a held-out part first, and then learn from everything."),
    ] = False
    clients: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of personalfr: deal the users among N clients. Else each is one."),
    ] = None
    seed: Seed = 0
    force: Annotated[bool, typer.Option("--force", help="Replace the trained folder that DIR is.")] = False
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training that was interrupted in DIR.")] = (
        False
    )
    again: Again = False
    keep_every: Annotated[
        float, typer.Option(metavar="SECONDS", help="How often the training's place is kept, to resume it.")
    ] = 20.0
    key: Key = None

    @property
    def options(self) -> TrainOptions:
        """As the stores take them."""
        from retract.stores.training import TrainOptions

        return TrainOptions(**asdict(self))


@app.command()
@with_options
def train(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help=f"{SYSTEMS}.", show_default=False)],
    source: DataOptions,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The trained folder to write.", show_default=False)],
    training: Training,
    setting: Settings = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Of unlearnrec, the graph recommender: lightgcn, sgl or simgcl. As --set backbone=NAME.",
            show_default=False,
        ),
    ] = None,
    engine: EngineName = "local",
    as_json: Json = False,
) -> None:
    """Train SYSTEM (exact, fedshare, lightgcn, personalfr, receraser or unlearnrec) on a data set; write a folder."""
    from retract.stores.resuming import Place
    from retract.stores.training import train_folder
    from retract.systems.registry import make_system

    chosen = make_system(system, _with_backbone(settings_of(setting or []), backbone))
    left = telling_what_is_left(out, "server/current", lambda: Place.left(out))
    with left, computing(engine, chosen.name), progress_bars() as progress:
        report = train_folder(chosen, source.load(), out, training.options, progress)
    for text in report.notes:
        note(text)
    emit(asdict(report), as_json, facts(_told(report)), *_closing(report), f"\nNext: retract recommend {out} --user ID")


def _told(report: TrainReport) -> dict[str, str]:
    """A training for people."""
    rows = {
        "users × items": f"{report.users:,} × {report.items:,}",
        "interactions": f"{report.interactions:,}: {_split(report)}",
        "time": f"{span(report.seconds)}, peak memory {report.peak_mb:,.0f} MB",
        **({"time to prepare": f"{span(report.prepare_seconds)}, to forget fast"} if report.prepare_seconds else {}),
        **({"resumed at": report.resumed_at} if report.resumed_at is not None else {}),
        **({"kept to forget by": size(report.memory_bytes)} if report.memory_bytes else {}),
        **({"rounds": f"{report.rounds:,}"} if report.rounds else {}),
        **({"sent, simulated": _sent(report)} if report.bytes_up else {}),
    }
    return rows | {name: metric(value) for name, value in report.metrics.items() if value is not None}


def _sent(report: TrainReport) -> str:
    """Bytes both ways, of all devices together and of one of them in one round."""
    each = (report.bytes_up + report.bytes_down) / max(report.rounds * report.users, 1)
    return f"{size(report.bytes_up)} up, {size(report.bytes_down)} down; {size(each)} per device and round"


def _split(report: TrainReport) -> str:
    """Where the interactions are, in words."""
    parts = {"shared": report.shared, "private": report.private, "held out": report.held_out}
    return ", ".join(f"{count:,} {name}" for name, count in parts.items() if count or name == "shared")


def _closing(report: TrainReport) -> list[str]:
    """What the model that is served has learnt from, and what the metrics are of."""
    learnt = f"The model has learnt from {report.learnt:,} of {report.interactions:,} interactions."
    if not report.measured_on:
        return [f"{learnt} None was held out, so nothing was measured: --evaluate does that first."]
    if not report.held_out:
        return [f"{learnt} The metrics are of one that learnt from all but {report.measured_on:,} of them."]
    return [f"{learnt} The metrics are of the {report.held_out:,} that were held out."]


def _with_backbone(settings: dict[str, str], backbone: str | None) -> dict[str, str]:
    """The settings, the backbone among them where it was given by its own option."""
    if backbone is None:
        return settings
    if "backbone" in settings:
        raise ConfigError(
            f"the backbone is given twice: --backbone {backbone} and --set backbone={settings['backbone']}"
        )
    return {**settings, "backbone": backbone}


@app.command()
@with_options
def tune(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help="exact.", show_default=False)],
    source: DataOptions,
    share: Share = None,
    test: Test = None,
    grid_of: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="KEY=V1,V2", help="Values to try of a setting; repeatable. Else a usual grid."),
    ] = None,
    setting: Settings = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Find settings of `exact` on a fifth of what some users share; what --test keeps out is never looked at."""
    from retract.stores.learning import Choice, Parts
    from retract.systems.exact import EXACT, ExactConfig
    from retract.systems.exact.tuning import tune as tune_exact
    from retract.systems.registry import make_system

    config = make_system(system, settings_of(setting or [])).config
    if not isinstance(config, ExactConfig):
        raise UsageError(f"tune knows how to choose settings of exact, not of {system}")
    values = {name: _numbers(name, text) for name, text in settings_of(grid_of or []).items()}
    for name, numbers in values.items():
        for number in numbers:
            make_system("exact", {**config.model_dump(), name: number})  # refuses what is no setting or out of range
    dataset = source.load().likes()
    for text in dataset.notes:
        note(text)
    shared = Parts.of(dataset, EXACT.share, Choice(share, test), seed).sharing.shared
    with progress_bars() as progress:
        found = tune_exact(shared, config, grid=values or None, seed=seed, progress=progress)
    names = list(found[0].settings)
    rows = [
        [*(f"{one.settings[name]:g}" for name in names), metric(one.recall), metric(one.ndcg), f"{one.seconds:.1f}"]
        for one in found[:SHOWN]
    ]
    columns = [*names, "recall@20", "ndcg@20", "seconds"]
    given = [f"--set {one}" for one in setting or [] if not one.startswith("form=")]
    chosen = [f"--set {name}={value:g}" for name, value in found[0].settings.items()]
    best = " ".join([f"--set form={found[0].form}", *given, *chosen])
    candidates = [
        {"settings": dict(one.settings), "recall@20": one.recall, "ndcg@20": one.ndcg, "seconds": one.seconds}
        for one in found
    ]
    best_of_all = dict(found[0].settings)
    fields = {"system": "exact", "form": found[0].form, "best": best_of_all, "candidates": candidates}
    read = "".join(f"--{name} {value} " for name, value in options_of(source.columns, source.at_least_rating))
    hint = f"Next: retract train exact --data {source.data} {read}{best} --out DIR"
    emit(fields, as_json, grid(columns, rows, numeric=columns), hint)


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--grid {name}={text} takes numbers separated by commas, such as {name}=10,50,100") from None
