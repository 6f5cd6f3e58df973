"""Forget sets by name: whose interactions an experiment withdraws.

| text | what |
|---|---|
| `random:0.05` | this part of all interactions that can be withdrawn |
| `users:0.1` | everything of this part of the users |
| `core:0.1` | … of the best-connected users (CURE4Rec, NeurIPS 2024) |
| `edge:0.1` | … of the least connected ones |
| `canary:2000` | so many random edges, planted before training: no taste explains them, only memory |
| `unlikely:2000` | so many of the edges that a model of the clean data finds least likely, planted likewise |
| `file:PATH` | the pairs in a file of users and items |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.auditing.unlikely import unlikely_edges
from retract.data import Interactions, Sharing, load
from retract.errors import ConfigError, DataError
from retract.systems.base import Kind

Form = Literal["random", "users", "core", "edge", "canary", "unlikely", "file"]
PLANTED = ("canary", "unlikely")
"""Forms whose edges are planted before training."""


@dataclass(frozen=True)
class ForgetSet:
    """A forget set, as it was asked for.

    Parameters
    ----------
    form
        How it is drawn.
    amount
        The part, or how many edges are planted.
    path
        Of a file.
    """

    form: Form
    amount: float = 0.0
    path: Path | None = None

    @classmethod
    def parse(cls, text: str) -> ForgetSet:
        """From text, such as `users:0.1`.

        Raises
        ------
        ConfigError
            If it is none, or its amount lies outside its range.
        """
        form, _, rest = text.partition(":")
        if form not in get_args(Form) or not rest:
            known = "random:F, users:F, core:F, edge:F, canary:N, unlikely:N, file:PATH"
            raise ConfigError(f"forget set {text!r} is none of {known}")
        if form == "file":
            return cls("file", path=Path(rest))
        try:
            amount = float(rest)
        except ValueError:
            raise ConfigError(f"forget set {text!r}: {rest!r} is not a number") from None
        if form in PLANTED:
            if not (amount >= 1 and amount.is_integer()):
                raise ConfigError(f"forget set {text!r}: plant a whole number of edges, at least 1")
        elif not 0 < amount < 1:
            raise ConfigError(f"forget set {text!r}: the part must lie between 0 and 1, both excluded")
        return cls(form, amount)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"file:{self.path}" if self.form == "file" else f"{self.form}:{self.amount:g}"

    @property
    def is_planted(self) -> bool:
        """Whether what is to be forgotten is planted before training."""
        return self.form in PLANTED

    def planted(self, sharing: Sharing, avoid: Interactions, seed: int) -> Sharing:
        """What training gets: `sharing`, and the planted edges if these are what is to be forgotten.

        Parameters
        ----------
        avoid
            Interactions that no planted edge may be, beside all that is held.
        """
        if not self.is_planted:
            return sharing
        if self.form == "unlikely":
            edges, _ = self._unlikely(sharing, avoid, seed)
        else:
            edges = self._canaries(sharing.everything, avoid, seed)
        return replace(sharing, shared=sharing.shared | edges)

    def decoys(self, sharing: Sharing, avoid: Interactions, seed: int) -> Interactions:
        """Non-members to tell what `planted` plants from, as many for each user; none where popularity will do."""
        if self.form != "unlikely":
            return Interactions.empty(sharing.shared.catalog)
        return self._unlikely(sharing, avoid, seed)[1]

    def drawn(self, sharing: Sharing, before: Sharing, kind: Kind, seed: int) -> Interactions:
        """What is withdrawn.

        Parameters
        ----------
        sharing
            From `planted`.
        before
            What it was planted in.
        kind
            "unshare" withdraws from what is shared, "erase" from everything.

        Raises
        ------
        ConfigError
            If there is nothing to withdraw.
        DataError
            If a file names what the data does not hold.
        """
        within = sharing.shared if kind == "unshare" else sharing.everything
        if self.is_planted:
            forget = sharing.shared - before.everything
        elif self.form == "file":
            forget = self._from_file(within, kind)
        elif self.form == "random":
            draw = streams.uniform(seed, 0, within.users, "forget set", within.items)
            forget = within.where(draw < np.quantile(draw, self.amount)) if len(within) else within
        else:
            forget = within.of_users(self._users(within, seed))
        if not len(forget):
            raise ConfigError(f"the forget set {self} is empty: share more, or take a larger part")
        return forget

    def _users(self, within: Interactions, seed: int) -> NDArray[np.int64]:
        users = within.active_users()
        order = streams.bits(seed, 0, users, "forget set")
        degrees = within.user_degrees()[users] * {"users": 0, "core": -1, "edge": 1}[self.form]
        chosen: NDArray[np.int64] = users[np.lexsort((order, degrees))[: max(1, round(self.amount * len(users)))]]
        return chosen

    def _unlikely(self, sharing: Sharing, avoid: Interactions, seed: int) -> tuple[Interactions, Interactions]:
        return unlikely_edges(sharing.shared, sharing.everything | avoid, int(self.amount), seed)

    def _canaries(self, held: Interactions, avoid: Interactions, seed: int) -> Interactions:
        users, taken = held.active_users(), held | avoid
        free = len(users) * held.n_items - len(taken)
        if self.amount > free / 2:
            raise ConfigError(
                f"{self}: only {free:,} pairs of a user and an item are free, which are too few to hide in"
            )
        found = Interactions.empty(held.catalog)
        attempt, wanted = 0, int(self.amount)
        while len(found) < wanted:
            counter = np.arange(2 * wanted)
            user = users[streams.below(len(users), seed, attempt, 0, "canary user", counter)]
            item = streams.below(held.n_items, seed, attempt, 0, "canary item", counter)
            found = found | (Interactions.of(held.catalog, user, item) - taken)
            attempt += 1
        order = np.argsort(streams.bits(seed, 0, found.users, "canary", found.items))
        keep = np.zeros(len(found), dtype=np.bool_)
        keep[order[:wanted]] = True
        return found.where(keep)

    def _from_file(self, within: Interactions, kind: Kind) -> Interactions:
        assert self.path is not None
        named, catalog = load(self.path).interactions, within.catalog
        users = np.array([catalog.user(name) for name in named.catalog.user_ids.tolist()], dtype=np.int64)
        items = catalog.items(named.catalog.item_ids.tolist())
        forget = Interactions.of(catalog, users[named.users], items[named.items])
        missing = forget - within
        if len(missing):
            pair = f"user {catalog.user_ids[missing.users[0]]}, item {catalog.item_ids[missing.items[0]]}"
            where = "shared" if kind == "unshare" else "in the training part"
            raise DataError(f"{self.path}: {len(missing):,} of {len(forget):,} pairs are not {where}, such as {pair}")
        return within & forget
