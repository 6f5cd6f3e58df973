"""What users asked of their own node: kept there until the server's model has forgotten it.

```
NODE/requests/ID.json     kind, user, items; and once the node has applied it, those of the items that the server holds
```

Whoever asks writes a file and is done. The node's process applies it the next time that a server speaks to it: what is
erased is gone from the node then, and the server is told of the shared items alone.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retract.atomic import write_atomically
from retract.data import Interactions, Sharing
from retract.errors import FolderError
from retract.stores.ledger import Kind, Request
from retract.stores.requests import Wish, Withdrawable


@dataclass(frozen=True)
class Asked:
    """What a user asked of the node.

    Parameters
    ----------
    id, kind, user, received
        As of `Request`.
    items
        Original ids of all items; empty once the server has been told.
    told
        Those of them that the server holds; None until the node has looked.
    applied
        Whether the node's own data is without them.
    """

    id: str
    kind: Kind
    user: str
    received: str
    items: tuple[str, ...]
    told: tuple[str, ...] | None = None
    applied: bool = False

    @property
    def public(self) -> dict[str, object]:
        """What the server is told."""
        return {"id": self.id, "kind": self.kind, "user": self.user, "items": list(self.told or ())}


class Outbox:
    """A node's requests.

    Parameters
    ----------
    root
        Their folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def asked(self) -> list[Asked]:
        """All that the server's model has not forgotten yet, in the order received.

        Raises
        ------
        FolderError
            If one is damaged.
        """
        found = []
        for path in self.root.glob("[!.]*.json"):
            try:
                fields = json.loads(path.read_bytes())
                told = fields.pop("told")
                items = tuple(fields.pop("items"))
                found.append(Asked(**fields, items=items, told=None if told is None else tuple(told)))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise FolderError(f"{path} is damaged: restore it") from None
        return sorted(found, key=lambda one: (one.received, one.id))

    def record(self, wish: Wish, sharing: Sharing) -> Asked:
        """Record what a user wishes.

        Parameters
        ----------
        sharing
            All that the node holds; what is held out for testing counts as private.

        Raises
        ------
        UnknownIdError
            If the node knows no such user or item.
        SharingError
            If something is not there to be withdrawn, or nothing is left.
        """
        names = sharing.shared.catalog.item_ids
        pending = [(_request(one), codes_of(sharing, one)) for one in self.asked() if not one.applied]
        chosen = Withdrawable(sharing, pending).chosen(wish)
        request = Request.of(wish.kind, wish.user, len(chosen), ())
        asked = Asked(request.id, wish.kind, wish.user, request.received, tuple(names[chosen].tolist()))
        self.write(asked)
        return asked

    def write(self, asked: Asked) -> None:
        """Keep a request as it stands now."""
        write_atomically(self.root / f"{asked.id}.json", json.dumps(asdict(asked)).encode())

    def settle(self, ids: list[str]) -> None:
        """Drop what the server's model has forgotten."""
        known = {one.id for one in self.asked() if one.applied}
        for id in known.intersection(ids):
            (self.root / f"{id}.json").unlink(missing_ok=True)

    def looked_at(self, asked: Asked, shared: Interactions) -> Asked:
        """A request of which it is known what the server holds of it; kept before anything is withdrawn."""
        if asked.told is not None:
            return asked
        named = _interactions(shared, asked)
        told = shared.catalog.item_ids[(named & shared).items].tolist()
        found = replace(asked, told=tuple(told))
        self.write(found)
        return found

    def done(self, asked: Asked) -> None:
        """Note that the node's own data is without it."""
        self.write(replace(asked, applied=True, items=()))


def left_of(asked: Asked, held: Interactions) -> Interactions:
    """What a request names of what is still held: a kill may have come after a part of it was withdrawn."""
    return _interactions(held, asked) & held


def codes_of(sharing: Sharing, asked: Asked) -> NDArray[np.int64]:
    """The codes of a request's items."""
    return sharing.shared.catalog.items(asked.items)


def _interactions(held: Interactions, asked: Asked) -> Interactions:
    """What a request names, as far as the catalog knows it."""
    catalog = held.catalog
    if asked.user not in catalog.known_users:
        return Interactions.empty(catalog)
    names = np.array(asked.items, dtype=np.str_)
    items = catalog.items(names[np.isin(names, catalog.item_ids)].tolist())
    return Interactions.of(catalog, np.full(len(items), catalog.user(asked.user)), items)


def _request(asked: Asked) -> Request:
    """As the pending ones of a folder are."""
    return Request(asked.id, asked.kind, asked.user, len(asked.items), asked.items, asked.received)
