"""The commands that only closed forms have: tune and ship."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retract.cli.app import Column, Data, Folder, Json, Seed, app, settings_of
from retract.cli.output import emit, facts, grid, metric, note, progress_bars, size
from retract.errors import ConfigError

SHOWN = 10


@app.command()
def tune(
    data: Data,
    share: Annotated[float, typer.Option(metavar="RATIO", help="The part that every user shares, in [0, 1].")] = 1.0,
    grid_of: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="KEY=V1,V2", help="Values to try of a setting; repeatable. Else a usual grid."),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting that stays; repeatable.")
    ] = None,
    seed: Seed = 0,
    user_col: Column = None,
    item_col: Column = None,
    fold_col: Column = None,
    as_json: Json = False,
) -> None:
    """Find settings of `exact` on a held-out tenth of the shared training part; the test part is never looked at."""
    from retract.data import Columns, Sharing, load
    from retract.systems.exact import ExactConfig
    from retract.systems.exact.tuning import tune as tune_exact
    from retract.systems.registry import make_system

    config = make_system("exact", settings_of(setting or [])).config
    assert isinstance(config, ExactConfig)
    values = {name: _numbers(name, text) for name, text in settings_of(grid_of or []).items()}
    for name, numbers in values.items():
        for number in numbers:
            make_system("exact", {**config.model_dump(), name: number})  # refuses what is no setting or out of range
    dataset = load(data, columns=Columns(user_col, item_col, None, None, fold_col))
    for text in dataset.notes:
        note(text)
    shared = Sharing.by_ratio(dataset.split(seed=seed)[0], share, seed).shared
    with progress_bars() as progress:
        found = tune_exact(shared, config, grid=values or None, seed=seed, progress=progress)
    names = list(found[0].settings)
    rows = [
        [*(f"{one.settings[name]:g}" for name in names), metric(one.recall), metric(one.ndcg), f"{one.seconds:.1f}"]
        for one in found[:SHOWN]
    ]
    columns = [*names, "recall@20", "ndcg@20", "seconds"]
    best = " ".join(f"--set {name}={value:g}" for name, value in found[0].settings.items())
    candidates = [
        {"settings": dict(one.settings), "recall@20": one.recall, "ndcg@20": one.ndcg, "seconds": one.seconds}
        for one in found
    ]
    fields = {"system": "exact", "best": dict(found[0].settings), "candidates": candidates}
    emit(
        fields,
        as_json,
        grid(columns, rows, numeric=columns),
        f"Next: retract train exact --data {data} {best} --out DIR",
    )


@app.command()
def ship(
    folder: Folder,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file for clients.", show_default=False)],
    max_mb: Annotated[float, typer.Option(help="Its size at most, in megabytes.")] = 2.0,
    epsilon: Annotated[
        float | None,
        typer.Option(help="Noise for whole users: the ε of (ε, δ)-differential privacy.", show_default=False),
    ] = None,
    delta: Annotated[float, typer.Option(help="The δ of it.")] = 1e-6,
    as_json: Json = False,
) -> None:
    """Write a model of `exact` as one small file, so that clients need not tell anybody which items they ask for."""
    from retract.systems.shipping import ship_folder

    report = ship_folder(folder, out, max_bytes=int(max_mb * 1e6), epsilon=epsilon, delta=delta)
    rows = {
        "file": f"{out}, {size(report.bytes)}",
        "recall@20": f"{metric(report.metrics['recall@20'])}, whole model {metric(report.metrics_whole['recall@20'])}",
        "ndcg@20": f"{metric(report.metrics['ndcg@20'])}, whole model {metric(report.metrics_whole['ndcg@20'])}",
    }
    emit(asdict(report), as_json, facts(rows), f"\nNext: retract recommend {out} --items ID,ID")


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"--grid {name}={text} takes numbers separated by commas, such as {name}=10,50,100") from None
