"""Flower's own programs, started with the settings that this project promises. Nothing here needs Flower itself."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import IO

from retract.errors import ConfigError, FederationError, FolderError, missing_extra
from retract.federation.flower.authority import AUTHORITY, RUNS_KEY, SERVER, SERVER_KEY

QUIET: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
"""Flower calls nobody beyond the federation, and installs nothing."""


@dataclass(frozen=True)
class Place:
    """Where a SuperLink is.

    Parameters
    ----------
    host, port
        Its address.
    authority
        The certificate of the authority that vouches for it; None where it has no TLS.

    Raises
    ------
    ConfigError
        If there is no TLS and the address is not one of this machine, or the port is none.
    FolderError
        If there is no such certificate.
    """

    host: str
    port: int
    authority: Path | None

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ConfigError(f"port is {self.port}: it must lie between 1 and 65535")
        if self.authority is None:
            require_loopback(self.host)
        elif not self.authority.is_file():
            raise FolderError(f"{self.authority} is missing: give the authority's certificate, {AUTHORITY} of the keys")

    @classmethod
    def of(cls, address: str, authority: Path | None) -> Place:
        """From HOST:PORT; errors as of the class.

        Raises
        ------
        ConfigError
            If the address is none.
        """
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"{address!r} is no address: give HOST:PORT, such as 127.0.0.1:8000")
        return cls(host.strip("[]"), int(port), authority)

    @property
    def address(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def require_trusted(self) -> None:
        """Refuse a server whose certificate is of another authority; one that cannot be reached yet is not refused.

        Raises
        ------
        FederationError
            If the certificate is not vouched for.
        """
        if self.authority is None:
            return
        try:
            trusted = ssl.create_default_context(cafile=str(self.authority))
            with (
                socket.create_connection((self.host, self.port), timeout=10) as plain,
                trusted.wrap_socket(plain, server_hostname=self.host),
            ):
                return
        except ssl.SSLCertVerificationError as error:
            raise FederationError(
                f"the certificate of {self.address} is not vouched for by {self.authority} ({error.verify_message}): "
                f"take the server's own {AUTHORITY}"
            ) from None
        except ssl.SSLError as error:
            raise FederationError(f"{self.address} speaks no TLS that {self.authority} fits: {error.reason}") from None
        except OSError:
            return


def require_loopback(host: str) -> None:
    """Refuse to go without TLS on an address that other machines reach.

    Raises
    ------
    ConfigError
        If it is one.
    """
    try:
        near = host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        near = False
    if not near:
        raise ConfigError(f"--insecure is for this machine alone, and {host} is reached by others: make keys, use TLS")


def require_flower() -> None:
    """Refuse to begin without Flower.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    if find_spec("flwr") is None:
        raise missing_extra("a federation over a network", "flower", "flwr")


def require_free(host: str, port: int) -> None:
    """Refuse a port that is in use.

    Raises
    ------
    ConfigError
        If it is.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            door.bind((host, port))
        except OSError as error:
            raise ConfigError(f"port {port} of {host} cannot be used ({error.strerror}): choose another") from None


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


def superlink(place: Place, keys: Path, database: Path, log: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Start a SuperLink on a place.

    Parameters
    ----------
    keys
        The federation's keys.
    database
        Where it keeps its state.
    log
        Where its log goes.
    """
    certificates = [
        *("--ssl-certfile", str(keys / SERVER)),
        *("--ssl-keyfile", str(keys / SERVER_KEY)),
        *("--ssl-ca-certfile", str(keys / AUTHORITY)),
        "--enable-supernode-auth",
    ]
    options = ["--insecure"] if place.authority is None else certificates
    options += ["--host", place.host, "--port", str(place.port), "--database", str(database)]
    options += ["--isolation", "process", "--superexec-auth-secret-file", str(keys / RUNS_KEY)]
    return _started("superlink", options, log)


def supernode(
    place: Place, key: Path | None, port: int, secret: Path, log: IO[bytes] | None = None
) -> subprocess.Popen[bytes]:
    """Start a SuperNode whose messages a process of ours answers.

    Parameters
    ----------
    place
        The SuperLink's.
    key
        The node's private key; None where there is no TLS.
    port
        On which this machine alone reaches the SuperNode.
    secret
        A file; who has it may answer.
    log
        Where its log goes.
    """
    options = ["--superlink", place.address, "--isolation", "process", "--port", str(port)]
    options += ["--superexec-auth-secret-file", str(secret)]
    if place.authority is None:
        options.append("--insecure")
    else:
        options += ["--root-certificates", str(place.authority), "--auth-supernode-private-key", str(key)]
    return _started("supernode", options, log)


def wait_for(process: subprocess.Popen[bytes], host: str, port: int, what: str, seconds: float = 60.0) -> None:
    """Wait until a program answers on its port.

    Raises
    ------
    FederationError
        If it ends before, or takes too long.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            raise FederationError(f"{what} ended at its start with code {process.returncode}: see its log")
        try:
            socket.create_connection((host, port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise FederationError(f"{what} does not answer on port {port} after {seconds:g} s: see its log")


def ended(process: subprocess.Popen[bytes], seconds: float = 10.0) -> None:
    """End a program: ask, and then insist."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _started(program: str, options: Sequence[str], log: IO[bytes] | None) -> subprocess.Popen[bytes]:
    require_flower()
    command = [sys.executable, "-m", f"retract.federation.flower.{program}", str(os.getpid()), *options]
    where = subprocess.DEVNULL if log is None else log
    return subprocess.Popen(command, env={**os.environ, **QUIET}, stdin=subprocess.DEVNULL, stdout=where, stderr=where)
