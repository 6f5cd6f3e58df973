"""Flower's SuperLink, as a process that ends with its starter and shows other machines nothing but its fleet door.

Its one port serves nodes (`/v1/fleet`), and also who starts runs and registers nodes (`/v1/control`) and who carries
them out (`/v1/runtime`). The control door asks for no password in Flower 1.41: whoever reached it could let in nodes
of his own. So both are shut to every other machine.

python -m retract.federation.flower.superlink PARENT_PID [Flower's options]
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from ipaddress import ip_address
from typing import Any

Scope = MutableMapping[str, Any]
OPEN = ("/v1/fleet/", "/health")
"""What other machines may call."""


class FleetAlone:
    """Middleware that answers other machines 404 beside the fleet door.

    Parameters
    ----------
    app
        What comes after.
    """

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """Pass on what is allowed."""
        if scope["type"] == "lifespan" or is_near(scope) or str(scope.get("path", "")).startswith(OPEN):
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})


def is_near(scope: Scope) -> bool:
    """Whether a request comes from this machine itself."""
    client = scope.get("client")
    try:
        return client is not None and ip_address(client[0]).is_loopback
    except ValueError:
        return False


def main(arguments: list[str]) -> None:
    """Run the SuperLink until it is ended, or its parent has."""
    from flwr.supercore.app_utils import start_parent_process_monitor
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink
    from starlette.middleware import Middleware

    start_parent_process_monitor(int(arguments[0]))
    given = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(FleetAlone), *given())
    sys.argv = ["flower-superlink", *arguments[1:]]
    flower_superlink()


if __name__ == "__main__":
    main(sys.argv[1:])
