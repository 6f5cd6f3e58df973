"""A node of a federation: its users' data, what they keep of a training, what the server published, their requests.

```
NODE/node.json            the node's own secret, which draws its devices' negatives, and how they are drawn
NODE/devices/             what the users hold, what of it they share, and their state (see `device_folder`)
NODE/held_out/            what no model learns from, to judge it by
NODE/requests/            what users asked for (see `node_requests`)
NODE/published.json, published.safetensors     the server's model, to recommend by on the node
```

What a server learns of a node: the ids of the users whose data it holds, what these share, the sums that tasks answer,
and requests as far as they concern what is shared. Private interactions are in no answer.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retract.atomic import write_atomically
from retract.data import Catalog, Dataset, Interactions, Sharing, sharing_of
from retract.errors import DataError, FederationError, FolderError, PrivacyError
from retract.federation import TaskMakers, TaskSpec
from retract.federation.flower import answer_task
from retract.federation.wire import Parcel, codes_of, texts_of
from retract.stores.device_folder import FolderDevices
from retract.stores.held import Held, tables_bytes, tables_of
from retract.stores.judging_task import JUDGE, Judge
from retract.stores.learning import USUAL_TEST
from retract.stores.local import reader_of
from retract.stores.node_requests import Asked, Outbox, left_of
from retract.stores.reading import Opened, Recommendations
from retract.stores.recoding import recoded
from retract.stores.requests import Wish
from retract.systems.base import Memory, Trained
from retract.systems.registry import make_system

FACTS, DEVICES, HELD_OUT, REQUESTS = "node.json", "devices", "held_out", "requests"
PUBLISHED, TABLES = "published.json", "published.safetensors"
FORMAT = "retract node 1"
Draws = Literal["secret", "public"]
"""Whether a device's draws are keyed by a secret of the node too, or by the server's seed alone, as a simulation's."""


@dataclass(frozen=True)
class NodeChoice:
    """How a node is made of a data set.

    Parameters
    ----------
    share, test
        As of `learning.Choice`; where no column says what is shared, the users have to.
    draws
        "public" makes a node's answers those of a local simulation with the same seed; the server can then tell a
        user's negatives from the user's items, so it is for tests and simulations.
    seed
        Key of what `share` and `test` draw.
    """

    share: float | None = None
    test: float | None = None
    draws: Draws = "secret"
    seed: int = 0


class NodeFolder:
    """A node in a folder of its own (a `retract.federation.flower.Node`).

    One process alone answers for it; others may read it, and record requests.

    Parameters
    ----------
    path
        The folder.

    Raises
    ------
    FolderError
        If it is no node, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        try:
            facts = json.loads((self.path / FACTS).read_bytes())
            if facts["format"] != FORMAT:
                raise FolderError(f"{path} has format {facts['format']!r}, and this retract reads {FORMAT}")
            self.draws, self.secret = str(facts["draws"]), int(facts["secret"])
        except FileNotFoundError:
            raise FolderError(f"{path} is no node: `retract federate client --data FILE` makes one") from None
        except (ValueError, KeyError, TypeError):
            raise FolderError(f"{self.path / FACTS} is damaged: restore it") from None
        self.devices, self.held_out = (FolderDevices(self.path / name) for name in (DEVICES, HELD_OUT))
        self.outbox = Outbox(self.path / REQUESTS)

    @classmethod
    def create(cls, path: Path, dataset: Dataset, choice: NodeChoice) -> NodeFolder:
        """A node that holds a data set's users, and has met no server yet.

        Raises
        ------
        DataError
            If nobody has anything to train on.
        SharingError
            If nobody says what is shared, or a ratio lies outside [0, 1].
        FolderError
            If the folder holds anything.
        """
        if dataset.is_test is None and not choice.test:
            train, test = dataset.interactions, Interactions.empty(dataset.interactions.catalog)
        else:
            train, test = dataset.split(seed=choice.seed, test=choice.test or USUAL_TEST)
        if not len(train):
            raise DataError(f"{dataset.name}: no user has anything to train on")
        sharing = sharing_of(train, choice.share, dataset.shared, None, choice.seed)
        FolderDevices.create(path / DEVICES, sharing)
        FolderDevices.create(path / HELD_OUT, Sharing(Interactions.empty(train.catalog), test))
        facts = {"format": FORMAT, "draws": choice.draws, "secret": secrets.randbits(62)}
        write_atomically(path / FACTS, json.dumps(facts).encode())  # last: without it the folder is no node
        (path / FACTS).chmod(0o600)
        return cls(path)

    # --- what a server is answered ------------------------------------------------------------------------------------

    def answer(self, action: str, parcel: Parcel) -> Parcel:
        """Answer a server's message; see `Node`.

        Raises
        ------
        FederationError
            If the message is none that a node knows, or the server's items are not all of the node's.
        """
        answers = {"hello": self._hello, "codes": self._codes, "task": self._task}
        answers |= {"publish": self._publish, "settle": self._settle}
        if action not in answers:
            raise FederationError(f"it does not know the message {action!r}: update its retract")
        return answers[action](parcel)

    def _hello(self, parcel: Parcel) -> Parcel:
        """Apply what users asked for; the hosted users' ids, and those requests."""
        items, fields = texts_of(parcel.arrays["items"]), parcel.fields
        held = self.devices.interactions
        self._require_known(items)
        if not fields["learns_ratings"] and held.ratings is not None and (held.ratings <= 0).any():
            raise FederationError(
                f"it holds ratings of 0 or below, which are no likes, and {fields['system']} learns likes: make the "
                "node with --at-least-rating"
            )
        self._apply_requests()
        everything = fields["learns"] == "everything"
        told = [one.public for one in self.outbox.asked() if one.applied and (one.told or everything)]
        names = self.devices.sharing.shared.catalog.user_ids[self.devices.users].tolist()
        return Parcel({"users": names, "requests": told})

    def _codes(self, parcel: Parcel) -> Parcel:
        """Take the server's codes; what the users share, if it asks for that."""
        items = texts_of(parcel.arrays["items"])
        names, codes = texts_of(parcel.arrays["names"]), np.asarray(parcel.arrays["codes"], dtype=np.int64)
        n_users = int(parcel.fields["n_users"])
        self._require_known(items)
        hosted = self.devices.sharing.shared.catalog.user_ids[self.devices.users].tolist()
        if sorted(hosted) != sorted(names) or len(codes) != len(names) or len(set(codes.tolist())) != len(names):
            raise FederationError("the server gives codes to other users than those of this node: start again")
        if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < n_users:
            raise FederationError("the server gives codes beyond the number of its users")
        self._recode(items, dict(zip(names, codes.tolist(), strict=True)), n_users)
        if not parcel.fields["shared"]:
            return Parcel()
        shared = self.devices.sharing.shared
        columns: dict[str, NDArray[Any] | None] = {
            "user": codes_of(shared.users),
            "item": codes_of(shared.items),
            "rating": shared.ratings,
            "timestamp": shared.timestamps,
        }
        return Parcel({}, {name: column for name, column in columns.items() if column is not None})

    def _task(self, parcel: Parcel) -> Parcel:
        return answer_task(parcel, self.devices, self._tasks, seed=self._seed)

    def _publish(self, parcel: Parcel) -> Parcel:
        """Keep the server's model, and of older trainings nothing."""
        facts = {name: parcel.fields[name] for name in ("system", "settings", "seed", "run")}
        make_system(facts["system"], facts["settings"])
        write_atomically(self.path / TABLES, tables_bytes(parcel.arrays))
        write_atomically(self.path / PUBLISHED, json.dumps(facts).encode())
        self.devices.forget_runs(but=str(facts["run"]))
        return Parcel()

    def _settle(self, parcel: Parcel) -> Parcel:
        """Drop requests that the server's model has forgotten."""
        self.outbox.settle([str(id) for id in parcel.fields["requests"]])
        return Parcel()

    # --- what users do ------------------------------------------------------------------------------------------------

    @property
    def sharing(self) -> Sharing:
        """All that the node holds; what is held out counts as private."""
        sharing = self.devices.sharing
        held_out = recoded(self.held_out.interactions, sharing.shared.catalog)
        return Sharing(sharing.shared, sharing.private | held_out)

    def ask(self, wish: Wish) -> Asked:
        """Record what a user wishes; errors as of `Outbox.record`."""
        return self.outbox.record(wish, self.sharing)

    def leave(self) -> list[Asked]:
        """Record that all users of the node erase everything."""
        users = self.sharing.everything.active_users()
        names = self.devices.sharing.shared.catalog.user_ids[users].tolist()
        return [self.ask(Wish("erase", name)) for name in names]

    def lists(self, users: list[str], k: int | None = None) -> list[Recommendations]:
        """The best items for users of the node, by what the server published; errors as of `Opened.lists`.

        Raises
        ------
        FolderError
            If the server has published nothing yet.
        """
        sharing = self.devices.sharing
        test = recoded(self.held_out.interactions, sharing.shared.catalog)
        return Opened(Held(self.published(), self.devices.in_memory(), test)).lists(users, k)

    def published(self) -> Trained:
        """What the server published last; of what is shared, what this node's users share.

        Raises
        ------
        FolderError
            If that is nothing yet, or it is damaged.
        """
        try:
            facts = json.loads((self.path / PUBLISHED).read_bytes())
            config = make_system(facts["system"], facts["settings"]).config
            tables = tables_of((self.path / TABLES).read_bytes())
        except FileNotFoundError:
            raise FolderError(f"{self.path} has got no model yet: the server publishes it after training") from None
        except (ValueError, KeyError, TypeError):
            raise FolderError(f"{self.path / PUBLISHED} is damaged: restore it") from None
        shared = self.devices.sharing.shared
        return Trained(facts["system"], config, int(facts["seed"]), facts["run"], tables, Memory({}), shared)

    # --- how ----------------------------------------------------------------------------------------------------------

    def _tasks(self, spec: TaskSpec) -> TaskMakers:
        """What the node can do of a system: its client tasks, and judging the model that it got."""
        system = make_system(spec.system, spec.settings)
        return {**system.device.tasks, JUDGE: self._judge}

    def _judge(self, spec: TaskSpec) -> Judge:
        trained = self.published()
        if trained.run != spec.run:
            raise FederationError("it has got another model than the one that it is to judge: publish it again")
        sharing = self.devices.sharing
        model = reader_of(make_system(trained.system, trained.config.model_dump()), trained, self.devices.in_memory())
        return Judge(spec, model, sharing.everything, recoded(self.held_out.interactions, sharing.shared.catalog))

    def _seed(self, spec: TaskSpec, seed: int) -> int:
        """The key of the devices' draws: the server must not know it, or it could tell negatives from what is held.

        Raises
        ------
        PrivacyError
            If the task needs draws that are the same on every device.
        """
        if self.draws == "public":
            return seed
        task = self._tasks(spec).get(spec.task)
        if task is not None and spec.task != JUDGE and getattr(task(spec), "common_draws", False):
            raise PrivacyError(
                f"task {spec.task} of {spec.system} draws the same on every device, so that the server would know what "
                "a node draws: it runs in simulations alone (--draws public)"
            )
        return seed ^ self.secret

    def _require_known(self, items: list[str]) -> None:
        """Refuse a server whose catalog lacks items of this node; which ones is told to nobody but the node's log."""
        own, known = self.sharing, set(items)
        names = own.shared.catalog.item_ids[np.unique(own.everything.items)].tolist()
        if unknown := [name for name in names if name not in known]:
            _tell(f"{len(unknown):,} item(s) of this node are not in the server's catalog: {', '.join(unknown[:10])}")
            raise FederationError(
                "it holds items that the server's catalog lacks (its own log names them): add them to --items, or "
                "leave them out of its data"
            )

    def _apply_requests(self) -> None:
        """Withdraw what users asked for from what the node holds."""
        for asked in self.outbox.asked():
            if asked.applied:
                continue
            asked = self.outbox.looked_at(asked, self.devices.sharing.shared)
            named = left_of(asked, self.devices.interactions)
            if asked.kind == "unshare":
                named = left_of(asked, self.devices.sharing.shared)
            if len(named):
                (self.devices.unshare if asked.kind == "unshare" else self.devices.erase)(named)
            if asked.kind == "erase" and len(tested := left_of(asked, self.held_out.interactions)):
                self.held_out.erase(tested)
            self.outbox.done(asked)

    def _recode(self, items: list[str], codes: Mapping[str, int], n_users: int) -> None:
        """Hold everything under the server's codes; devices whose codes stay keep their state."""
        names = np.zeros(n_users, dtype=f"<U{max([1, *(len(name) for name in codes)])}")
        for name, code in codes.items():
            names[code] = name
        held = self.devices.sharing.shared.catalog
        titles = None if held.titles is None else _titles(held, items)
        catalog = Catalog(names, np.array(items, dtype=np.str_), titles)
        if not self.devices.sharing.shared.catalog.same_as(catalog):
            self.devices.recode(catalog)
        if not self.held_out.sharing.shared.catalog.same_as(catalog):
            self.held_out.recode(catalog)


def _titles(held: Catalog, items: list[str]) -> NDArray[np.str_]:
    """Titles of the server's items, as far as the node has them; else their ids."""
    own = {name: held.title(code) for code, name in enumerate(held.item_ids.tolist())}
    return np.array([own.get(name, name) for name in items], dtype=np.str_)


def _tell(line: str) -> None:
    """Tell the person beside the node, and nobody else."""
    sys.stderr.write(f"note: {line}\n")
