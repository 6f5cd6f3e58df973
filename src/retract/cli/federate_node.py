"""The commands of a federation's node, beside its users' data: client, recommend, unshare, erase, leave."""

from __future__ import annotations

import secrets
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retract.cli.federate import Insecure, federate
from retract.cli.options import Column, Json, Seed, Share, Suggest, Test, User, Which, suggesting, with_options
from retract.cli.output import emit, grid, note
from retract.cli.usage import UsageError
from retract.errors import FederationError

if TYPE_CHECKING:
    from retract.federation.flower.programs import Place
    from retract.stores.ledger import Kind
    from retract.stores.node import Draws, NodeFolder

Node = Annotated[Path, typer.Argument(metavar="NODE", help="The node's own folder.", show_default=False)]


@dataclass(frozen=True)
class Held:
    """The data that a node is made of."""

    data: Annotated[
        str | None, typer.Option(metavar="FILE", help="The users' data; needed once, the node then keeps its own copy.")
    ] = None
    user_col: Column = None
    item_col: Column = None
    rating_col: Column = None
    timestamp_col: Column = None
    fold_col: Column = None
    shared_col: Column = None
    at_least_rating: Annotated[
        float | None, typer.Option(metavar="X", help="Leave out what is rated lower.", show_default=False)
    ] = None
    share: Share = None
    test: Test = None
    draws: Annotated[
        str,
        typer.Option(
            metavar="secret|public",
            help="Whether a secret of the node keys its draws. Public is for tests: the server can then tell what is "
            "drawn from what is held.",
        ),
    ] = "secret"
    seed: Seed = 0

    def node(self, path: Path) -> NodeFolder:
        """The node in a folder, made of the data where there is none."""
        from retract.data import Columns, load
        from retract.stores.node import FACTS, NodeChoice, NodeFolder

        if (path / FACTS).exists():
            if self.data is not None:
                note(f"{path} keeps a copy of its own: {self.data} was not read")
            return NodeFolder(path)
        if self.data is None:
            raise UsageError(f"{path} is no node yet: give its users' data by --data FILE")
        names = (self.user_col, self.item_col, self.rating_col, self.timestamp_col, self.fold_col, self.shared_col)
        dataset = load(self.data, columns=Columns(*names), at_least_rating=self.at_least_rating)
        return NodeFolder.create(path, dataset, NodeChoice(self.share, self.test, _draws(self.draws), self.seed))


@federate.command()
@with_options
def client(
    path: Node,
    held: Held,
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The federation's server.")] = "127.0.0.1:8000",
    authority: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="The authority's certificate.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The node's own private key.", show_default=False)
    ] = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Run a node until Ctrl-C: Flower's SuperNode, and the software of this machine beside its users' data."""
    from retract.federation.flower import programs
    from retract.stores.locking import locked

    programs.require_flower()
    if insecure != (authority is None and key is None) or (authority is None) != (key is None):
        raise UsageError("give --ca and --key, which `retract federate keys` made; or --insecure on one machine")
    place = programs.Place.of(server, None if insecure else authority)
    place.require_trusted()
    node = held.node(path)
    with locked(path / "client.lock", wait=False, busy=f"another process answers for {path}: end it first"):
        _serve(node, place, key)
    emit({"node": str(path), "users": len(node.devices.users)}, as_json, "the node has ended")


def _serve(node: NodeFolder, place: Place, key: Path | None) -> None:
    """Answer for a node until Ctrl-C."""
    from retract.federation.flower import programs
    from retract.federation.flower.messages import client_app
    from retract.federation.flower.runtime import answer_messages

    port, secret = programs.free_port(), node.path / "messages.key"
    secret.write_bytes(secrets.token_bytes(32))
    secret.chmod(0o600)
    log = node.path / "supernode.log"
    with ExitStack() as stack:
        process = programs.supernode(place, key, port, secret, stack.enter_context(log.open("wb")))
        stack.callback(programs.ended, process)
        try:
            programs.wait_for(process, "127.0.0.1", port, "the SuperNode")
            note(f"{len(node.devices.users):,} user(s), for the server at {place.address}; Ctrl-C ends it")
            answer_messages(client_app(lambda context: node), port, secret.read_bytes(), lambda: process.poll() is None)
        except KeyboardInterrupt:
            return
    raise FederationError(
        f"the server at {place.address} does not let this node in, or the SuperNode failed: have its key among the "
        f"server's, and see {log}"
    )


@federate.command()
@with_options
def recommend(
    path: Node,
    user: User,
    k: Annotated[int | None, typer.Option("-k", help="How many; 10 unless given.", show_default=False)] = None,
    suggest: Suggest = False,
    as_json: Json = False,
) -> None:
    """Show what suits a user of the node best, by the model that the server published; the server is not asked."""
    from retract.stores.node import NodeFolder

    with suggesting(suggest):
        found = NodeFolder(path).lists([user], k)[0]
    for text in found.notes:
        note(text)
    rows = [[one.item, one.title, f"{one.score:.4g}"] for one in found.items]
    fields = {"user": found.user, "items": [one.fields for one in found.items]}
    emit(fields, as_json, grid(["item", "title", "score"], rows, numeric=["score"]))


@federate.command()
@with_options
def unshare(path: Node, user: User, which: Which, suggest: Suggest = False, as_json: Json = False) -> None:
    """Ask that the server forgets what a user shared; the node keeps it."""
    with suggesting(suggest):
        _ask("unshare", path, user, which, as_json)


@federate.command()
@with_options
def erase(path: Node, user: User, which: Which, suggest: Suggest = False, as_json: Json = False) -> None:
    """Ask that a user's data be gone: from the node, and with what it did from the server's model."""
    with suggesting(suggest):
        _ask("erase", path, user, which, as_json)


@federate.command()
def leave(path: Node, as_json: Json = False) -> None:
    """Erase all users of a node, which leaves for good: the model forgets them, and then the folder can be deleted."""
    from retract.stores.node import NodeFolder

    asked = NodeFolder(path).leave()
    told = f"erasures noted: {len(asked):,}. Keep the node running until the server has unlearnt; then delete {path}."
    emit({"node": str(path), "requests": [one.id for one in asked]}, as_json, told)


def _ask(kind: Kind, path: Path, user: str, which: Which, as_json: bool) -> None:
    """Record one request and say so."""
    from retract.stores.node import NodeFolder
    from retract.stores.requests import Wish

    node = NodeFolder(path)
    named = which.named(lambda: node.devices.sharing.shared.catalog.item_ids.tolist())
    asked = node.ask(Wish(kind, user, named, which.fraction, which.seed))
    count = len(asked.items)
    fields = {"request": asked.id, "kind": kind, "user": user, "count": count}
    hint = "The node applies it when the server next speaks to it; the server's model by `retract federate unlearn`."
    emit(fields, as_json, f"{kind} of {count:,} interactions of user {user} noted ({asked.id}).", hint)


def _draws(text: str) -> Draws:
    if text == "secret":
        return "secret"
    if text == "public":
        return "public"
    raise UsageError(f"--draws is {text!r}: it is secret, or public for tests")
