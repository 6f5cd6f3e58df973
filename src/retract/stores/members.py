"""Who takes part in a federation, as its server knows them: codes of users and items, and whose data lies where.

```
DIR/server/federation.json    items and titles, ids of users by code, and the users of each node by its key
```
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from retract.atomic import write_atomically
from retract.data import Catalog
from retract.data.ids import sorted_ids
from retract.errors import DataError, FolderError
from retract.federation.wire import NUMBERED
from retract.stores.versions import MEMBERS, SERVER

NO_ITEMS = "name the items that users may hold: --items FILE, one id a line, and after a tab its title"


@dataclass(frozen=True)
class Members:
    """Users, items and nodes of a federation.

    Parameters
    ----------
    catalog
        Their ids; a user keeps its code for good.
    hosts
        By the key of a node, ids of the users whose data it holds.
    """

    catalog: Catalog
    hosts: Mapping[str, tuple[str, ...]]

    @classmethod
    def at(cls, folder: Path) -> Members | None:
        """Those of a trained folder; None where it knows none yet.

        Raises
        ------
        FolderError
            If they are damaged.
        """
        path = folder / SERVER / MEMBERS
        try:
            told = json.loads(path.read_bytes())
            titles = None if told["titles"] is None else np.array(told["titles"], dtype=np.str_)
            users, items = (np.array(told[name], dtype=np.str_) for name in ("users", "items"))
            return cls(Catalog(users, items, titles), {key: tuple(own) for key, own in told["hosts"].items()})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise FolderError(f"{path} is damaged: restore it") from None

    @classmethod
    def of_items(cls, path: Path) -> Members:
        """Nobody yet, over the items that a file names: one id a line, and after a tab its title.

        Raises
        ------
        DataError
            If it names none, one twice, or is no text.
        """
        try:
            lines = [line.rstrip("\r") for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        except UnicodeDecodeError:
            raise DataError(f"{path} is no text in UTF-8: {NO_ITEMS}") from None
        names = [line.split("\t")[0].strip() for line in lines]
        if not names or len(set(names)) < len(names) or not all(names):
            again = next((name for number, name in enumerate(names) if name in names[:number]), "")
            raise DataError(f"{path} names {f'item {again!r} twice' if again else 'no item'}: {NO_ITEMS}")
        titles = None
        if any("\t" in line for line in lines):
            titles = np.array([[*line.split("\t"), name][1] for line, name in zip(lines, names, strict=True)])
        return cls(Catalog(np.empty(0, dtype="<U1"), np.array(names, dtype=np.str_), titles), {})

    def with_node(self, key: str, users: Sequence[str]) -> Members:
        """With a node that holds the data of these users."""
        return replace(self, hosts={**self.hosts, key: tuple(users)})

    def among(self, present: Iterable[str]) -> Members:
        """Without nodes that have no key and are not here: the number that they go by is theirs while connected."""
        here = set(present)
        hosts = {key: own for key, own in self.hosts.items() if key in here or not key.startswith(NUMBERED)}
        return replace(self, hosts=hosts)

    def with_codes(self) -> Members:
        """With codes for all users of nodes: new ones get the next, in the order that a data set has."""
        known = set(self.catalog.known_users)
        new = sorted_ids(name for own in self.hosts.values() for name in own if name not in known)
        if not new:
            return self
        more = Catalog(np.array(new), self.catalog.item_ids, self.catalog.titles)
        return replace(self, catalog=self.catalog.extended_by(more))

    def elsewhere(self, key: str, users: Sequence[str]) -> list[str]:
        """Those of `users` whose data another node holds."""
        others = {name for other, own in self.hosts.items() if other != key for name in own}
        return [name for name in users if name in others]

    def over(self, catalog: Catalog) -> Members:
        """Without the names of users who are gone."""
        known = set(catalog.known_users)
        hosts = {key: tuple(name for name in own if name in known) for key, own in self.hosts.items()}
        return replace(self, catalog=catalog, hosts=hosts)

    def keep(self, folder: Path) -> None:
        """Write them into a trained folder."""
        catalog = self.catalog
        titles = None if catalog.titles is None else catalog.titles.tolist()
        told = {"users": catalog.user_ids.tolist(), "items": catalog.item_ids.tolist(), "titles": titles}
        content = json.dumps({**told, "hosts": {key: list(users) for key, users in self.hosts.items()}})
        write_atomically(folder / SERVER / MEMBERS, content.encode())
