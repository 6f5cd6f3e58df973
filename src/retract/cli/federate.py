"""The commands of a federation's server: keys, server, run, unlearn. Flower's own programs do the carrying."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from retract.cli.app import app
from retract.cli.options import Folder, Json, Key, Seed, Settings, Share, Test, settings_of, with_options
from retract.cli.output import emit, facts, metric, note, progress_bars, size, span, telling_what_is_left
from retract.cli.usage import UsageError
from retract.errors import FederationError, FolderError

if TYPE_CHECKING:
    from retract.federation.flower import Link
    from retract.federation.flower.programs import Place
    from retract.stores.federated import FederatedReport
    from retract.stores.forgetting import UnlearnReport
    from retract.stores.meeting import Wanted
    from retract.stores.node import NodeFolder

T = TypeVar("T")
federate = typer.Typer(help="The same systems over a network, carried by Flower: devices keep their data.")
app.add_typer(federate, name="federate")

Keys = Annotated[Path, typer.Option("--keys", metavar="KEYS", help="The folder of the federation's keys.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="No TLS and no keys of nodes; on this machine alone.")]
FEDERATED = "exact, fedshare or personalfr"


@dataclass(frozen=True)
class Reached:
    """Which server, and whom it waits for."""

    keys: Keys = Path("keys")
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The federation's server, on this machine.")] = (
        "127.0.0.1:8000"
    )
    nodes: Annotated[int, typer.Option(metavar="N", help="Wait for so many nodes.")] = 1
    wait: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for them.")] = 60.0
    deadline: Annotated[float, typer.Option(metavar="SECONDS", help="How long a node has to answer.")] = 600.0
    insecure: Insecure = False

    @property
    def place(self) -> Place:
        """Where the server is."""
        from retract.federation.flower.authority import AUTHORITY
        from retract.federation.flower.programs import Place, require_flower

        require_flower()
        return Place.of(self.server, None if self.insecure else self.keys / AUTHORITY)

    @property
    def wanted(self) -> Wanted:
        """Whom to wait for."""
        from retract.stores.meeting import Wanted

        return Wanted(self.nodes, self.wait, self.deadline)

    def work(self, work: Callable[[Link], T]) -> T:
        """Do a server's work in a run of the federation's server."""
        from retract.federation.flower.authority import RUNS_KEY
        from retract.federation.flower.messages import FlowerLink
        from retract.federation.flower.runtime import run_of

        secret = self.keys / RUNS_KEY
        if not secret.is_file():
            raise FolderError(f"{secret} is missing: it is made by `retract federate keys`, and stays with the server")
        place = self.place
        place.require_trusted()
        with run_of(place, secret.read_bytes()) as grid:
            return work(FlowerLink(grid, note, keyed=not self.insecure))


Simulate = Annotated[
    int | None,
    typer.Option("--simulate", metavar="N", help="N nodes on this machine, by Flower's simulation (Ray).", min=1),
]
NodesAt = Annotated[
    Path | None,
    typer.Option("--nodes-at", metavar="DIR", help="Of --simulate: where its nodes are; beside DIR unless given."),
]


@federate.command()
def keys(
    folder: Annotated[Path, typer.Argument(metavar="KEYS", help="The folder that the keys go to.")],
    host: Annotated[
        list[str] | None, typer.Option(metavar="HOST", help="A name or address of the server; repeatable.")
    ] = None,
    node: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A node to let in; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Make the keys of a federation: an authority, the server's certificate, and a key for each node."""
    from retract.federation.flower.authority import AUTHORITY, NODES, make_keys

    made = make_keys(folder, host or ["localhost"], node or [])
    told = [f"made in {folder}: {', '.join(made)}" if made else f"{folder} has them all already: nothing was made"]
    if node:
        told.append(f"Give each node its own {NODES}/NAME.key and {AUTHORITY}, and delete the key here.")
    emit({"keys": str(folder), "made": made}, as_json, *told, f"Next: retract federate server --keys {folder}")


@federate.command()
def server(
    keys: Keys = Path("keys"),
    host: Annotated[str, typer.Option(metavar="HOST", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", help="The port.")] = 8000,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Run a federation's server until Ctrl-C: Flower's SuperLink, with TLS, letting in the nodes of KEYS alone."""
    from retract.federation.flower import programs
    from retract.federation.flower.authority import AUTHORITY, make_keys, public_keys

    programs.require_flower()
    if insecure:
        make_keys(keys, ["localhost"], [])
    place = programs.Place(host, port, None if insecure else keys / AUTHORITY)
    programs.require_free(host, port)
    known: dict[str, bytes] = {}
    near = programs.Place("127.0.0.1" if host in ("0.0.0.0", "::") else host, port, place.authority)
    with (keys / "superlink.log").open("ab") as log:
        process = programs.superlink(place, keys, keys / "superlink.sqlite", log)
        try:
            programs.wait_for(process, near.host, port, "the SuperLink")
            note(f"listening on {place.address}; the log is {keys / 'superlink.log'}; Ctrl-C ends it")
            while process.poll() is None:
                if not insecure and (new := {n: k for n, k in public_keys(keys).items() if n not in known}):
                    _let_in(near, new)
                    known |= new
                time.sleep(1)
            raise FederationError(f"the SuperLink ended with code {process.returncode}: see {keys / 'superlink.log'}")
        except KeyboardInterrupt:
            pass
        finally:
            programs.ended(process)
    emit({"server": place.address, "nodes": sorted(known)}, as_json, "the server has ended")


def _let_in(place: Place, keys: dict[str, bytes]) -> None:
    """Let in nodes whose public keys are new."""
    from retract.federation.flower.runtime import register

    if new := register(place, keys):
        note(f"let in: {', '.join(new)}")


@federate.command()
@with_options
def run(
    system: Annotated[str, typer.Argument(metavar="SYSTEM", help=f"{FEDERATED}.", show_default=False)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The trained folder to write.", show_default=False)],
    reached: Reached,
    items: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The items that users may hold: one id a line, and after a tab its title."),
    ] = None,
    setting: Settings = None,
    seed: Seed = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace the trained folder that DIR is.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training that was interrupted in DIR.")] = (
        False
    ),
    key: Key = None,
    simulate: Simulate = None,
    data: Annotated[str | None, typer.Option(metavar="FILE", help="Of --simulate: the data to deal out.")] = None,
    share: Share = None,
    test: Test = None,
    nodes_at: NodesAt = None,
    as_json: Json = False,
) -> None:
    """Train SYSTEM with the nodes of a federation; DIR then holds the server's half alone."""
    from retract.stores.federated import FederateOptions, require_federated, train_federated
    from retract.stores.resuming import Place as TrainingPlace
    from retract.systems.registry import make_system

    chosen = make_system(system, settings_of(setting or []))
    require_federated(chosen)
    if (simulate is None) != (data is None):
        raise UsageError("--simulate and --data go together: the data is dealt out among the simulated nodes")
    with ExitStack() as stack:
        stack.enter_context(telling_what_is_left(out, "server/current", lambda: TrainingPlace.left(out)))
        progress = stack.enter_context(progress_bars())
        options = FederateOptions(items, seed, force, resume, key, reached.wanted)
        if simulate is None:
            report = reached.work(lambda link: train_federated(chosen, link, out, options, progress))
        else:
            assert data is not None
            from retract.stores.simulated import deal

            places, options = deal(data, nodes_at or beside(out), simulate, options, share=share, test=test)
            report = simulated_work(places, lambda link: train_federated(chosen, link, out, options, progress))
    for text in report.notes:
        note(text)
    emit(asdict(report), as_json, facts(_told(report)), f"\nNext: retract federate unlearn {out}, when users asked")


@federate.command()
@with_options
def unlearn(
    folder: Folder,
    reached: Reached,
    at_least: Annotated[
        int, typer.Option(metavar="M", help="Wait until so many users withdraw what the model learnt.")
    ] = 1,
    key: Key = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="The nodes are those that `run --simulate` made.")
    ] = False,
    nodes_at: NodesAt = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Fetch what users asked of their nodes: the model forgets it, and the nodes get what it became."""
    from retract.stores.federated import unlearn_federated
    from retract.stores.folder import TrainedFolder
    from retract.stores.forgetting import UnlearnOptions
    from retract.stores.simulated import dealt

    options, trained = UnlearnOptions(seed, at_least), TrainedFolder(folder, key)
    with telling_what_is_left(folder, "server/current"), progress_bars() as progress:

        def work(link: Link) -> UnlearnReport:
            return unlearn_federated(trained, link, options, reached.wanted, progress)

        found = simulated_work(dealt(nodes_at or beside(folder)), work) if simulate else reached.work(work)
    for text in found.notes:
        note(text)
    rows = {name: metric(value) for name, value in found.metrics.items() if value is not None}
    if found.waiting:
        done = f"{found.waiting} user(s) wait until {found.at_least} withdraw something: nothing was changed."
    else:
        done = f"{found.requests} request(s) applied in {found.rounds} round(s), {span(found.seconds)}."
    emit(asdict(found), as_json, done, facts(rows))


def beside(out: Path) -> Path:
    """Where the nodes of a simulation are."""
    return out.with_name(f"{out.name}-nodes")


def simulated_work(places: list[Path], work: Callable[[Link], T]) -> T:
    """Do a server's work over simulated nodes in these folders."""
    from retract.federation.flower.messages import FlowerLink
    from retract.federation.flower.programs import require_flower
    from retract.federation.flower.simulation import simulated

    require_flower()
    return simulated(lambda grid: work(FlowerLink(grid, note, keyed=False)), partial(_opened, places), len(places))


def _opened(places: list[Path], number: int) -> NodeFolder:
    from retract.stores.node import NodeFolder

    return NodeFolder(places[number])


def _told(report: FederatedReport) -> dict[str, str]:
    """A training for people."""
    rows = {
        "nodes": f"{report.nodes:,}, with {report.users:,} users",
        "shared": f"{report.shared:,} interactions of {report.items:,} items",
        "time": f"{span(report.seconds)}, peak memory {report.peak_mb:,.0f} MB",
        "rounds": f"{report.rounds:,}",
        "sent": f"{size(report.bytes_up)} up, {size(report.bytes_down)} down",
    }
    rows |= {"resumed at": report.resumed_at} if report.resumed_at is not None else {}
    return rows | {name: metric(value) for name, value in report.metrics.items() if value is not None}
