"""A federation of real processes on this machine: keys, a server, nodes, all by the commands that people use."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from retract.data import Dataset
from retract.federation.flower.programs import free_port
from retract.stores.node import NodeChoice, NodeFolder
from retract.stores.simulated import write_items

COMMAND = [sys.executable, "-c", "import sys; from retract.cli import main; sys.exit(main())"]
ENDING = 20


class Federation:
    """A server and nodes, each a process; leaving the context ends them all, by their ids.

    Parameters
    ----------
    root
        A folder for everything.
    nodes
        How many.
    """

    def __init__(self, root: Path, nodes: int) -> None:
        self.root, self.names = root, [f"n{number}" for number in range(nodes)]
        self.keys, self.items, self.port = root / "keys", root / "items.tsv", free_port()
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Federation:
        named = [word for name in self.names for word in ("--node", name)]
        hosts = [word for host in self.certified for word in ("--host", host)]
        self.command("federate", "keys", self.keys, *hosts, *named)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        nodes = [name for name in self.running if name != "server"]
        for name in nodes:  # before the server, which they would look for
            if self.running[name].poll() is None:
                self.running[name].send_signal(signal.SIGINT)
        for name in [*nodes, *(["server"] if "server" in self.running else [])]:
            self.end(name, told=name != "server")

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def certified(self) -> list[str]:
        """Names that the server's certificate is for."""
        return ["localhost"]

    @property
    def listening(self) -> list[str]:
        """Options that say where the server listens."""
        return []

    @property
    def node_address(self) -> str:
        """Where nodes find it."""
        return self.address

    def on(self, name: str) -> list[str]:
        """What a command begins with so that it runs on the host of the server or of a node."""
        return []

    @property
    def reached(self) -> list[str]:
        """Options of the server's commands."""
        return ["--keys", str(self.keys), "--server", self.address, "--wait", "240"]

    def node(self, name: str) -> Path:
        return self.root / name

    def deal(self, dataset: Dataset, choice: NodeChoice | None = None) -> None:
        """Make the nodes of a data set's users, dealt out in turn, and the list of its items."""
        write_items(dataset, self.items)
        users = dataset.interactions.active_users()
        for number, name in enumerate(self.names):
            stays = np.isin(dataset.interactions.users, users[number :: len(self.names)])
            NodeFolder.create(self.node(name), dataset.only(stays), choice or NodeChoice(draws="public"))

    def start_server(self) -> None:
        """Start it, and wait until it listens; one that was killed before takes a moment to leave its port."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with socket.socket() as door:
                door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    door.bind(("127.0.0.1", self.port))
                    break
                except OSError:
                    time.sleep(0.2)
        self.start("server", "federate", "server", "--keys", self.keys, "--port", self.port, *self.listening)
        self.wait_for("server", "listening")

    def start_node(self, name: str, *options: object, address: str | None = None) -> None:
        """Start a node, and wait until it is there."""
        key = ["--ca", self.keys / "ca.crt", "--key", self.keys / "nodes" / f"{name}.key"]
        self.start(
            name, "federate", "client", self.node(name), "--server", address or self.node_address, *key, *options
        )
        self.wait_for(name, "user(s), for the server")

    def start(self, name: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a command in the background; its stderr goes to a file."""
        log = (self.root / f"{name}.err").open("wb")
        words = [str(word) for word in arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RETRACT_KEY": str(self.root / "key.pem")}
        self.running[name] = subprocess.Popen(
            [*self.on(name), *COMMAND, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        return self.running[name]

    def told(self, name: str) -> str:
        """What a command has told on stderr so far."""
        return (self.root / f"{name}.err").read_text(errors="replace")

    def wait_for(self, name: str, text: str, seconds: float = 90.0) -> None:
        """Wait until a command tells something."""
        until = time.monotonic() + seconds
        while text not in self.told(name):
            if self.running[name].poll() is not None or time.monotonic() > until:
                raise AssertionError(f"{name} did not tell {text!r}: {self.told(name)}")
            time.sleep(0.1)

    def result(self, name: str, seconds: float = 600.0) -> dict[str, Any]:
        """What a background command with --json printed, once it has ended well."""
        process = self.running.pop(name)
        out, _ = process.communicate(timeout=seconds)
        assert process.returncode == 0, self.told(name)
        found: dict[str, Any] = json.loads(out)
        return found

    def command(
        self, *arguments: object, code: int = 0, seconds: float = 900.0, on: str = "server"
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, on the host of the server unless another is named."""
        words = [str(word) for word in arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "RETRACT_KEY": str(self.root / "key.pem")}
        done = subprocess.run(
            [*self.on(on), *COMMAND, *words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == code, f"{words}: code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def json(self, *arguments: object) -> dict[str, Any]:
        """The object that a command prints."""
        found: dict[str, Any] = json.loads(self.command(*arguments, "--json").stdout)
        return found

    def train(self, system: str, out: Path, settings: Mapping[str, object], *options: object) -> dict[str, Any]:
        """Train over the network."""
        given = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
        nodes = ["--nodes", len(self.names), "--items", self.items]
        return self.json("federate", "run", system, "--out", out, *given, *nodes, *self.reached, *options)

    def unlearn(self, out: Path, *options: object) -> dict[str, Any]:
        """Unlearn over the network."""
        return self.json("federate", "unlearn", out, "--nodes", len(self.names), *self.reached, *options)

    def kill(self, name: str) -> None:
        """Kill a command at once."""
        process = self.running.pop(name)
        process.kill()
        process.wait()

    def end(self, name: str, *, told: bool = False) -> None:
        """End a command as Ctrl-C does, which it may have been told already, and insist if it does not end."""
        process = self.running.pop(name)
        if not told and process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(ENDING)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def with_shared(dataset: Dataset, part: float, seed: int = 0) -> Dataset:
    """The data set, saying of every interaction whether it is shared: as users' nodes and one machine both read it."""
    from dataclasses import replace

    from retract.data import Sharing

    sharing = Sharing.by_ratio(dataset.interactions, part, seed)
    return replace(dataset, is_shared=sharing.shared.contains(dataset.interactions))
