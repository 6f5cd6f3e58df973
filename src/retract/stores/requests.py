"""Requests: choosing what a user withdraws, and recording it until it is applied. The model is not loaded for that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions, Sharing
from retract.errors import SharingError, UnknownIdError
from retract.stores.folder import TrainedFolder
from retract.stores.held import PRIVATE, TEST, interactions_of, read_shared
from retract.stores.ledger import Kind, Request
from retract.stores.versions import Version


@dataclass(frozen=True)
class Wish:
    """What a user asks for.

    Parameters
    ----------
    kind, user
        "unshare" or "erase"; the original id.
    items
        Original item ids. Without them and without `fraction`: everything.
    fraction
        A random part, in (0, 1], of what the user shares ("unshare") or of all that is held ("erase"), at least one.
    seed
        Key of the random part.

    Raises
    ------
    SharingError
        If the fraction lies outside (0, 1].
    """

    kind: Kind
    user: str
    items: Sequence[str] | None = None
    fraction: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.fraction is not None and not 0 < self.fraction <= 1:
            raise SharingError(f"fraction {self.fraction:g} lies outside (0, 1]")


@dataclass(frozen=True)
class Withdrawable:
    """What can be withdrawn, as far as it can be known of here.

    Parameters
    ----------
    sharing
        What is shared; as private all else that the devices hold, what is held out for testing included.
    pending
        What was asked for already and not yet applied, by request: codes of its items.
    """

    sharing: Sharing
    pending: Sequence[tuple[Request, NDArray[np.int64]]]

    def chosen(self, wish: Wish) -> NDArray[np.int64]:
        """The items that a wish names, checked; ascending.

        Raises
        ------
        UnknownIdError
            If the user or an item is unknown.
        SharingError
            If an item is not there to be withdrawn or is so already, named per item, or if nothing is left.
        """
        catalog = self.sharing.shared.catalog
        code, pending = catalog.user(wish.user), self._pending_items(wish)
        if wish.items is None:
            within = self.sharing.shared if wish.kind == "unshare" else self.sharing.everything
            chosen = _part(within.items_of(code), pending, wish.fraction, wish.seed, code)
        else:
            chosen = np.unique(catalog.items(wish.items))
            forget = Interactions.of(catalog, np.full(len(chosen), code), chosen)
            _ = self.sharing.unshare(forget) if wish.kind == "unshare" else self.sharing.erase(forget)  # may refuse
            if len(again := catalog.item_ids[np.intersect1d(chosen, pending)]):
                raise SharingError(
                    f"already pending for user {wish.user}: item {', '.join(again)}; nothing was recorded"
                )
        if not len(chosen):
            besides = " that is not pending already" if len(pending) else ""
            raise SharingError(f"user {wish.user!r} has nothing left to {wish.kind}{besides}; nothing was recorded")
        return chosen

    def _pending_items(self, wish: Wish) -> NDArray[np.int64]:
        """The items that need not be asked for again: an erasure covers an unsharing, not the other way round."""
        covering = {"erase"} if wish.kind == "erase" else {"erase", "unshare"}
        asked = [items for one, items in self.pending if one.user == wish.user and one.kind in covering]
        return np.concatenate([np.empty(0, dtype=np.int64), *asked])


def add_request(folder: TrainedFolder, wish: Wish, key: str | None = None) -> tuple[Request, int]:
    """Record what a user wants withdrawn, until it is applied.

    Parameters
    ----------
    key
        The caller's own, for a call that may be repeated; see `Ledger.append`.

    Returns
    -------
    request, pending
        The request, and how many are pending now.

    Raises
    ------
    UnknownIdError
        If the user or an item is unknown; the message names the nearest known ids.
    SharingError
        If an item is not there to be withdrawn or is so already, named per item; nothing is recorded.
    """
    with folder.asking():  # of two who ask for the same at once, one is told that it is pending
        if key is not None and (known := folder.ledger.by_key(key)) is not None:
            return _same_wish(known, wish, key), _count(folder)
        available = withdrawable(folder)
        chosen, shared = available.chosen(wish), available.sharing.shared
        code, names = shared.catalog.user(wish.user), shared.catalog.item_ids
        held = np.isin(chosen, shared.items_of(code))
        request = Request.of(wish.kind, wish.user, len(chosen), names[chosen[held]].tolist())
        return folder.inbox.record(request, names[chosen[~held]].tolist(), key), _count(folder)


def withdrawable(folder: TrainedFolder) -> Withdrawable:
    """What can be withdrawn from a trained folder; its model is not read."""

    def read(version: Version) -> Sharing:
        shared, half = read_shared(version), folder.versions.devices(version)
        if half is None:
            return Sharing(shared, Interactions.empty(shared.catalog))
        private, test = (interactions_of(half.read(name), shared.catalog) for name in (PRIVATE, TEST))
        return Sharing(shared, private | test)

    pending = pending_of(folder)  # before the data: what is applied meanwhile is then still known as asked for
    sharing = folder.versions.reading(read)
    return Withdrawable(sharing, [(request, codes_of(folder, request, sharing)) for request in pending])


def pending_of(folder: TrainedFolder) -> list[Request]:
    """The requests that are still to be applied."""
    return folder.inbox.pending()


def codes_of(folder: TrainedFolder, request: Request, sharing: Sharing) -> NDArray[np.int64]:
    """The codes of all items that a request names, in both halves.

    Of an item that the folder does not know nothing is there to be withdrawn: it came into a model in memory, and a
    kill came before that was saved.
    """
    names, catalog = [*request.items, *folder.inbox.told_to_devices(request)], sharing.shared.catalog
    try:
        return catalog.items(names)
    except UnknownIdError:
        return catalog.items(np.array(names)[np.isin(names, catalog.item_ids)].tolist())


def named_by(requests: Sequence[tuple[Request, NDArray[np.int64]]], kind: Kind, within: Interactions) -> Interactions:
    """All interactions that requests of a kind name, over a catalog; of users who are gone it knows none.

    Parameters
    ----------
    requests
        Each with the codes of its items.
    """
    catalog = within.catalog
    asking = {one.user for one, _ in requests if one.kind == kind}
    known = catalog.user_ids[np.isin(catalog.user_ids, sorted(asking))].tolist()
    some = [(catalog.user(one.user), items) for one, items in requests if one.kind == kind and one.user in known]
    users = [np.full(len(items), user) for user, items in some]
    none = np.empty(0, dtype=np.int64)
    return Interactions.of(
        catalog, np.concatenate([none, *users]), np.concatenate([none, *(items for _, items in some)])
    )


def _same_wish(known: Request, wish: Wish, key: str) -> Request:
    """The request that was recorded under a caller's key, if it is what is wished again."""
    alike = known.kind == wish.kind and known.user in ("", wish.user)
    if not alike or (wish.items is not None and len(set(wish.items)) != known.count):
        raise SharingError(f"key {key!r} was used for another request ({known.id}): give every request its own")
    return known


def _count(folder: TrainedFolder) -> int:
    return len(pending_of(folder))


def _part(
    own: NDArray[np.int64], pending: NDArray[np.int64], fraction: float | None, seed: int, code: int
) -> NDArray[np.int64]:
    """A keyed random part of `own`, of those not pending; all of them where no fraction is given."""
    free = np.setdiff1d(own, pending)
    if fraction is None:
        return free
    order = np.argsort(streams.bits(seed, 0, code, "withdrawal", free))
    return np.sort(free[order[: max(1, round(fraction * len(own)))]])
