"""Requests of a trained folder: choosing what a user withdraws, and recording it until it is applied."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retract import streams
from retract.data import Interactions, Sharing
from retract.errors import SharingError
from retract.systems import folder as folders
from retract.systems.base import Kind, now
from retract.systems.folder import Request, TrainedFolder


def add_request(
    path: Path,
    kind: Kind,
    user: str,
    *,
    items: Sequence[str] | None = None,
    fraction: float | None = None,
    seed: int = 0,
) -> tuple[Request, int]:
    """Record what a user wants withdrawn, until `apply_requests`.

    Parameters
    ----------
    items
        Original item ids. Without them and without `fraction`: everything.
    fraction
        A random part, in (0, 1], of what the user shares ("unshare") or of all that is held ("erase"), at least one.
    seed
        Key of the random part.

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
    if fraction is not None and not 0 < fraction <= 1:
        raise SharingError(f"fraction {fraction:g} lies outside (0, 1]")

    return folders.append_request(path, lambda held: _choose(held, kind, user, items, fraction, seed))


def pending_of(held: TrainedFolder, kind: Kind) -> Interactions:
    """All that the pending requests of a kind name."""
    catalog = held.catalog
    requests = [request for request in held.pending if request.kind == kind]
    users = [catalog.user(request.user) for request in requests for _ in request.items]
    items = [catalog.item(name) for request in requests for name in request.items]
    return Interactions.of(catalog, np.array(users, dtype=np.int64), np.array(items, dtype=np.int64))


def _withdrawable(held: TrainedFolder, kind: Kind) -> Sharing:
    """What can be asked for: an erasure also covers what is held out for testing."""
    sharing = held.clients.sharing
    return sharing if kind == "unshare" else replace(sharing, private=sharing.private | held.test)


def _choose(
    held: TrainedFolder, kind: Kind, user: str, items: Sequence[str] | None, fraction: float | None, seed: int
) -> Request:
    """The request that this asks for, checked against what the folder holds."""
    code, catalog = held.catalog.user(user), held.catalog
    within, pending = _withdrawable(held, kind), _pending_items(held, kind, user)
    if items is None:
        own = (within.shared if kind == "unshare" else within.everything).items_of(code)
        chosen = _part(own, pending, fraction, seed, code)
    else:
        chosen = np.unique(catalog.items(items))
        forget = Interactions.of(catalog, np.full(len(chosen), code), chosen)
        _ = within.unshare(forget) if kind == "unshare" else within.erase(forget)  # refuses what is not there
        again = catalog.item_ids[np.intersect1d(chosen, pending)]
        if len(again):
            raise SharingError(f"already pending for user {user}: item {', '.join(again)}; nothing was recorded")
    if not len(chosen):
        besides = " that is not pending already" if len(pending) else ""
        raise SharingError(f"user {user!r} has nothing left to {kind}{besides}; nothing was recorded")
    names = tuple(catalog.item_ids[chosen].tolist())
    return Request(str(uuid.uuid4()), kind, user, len(names), names, now())


def _pending_items(held: TrainedFolder, kind: Kind, user: str) -> NDArray[np.int64]:
    """The items of a user that need not be asked for again: an erasure covers an unsharing, not the other way round."""
    covering = {"erase"} if kind == "erase" else {"erase", "unshare"}
    asked = [request.items for request in held.pending if request.user == user and request.kind in covering]
    return held.catalog.items(item for items in asked for item in items)


def _part(
    own: NDArray[np.int64], pending: NDArray[np.int64], fraction: float | None, seed: int, code: int
) -> NDArray[np.int64]:
    """A keyed random part of `own`, of those not pending; all of them where no fraction is given."""
    free = np.setdiff1d(own, pending)
    if fraction is None:
        return free
    order = np.argsort(streams.bits(seed, 0, code, "withdrawal", free))
    return np.sort(free[order[: max(1, round(fraction * len(own)))]])
