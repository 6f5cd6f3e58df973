"""Where our processes meet Flower's programs: a run that a server's own process carries out, and a node's answers.

Both programs run with `--isolation process`: no code travels, and no program starts code that came over the network.
A server's process claims the run that it started; a node's process claims the messages to its users. What a run
carries along as its app is a name and nothing else.
"""

from __future__ import annotations

import hashlib
import io
import sys
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING

import httpx

from retract.errors import FederationError
from retract.federation.flower.messages import POLL
from retract.federation.flower.programs import Place

if TYPE_CHECKING:
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.protobuf.client import ProtobufClientInterceptor
    from flwr.supercore.runtime import RuntimeHttpClient

PATIENCE = 60.0
"""Seconds that a SuperLink may be away in the middle of a run."""
CLAIM = frozenset({"/flwr.proto.Runtime/AcquireTask"})
APP = """
[project]
name = "retract"
version = "1.0.0"
dependencies = []
[tool.flwr.app]
publisher = "retract"
[tool.flwr.app.components]
serverapp = "retract:nothing"
clientapp = "retract:nothing"
[tool.flwr.app.config]
"""


def register(place: Place, keys: Mapping[str, bytes]) -> list[str]:
    """Let nodes in by their public keys; those that are in already stay.

    Returns
    -------
    list of str
        Names of the nodes that are new.

    Raises
    ------
    FederationError
        If the SuperLink refuses one for another reason.
    """
    from flwr.proto.control_pb2 import RegisterNodeRequest

    client, new = _control(place), []
    try:
        for name, key in keys.items():
            try:
                client.RegisterNode(RegisterNodeRequest(public_key=key, name=name))
                new.append(name)
            except httpx.HTTPStatusError as error:
                if "already" not in error.response.text.lower():
                    raise FederationError(f"the SuperLink does not let in node {name}: {_told(error)}") from None
    finally:
        client.close()
    return new


@contextmanager
def run_of(place: Place, secret: bytes) -> Iterator[Grid]:
    """A run of the SuperLink at `place`, carried out by this process; gives its Grid.

    Parameters
    ----------
    secret
        `authority.RUNS_KEY`.

    Raises
    ------
    FederationError
        If the SuperLink cannot be reached or does not start the run, or another process claims it.
    """
    from flwr.common.constant import SubStatus
    from flwr.common.serde import run_from_proto
    from flwr.proto.runtime_pb2 import PullTaskInputRequest, PushTaskOutputRequest
    from flwr.supercore.task_identity import TaskIdentity
    from flwr.superlink.grid import HttpGrid

    try:
        token = _claimed(place, secret, _started(place))
        grid = HttpGrid(place.address, place.authority is None, _certificates(place), token=token)
        client: RuntimeHttpClient = grid._runtime_client
        told = client.PullTaskInput(PullTaskInputRequest())
    except httpx.HTTPError as error:
        raise FederationError(f"no run can be started at {place.address}: {_told(error)}; start the server") from None
    TaskIdentity.task_id, TaskIdentity.run_id = told.task_id, told.run.run_id
    TaskIdentity.node_id = told.context.node_id
    grid.set_run(run_from_proto(told.run))
    grid._retry_invoker.max_time = PATIENCE
    status, details = SubStatus.FAILED, "the server's process ended early"
    try:
        with _heartbeat(client):
            yield grid
        status, details = SubStatus.COMPLETED, ""
    except httpx.HTTPError as error:
        raise FederationError(f"the server at {place.address} is lost: {_told(error)}; start it again") from None
    finally:
        grid._retry_invoker.max_tries = 1
        with suppress(httpx.HTTPError):
            client.PushTaskOutput(PushTaskOutputRequest(sub_status=status, details=details))
        grid.close()


def answer_messages(app: ClientApp, port: int, secret: bytes, going: Callable[[], bool]) -> None:
    """Answer the messages that a SuperNode on this machine has; one at a time is worked on.

    Each is fetched in a thread of its own: of a message whose run has ended, a SuperNode keeps the name alone, and who
    fetches it waits for a long time.

    Parameters
    ----------
    port
        The SuperNode's own.
    secret
        As it was started with.
    going
        Whether to go on.
    """
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType

    address, working = f"127.0.0.1:{port}", Lock()
    client = _runtime(address, None, secret)
    try:
        while going():
            with suppress(httpx.HTTPError):
                found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP]))
                if found.token:
                    Thread(target=_answer, args=(app, address, found.token, working), daemon=True).start()
            time.sleep(POLL)
    finally:
        client.close()


def _answer(app: ClientApp, address: str, token: str, working: Lock) -> None:
    """Answer one message. What fails without a refusal is told as a failure, and nothing of its text."""
    from flwr.app import Error, Message
    from flwr.common.constant import ErrorCode, SubStatus
    from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

    client = _runtime(address, token, None)
    try:
        with _heartbeat(client):
            message, context, _, _ = pull_task_input(client)
            status, details = SubStatus.COMPLETED, ""
            try:
                with working:
                    reply = app(message=message, context=context)
            except Exception as error:  # the server is owed an answer, and must not read what is private in this one
                status, details = SubStatus.FAILED, f"the node failed ({type(error).__name__}): see its own log"
                reply = Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, details), reply_to=message)
                _log_failure()
            push_message(client, reply, context)
        push_task_output(client, context, status, details)
    except Exception:  # a node that is late, or whose SuperNode is gone, goes on
        _log_failure()
    finally:
        client.close()


@contextmanager
def _heartbeat(client: RuntimeHttpClient) -> Iterator[None]:
    """Say every few seconds that this process lives. Flower's own would interrupt it where that is not taken in."""
    from flwr.proto.runtime_pb2 import SendTaskHeartbeatRequest
    from flwr.supercore.heartbeat import HeartbeatSender

    def beat() -> bool:
        try:
            client.SendTaskHeartbeat(SendTaskHeartbeatRequest())
        except httpx.HTTPError:
            return False
        return True

    sender = HeartbeatSender(beat)
    sender.start()
    try:
        yield
    finally:
        if sender.is_running:
            sender.stop()


def _log_failure() -> None:
    """Tell the person beside the node, and nobody else."""
    traceback.print_exc(file=sys.stderr)


def _started(place: Place) -> int:
    """The id of a new run."""
    from flwr.common.serde import fab_to_proto
    from flwr.proto.control_pb2 import StartRunRequest
    from flwr.supercore.fab import Fab

    content = _app()
    client = _control(place)
    try:
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        return int(client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id)
    finally:
        client.close()


def _claimed(place: Place, secret: bytes, run: int, seconds: float = 30.0) -> str:
    """The token of a run's task; what others left unclaimed is passed over, and expires."""
    from flwr.proto.runtime_pb2 import AcquireTaskRequest
    from flwr.supercore.constant import TaskType

    client, until = _runtime(place.address, None, secret, place), time.monotonic() + seconds
    try:
        while time.monotonic() < until:
            found = client.AcquireTask(AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP]))
            if found.token and found.task.run_id == run:
                return str(found.token)
            time.sleep(POLL)
    finally:
        client.close()
    raise FederationError(f"the run at {place.address} was claimed by another process: let one alone work with it")


def _app() -> bytes:
    """What Flower takes for an app: a name, and no code. Nobody runs it."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as packed:
        packed.writestr(zipfile.ZipInfo("pyproject.toml", (2020, 1, 1, 0, 0, 0)), APP)
    return content.getvalue()


def _control(place: Place) -> ControlHttpClient:
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    version = RuntimeVersionHttpInterceptor(component_name="flwr CLI")
    return ControlHttpClient.from_server_address(
        place.address, place.authority is None, _certificates(place), [version]
    )


def _runtime(address: str, token: str | None, secret: bytes | None, place: Place | None = None) -> RuntimeHttpClient:
    """A client of a runtime door: with the token of a task, or with the secret by which tasks are claimed."""
    from flwr.supercore.interceptors import (
        RuntimeTokenHttpInterceptor,
        RuntimeVersionHttpInterceptor,
        SuperExecAuthHttpInterceptor,
    )
    from flwr.supercore.retry import make_simple_http_retry_invoker
    from flwr.supercore.runtime import RuntimeHttpClient

    name = "SuperExec" if token is None else "flwr-clientapp"
    interceptors: list[ProtobufClientInterceptor] = [RuntimeVersionHttpInterceptor(component_name=name)]
    if token is not None:
        interceptors.append(RuntimeTokenHttpInterceptor(token))
    if secret is not None:
        interceptors.append(SuperExecAuthHttpInterceptor(master_secret=secret, protected_methods=CLAIM))
    insecure = place is None or place.authority is None
    certificates = None if place is None else _certificates(place)
    retry = None if place is None and token is None else make_simple_http_retry_invoker()  # its caller tries again
    return RuntimeHttpClient.from_server_address(address, insecure, certificates, interceptors, retry_invoker=retry)


def _certificates(place: Place) -> bytes | None:
    return None if place.authority is None else Path(place.authority).read_bytes()


def _told(error: httpx.HTTPError) -> str:
    """An error in a few words."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"it answers {error.response.status_code}: {error.response.text[:200]}"
    return f"{type(error).__name__} {error}".strip()
