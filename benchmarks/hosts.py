"""Network namespaces as hosts: a server and nodes that reach nothing but each other."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from benchmarks.federations import Federation

NETWORK = "10.77.0"
SERVER = f"{NETWORK}.1"


def why_not() -> str | None:
    """Why namespaces cannot be made here; None where they can."""
    if shutil.which("ip") is None:
        return "there is no ip command"
    name = f"retract-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"network namespaces cannot be made: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return None


class Hosts(Federation):
    """A federation of which the server and every node is a host of its own, all on one bridge and on no other network.

    The server's commands run on its host, as `retract federate run` has to.
    """

    def __init__(self, root: Path, nodes: int) -> None:
        super().__init__(root, nodes)
        self.mark = f"rt{os.getpid()}"

    @property
    def certified(self) -> list[str]:
        return ["localhost", SERVER]

    @property
    def listening(self) -> list[str]:
        return ["--host", "0.0.0.0"]

    @property
    def node_address(self) -> str:
        return f"{SERVER}:{self.port}"

    def on(self, name: str) -> list[str]:
        host = name if name in self.names else "server"
        return ["ip", "netns", "exec", f"{self.mark}-{host}"]

    def __enter__(self) -> Hosts:
        for name in ("server", *self.names):
            _ip("netns", "add", f"{self.mark}-{name}")
            _ip("-n", f"{self.mark}-{name}", "link", "set", "lo", "up")
        middle = f"{self.mark}-server"
        _ip("-n", middle, "link", "add", "br0", "type", "bridge")
        _ip("-n", middle, "addr", "add", f"{SERVER}/24", "dev", "br0")
        _ip("-n", middle, "link", "set", "br0", "up")
        for number, name in enumerate(self.names):
            host = f"{self.mark}-{name}"
            _ip("-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", f"to-{name}", "netns", middle)
            _ip("-n", middle, "link", "set", f"to-{name}", "master", "br0", "up")
            _ip("-n", host, "addr", "add", f"{NETWORK}.{number + 2}/24", "dev", "eth0")
            _ip("-n", host, "link", "set", "eth0", "up")
        super().__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        for name in (*self.names, "server"):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", f"{self.mark}-{name}")


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
