"""A federation's whole story on this machine: train, erase, forget; and a page on who sent what.

    python -m benchmarks.federation_demo [--out DIR]

Three nodes hold a third of MovieLens-small's users each, and share half of what they hold. Everything is done by the
commands that people use.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.federations import Federation, with_shared
from retract.data import load
from retract.stores.folder import TrainedFolder
from retract.stores.node import NodeChoice, NodeFolder

WHAT = {
    "hello": "Who is there. The server sends the ids of all items; a node answers the ids of its users, and what they "
    "withdraw of what they shared.",
    "codes": "Which number each user has. A node answers what its users share, and nothing else of what they hold.",
    "task": "A round. The server sends its tables; a node answers one sum over its users, and which users it is over.",
    "publish": "The model, for the nodes to recommend by. They answer nothing.",
    "settle": "What the model has forgotten. The nodes answer nothing.",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("federation-demo"))
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as room:
        told = story(Path(room), options.rounds)
    page = options.out / "federation.md"
    page.write_text(told, encoding="utf-8")
    print(f"page: {page}")


def story(root: Path, rounds: int) -> str:
    """Live it, and tell it."""
    dataset = with_shared(load("movielens-small"), 0.5)
    with Federation(root, 3) as federation:
        say("keys, a server with TLS, and three nodes that it lets in by their keys")
        federation.deal(dataset, NodeChoice(test=0.2))
        federation.start_server()
        for name in federation.names:
            federation.start_node(name)
        say("training fedshare: each round a task goes to the nodes, and sums come back")
        trained = federation.train("fedshare", root / "model", {"rounds": rounds})
        node = federation.node("n0")
        user = NodeFolder(node).devices.sharing.shared.catalog.known_users[0]
        before = federation.json("federate", "recommend", node, "--user", user, "-k", 5)
        say(f"user {user} erases everything: on its own node, and then in the model")
        asked = federation.json("federate", "erase", node, "--user", user)
        forgotten = federation.unlearn(root / "model")
        status = federation.json("status", root / "model")
        gone = user not in TrainedFolder(root / "model").load_server().shared.catalog.known_users
    return page(trained, user, before, asked, forgotten, status, gone)


def page(
    trained: dict[str, Any],
    user: str,
    before: dict[str, Any],
    asked: dict[str, Any],
    forgotten: dict[str, Any],
    status: dict[str, Any],
    gone: bool,
) -> str:
    """The page."""
    lines = [
        "# A federation that forgets",
        "",
        f"{trained['nodes']} nodes with {trained['users']:,} users trained {trained['system']} in {trained['rounds']} "
        f"rounds and {trained['seconds']:.0f} seconds. Recall@20 on what the nodes held out: "
        f"{trained['metrics']['recall@20']:.4f}.",
        "",
        "## Who sent what",
        "",
        "| message | times | to the nodes | to the server | what the server could see |",
        "|---|---|---|---|---|",
    ]
    for action, one in trained["seen"].items():
        held = ", ".join(one["holds"]) or "nothing"
        lines.append(f"| {action} | {one['messages']} | {one['down']:,} B | {one['up']:,} B | {held} |")
    lines += ["", *(f"- **{action}**: {text}" for action, text in WHAT.items()), ""]
    lines += [
        f"The server holds the {trained['shared']:,} interactions that users share. It has no devices' half.",
        "",
        "## A user leaves",
        "",
        f"On its node, user {user} was recommended {', '.join(item['title'] for item in before['items'])}.",
        "",
        f"The user erased all {asked['count']:,} interactions, private ones too. The node dropped them, and told the "
        f"server of the shared ones alone. The model was made anew without them, in {forgotten['rounds']} rounds and "
        f"{forgotten['seconds']:.0f} seconds; Recall@20 is now {forgotten['metrics']['recall@20']:.4f}. "
        f"The server {'knows no such user any more' if gone else 'STILL KNOWS THE USER'}, and holds "
        f"{status['shared']:,} interactions in version {status['version']}.",
        "",
    ]
    return "\n".join(lines)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
