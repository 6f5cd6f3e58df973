"""Flower's own simulation of many nodes on one machine, by Ray."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from retract.errors import FederationError
from retract.federation.flower.messages import client_app
from retract.federation.flower.node import Node
from retract.federation.flower.programs import QUIET

if TYPE_CHECKING:
    from flwr.app import Context
    from flwr.serverapp import Grid

T = TypeVar("T")


def simulated(server: Callable[[Grid], T], node_of: Callable[[int], Node], nodes: int) -> T:
    """Run a server's work over simulated nodes.

    Parameters
    ----------
    server
        The work, called with Flower's Grid.
    node_of
        From a number below `nodes` to that node; called for every message, in processes of Ray, so that it can be
        pickled and keeps nothing in memory.
    nodes
        How many.

    Raises
    ------
    FederationError
        If the simulation ends without a result.
    """
    os.environ.update(QUIET)
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    results: list[T] = []
    failures: list[BaseException] = []
    app = ServerApp()

    @app.main()  # type: ignore[untyped-decorator, unused-ignore]
    def main(grid: Grid, context: Context) -> None:
        try:
            results.append(server(grid))
        except BaseException as error:  # Flower would tell of it in its own words
            failures.append(error)

    def of(context: Context) -> Node:
        return node_of(int(context.node_config["partition-id"]))

    resources = {"client_resources": {"num_cpus": 1.0, "num_gpus": 0.0}, "init_args": {"num_cpus": os.cpu_count() or 1}}
    run_simulation(app, client_app(of), nodes, backend_config=resources)  # type: ignore[arg-type, unused-ignore]
    if failures:
        raise failures[0]
    if not results:
        raise FederationError("the simulation ended without a result: see what Flower told")
    return results[0]
