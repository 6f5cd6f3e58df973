"""Who sees what: each user's interactions, parted into shared (the server holds them) and private."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from retract import streams
from retract.data.catalog import Catalog
from retract.data.interactions import Interactions
from retract.errors import ConfigError, SharingError


@dataclass(frozen=True)
class Sharing:
    """All interactions and which of them are shared. Lives beside the data's owners, never on a server.

    Parameters
    ----------
    shared
        What the server may hold.
    private
        What stays with the users; disjoint from `shared`.
    client_of
        The client that holds each user's data, numbered from 0, int64, shape [n_users]; None where every user is one.
    """

    shared: Interactions
    private: Interactions
    client_of: NDArray[np.int64] | None = field(default=None, compare=False)

    @classmethod
    def by_ratio(cls, interactions: Interactions, ratio: ArrayLike, seed: int = 0) -> Sharing:
        """Every user shares a random part of the own interactions, rounded to whole ones.

        The parts are nested: what is shared at 0.25 is also shared at 0.5, so that only the amount differs.

        Parameters
        ----------
        ratio
            One number in [0, 1], or one per user of the catalog, shape [n_users].

        Raises
        ------
        SharingError
            If a ratio lies outside [0, 1], or there is neither one nor one per user.
        """
        ratios = np.asarray(ratio, dtype=np.float64)
        if ratios.ndim > 1 or (ratios.ndim == 1 and len(ratios) != interactions.n_users):
            raise SharingError(f"give one share ratio, or one for each of the {interactions.n_users} users")
        ratios = np.broadcast_to(ratios, interactions.n_users)
        bad = ~((ratios >= 0) & (ratios <= 1))
        if bad.any():
            raise SharingError(f"share ratio {ratios[bad][0]:g} lies outside [0, 1]")
        order = streams.bits(seed, 0, interactions.users, "sharing", interactions.items)
        by_user = np.lexsort((order, interactions.users))
        rank = np.empty(len(interactions), dtype=np.int64)
        rank[by_user] = np.arange(len(interactions)) - interactions.indptr[interactions.users]
        quota = np.rint(ratios * interactions.user_degrees())
        return cls.by_mask(interactions, rank < quota[interactions.users])

    @classmethod
    def by_mask(cls, interactions: Interactions, shared: NDArray[np.bool_]) -> Sharing:
        """Explicit choice: `shared[n]` says whether the n-th interaction is shared.

        Raises
        ------
        SharingError
            If `shared` is not one truth value per interaction; numbers would pick other interactions than were meant.
        """
        if shared.dtype != np.bool_ or shared.shape != (len(interactions),):
            raise SharingError(
                f"the mask holds {shared.dtype} in shape {shared.shape}: give True or False for each of the "
                f"{len(interactions)} interactions"
            )
        return cls(interactions.where(shared), interactions.where(~shared))

    def held_by(self, n_clients: int, seed: int = 0) -> Sharing:
        """The same, the users dealt among `n_clients` at random: organisations, each with many users.

        Raises
        ------
        ConfigError
            If `n_clients` lies outside [1, number of users].
        """
        n_users = self.shared.n_users
        if not 1 <= n_clients <= n_users:
            raise ConfigError(f"clients is {n_clients}: it must lie between 1 and the {n_users} users")
        order = np.argsort(streams.bits(seed, 0, np.arange(n_users), "client"))
        client_of = np.empty(n_users, dtype=np.int64)
        client_of[order] = np.arange(n_users) % n_clients
        return replace(self, client_of=client_of)

    def over(self, catalog: Catalog) -> Sharing:
        """The same over a catalog that appends to this one's; new users are clients of their own."""
        shared, private, client_of = self.shared.over(catalog), self.private.over(catalog), self.client_of
        if client_of is not None:
            more = catalog.n_users - len(client_of)
            client_of = np.concatenate([client_of, client_of.max(initial=-1) + 1 + np.arange(more)])
        return Sharing(shared, private, client_of)

    @cached_property
    def everything(self) -> Interactions:
        """Shared and private together."""
        return self.shared | self.private

    def ratio(self, user: int) -> float:
        """The part of a user's interactions that is shared; 0 for a user without any."""
        shared, private = len(self.shared.items_of(user)), len(self.private.items_of(user))
        return shared / max(shared + private, 1)

    def unshare(self, forget: Interactions) -> Sharing:
        """Move `forget` from shared to private.

        Raises
        ------
        SharingError
            If something in `forget` is not shared, per item; nothing is applied.
        """
        _require(self.shared, forget, "is not shared, so it cannot be unshared")
        taken = self.shared & forget
        return replace(self, shared=self.shared - forget, private=self.private | taken)

    def erase(self, forget: Interactions) -> Sharing:
        """Drop `forget` wherever it is.

        Raises
        ------
        SharingError
            If something in `forget` is in neither place, per item; nothing is applied.
        """
        _require(self.everything, forget, "is not held, so it cannot be erased")
        return replace(self, shared=self.shared - forget, private=self.private - forget)


def sharing_of(
    interactions: Interactions,
    share: float | None,
    said: Interactions | None,
    usual: float | None,
    seed: int = 0,
) -> Sharing:
    """What of some interactions is shared: a ratio of them, else what the data says, else a usual ratio of them.

    Parameters
    ----------
    share
        The ratio, in [0, 1]; None where nobody gives one.
    said
        What the data says is shared, over the same catalog; None where it says nothing.
    usual
        The usual ratio; None where there is none, and somebody has to say it.
    seed
        Key of what is drawn by a ratio.

    Raises
    ------
    SharingError
        If the ratio lies outside [0, 1], or nobody says what is shared.
    """
    if share is None and said is not None:
        return Sharing.by_mask(interactions, said.contains(interactions))
    ratio = usual if share is None else share
    if ratio is None:
        raise SharingError(
            "what is shared is for the users to choose: give a share, such as --share 0.5, or a column named shared"
        )
    return Sharing.by_ratio(interactions, ratio, seed)


def _require(held: Interactions, forget: Interactions, complaint: str, show: int = 5) -> None:
    missing = forget.where(~held.contains(forget))
    if len(missing):
        catalog = missing.catalog
        named = ", ".join(
            f"item {catalog.item_ids[item]} of user {catalog.user_ids[user]}"
            for user, item in zip(missing.users[:show], missing.items[:show], strict=True)
        )
        more = f" and {len(missing) - show} more" if len(missing) > show else ""
        raise SharingError(f"{named}{more} {complaint}; nothing was applied")
