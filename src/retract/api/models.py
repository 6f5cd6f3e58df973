"""A model: fitted, asked, made to forget, saved."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from retract.api.account import Account
from retract.api.answers import as_frame, listed, require_length, similar
from retract.api.fitting import Fit, recoded
from retract.api.frames import Ids
from retract.api.receipt import Receipt
from retract.data import Columns
from retract.errors import ConfigError, DataError
from retract.models.recommender import Recommender, Scores, recommend
from retract.stores.devices import MemoryDevices
from retract.stores.extending import ExtendReport, extended
from retract.stores.folder import TrainedFolder
from retract.stores.forgetting import UnlearnOptions, forget, no_judge, report_on, waiting
from retract.stores.held import Held
from retract.stores.learning import Choice, Parts, learn
from retract.stores.ledger import Kind, Request
from retract.stores.manifest import sha256
from retract.stores.measuring import measure
from retract.stores.requests import Wish
from retract.stores.withdrawing import Manner
from retract.systems.base import Progress, no_progress
from retract.systems.settings import read_settings
from retract.systems.system import System, SystemType

if TYPE_CHECKING:
    from retract.auditing.judging import Auditing


class Model:
    """What all models have in common; see `retract.Exact` and its like."""

    kind: ClassVar[SystemType]

    def __init__(self, *, seed: int = 0, **settings: Any) -> None:
        self.seed = seed
        self.config = read_settings(self.kind.name, self.kind.config, settings)
        self.notes: tuple[str, ...] = ()
        """What there was to say of the data that was fitted, such as rows that were left out."""
        self._held: Held | None = None
        self._account = Account()
        self._ids = Ids(user=False, item=False)
        self._library: str | None = None
        self._reader: Recommender | None = None

    # --- fitting ------------------------------------------------------------------------------------------------------

    def fit(
        self,
        data: object,
        *,
        share: float | None = None,
        test: float | None = None,
        clients: int | None = None,
        columns: Columns | None = None,
        at_least_rating: float | None = None,
        progress: Progress = no_progress,
    ) -> Any:
        """Learn from interactions; whatever was fitted before is gone.

        Parameters
        ----------
        data
            A pandas or polars frame, a SciPy CSR matrix of users × items, a file, the name of a data set, a `Dataset`
            or `Interactions`. Columns are found by their usual names or named by `columns`.
        share
            The part of their interactions that users share, in [0, 1]. A `shared` column says it one by one; without
            either, all is shared (PersonalFR: nothing; FedShare asks).
        test
            The part that is held out to measure by, in [0, 1). Nothing is, unless given; a `fold` column rules.
        clients
            Of PersonalFR: deal the users among so many organisations.
        columns
            The columns' names where they are not the usual ones.
        at_least_rating
            Leave out what is rated lower. Ratings of 0 and below are no likes and are left out in any case, but for
            PersonalFR, which learns how its users rate.
        progress
            Called as (stage, done, total).

        Returns
        -------
        Model
            This one.

        Raises
        ------
        DataError
            If the data is not what it must be; the message says where.
        SharingError
            If `share` has to be given and is not.
        ConfigError
            If training diverged.
        """
        given = Fit.of(self.kind, data, columns, at_least_rating)
        parts = Parts.of(given.dataset, self.kind.share, Choice(share, test, clients), self.seed)
        devices = MemoryDevices(parts.sharing)
        learnt = learn(System(self.kind, self.config), devices, seed=self.seed, progress=progress)
        self._hold(learnt.held(devices, parts))
        self._account = Account()
        self._ids, self._library, self.notes = given.ids, given.library, given.dataset.notes
        return self

    # --- asking -------------------------------------------------------------------------------------------------------

    @property
    def users(self) -> list[Any]:
        """Your ids of all users with an interaction."""
        held = self._fitted
        return self._ids.users(held.catalog.user_ids[held.interactions.active_users()].tolist())

    @property
    def items(self) -> list[Any]:
        """Your ids of all items."""
        return self._ids.items(self._fitted.catalog.item_ids.tolist())

    def recommend(self, users: object = None, k: int = 10) -> Any:
        """The best items of some users, those that they have had left out.

        Parameters
        ----------
        users
            One id, or several; everybody unless given.
        k
            How many, at most.

        Returns
        -------
        DataFrame
            Columns user, item, score and rank (from 1), in the library of the data that was fitted; a list of rows
            where neither pandas nor polars is installed.

        Raises
        ------
        UnknownIdError
            If there is no such user.
        DataError
            If a user holds no interaction.
        """
        held, catalog = self._fitted, self._fitted.catalog
        codes = self._codes_of_users(users)
        degrees = held.interactions.user_degrees()[codes]
        if len(codes) and not degrees.all():
            name = catalog.user_ids[codes[int(np.flatnonzero(degrees == 0)[0])]]
            raise DataError(f"user {str(name)!r} holds no interaction: there is nothing to recommend from")
        k = min(k, catalog.n_items) if k > 0 else k
        best = recommend(self._recommender, codes, held.interactions, k, hidden=held.test)
        names = self._ids.users(catalog.user_ids[codes].tolist())
        return as_frame("user", names, best, "item", catalog, self._ids, self._library)

    def similar_items(self, items: object, k: int = 10) -> Any:
        """The items nearest to some items: by cosine of their embeddings, of closed forms by what one makes of another.

        Returns
        -------
        DataFrame
            Columns item, similar, score and rank.

        Raises
        ------
        UnknownIdError
            If there is no such item.
        ConfigError
            If `k` is below 1.
        """
        held = self._fitted
        codes = held.catalog.items(listed(items))
        names = self._ids.items(held.catalog.item_ids[codes].tolist())
        return as_frame("item", names, similar(held, codes, k), "similar", held.catalog, self._ids, self._library)

    def scores(self, users: object = None, items: object = None) -> Scores:
        """Scores of some users for some items, all unless given; float32, shape [n_users, n_items]."""
        held = self._fitted
        found = self._recommender.scores(self._codes_of_users(users), held.interactions)
        return found if items is None else found[:, held.catalog.items(listed(items))]

    def evaluate(self, test: object = None, k: int = 20, *, columns: Columns | None = None) -> dict[str, float | None]:
        """Recall@k and NDCG@k over all items, and RMSE and MAE of a model that predicts ratings.

        Parameters
        ----------
        test
            Interactions to find again, in any form that `fit` takes; what was held out when fitting unless given.

        Raises
        ------
        ConfigError
            If `k` is below 1.

        Returns
        -------
        dict
            Means by name; with a `test` of yours also how many rows of it name users or items that the model lacks.
        """
        held = self._fitted
        require_length(k)
        if test is None:
            return measure(self._recommender, held.interactions, held.test, k)
        known, unknown = recoded(self.kind, test, columns, held.catalog)
        found = measure(self._recommender, held.interactions, known - held.interactions, k)
        return {**found, "unknown_rows": float(unknown)}

    # --- taking back --------------------------------------------------------------------------------------------------

    def unshare(self, user: object, items: object = None, fraction: float | None = None) -> Request:
        """Ask the server to forget what a user shared; the user's own device keeps it. `unlearn` applies it.

        Parameters
        ----------
        items
            Ids of items; everything that the user shares unless given, or a random `fraction` of it.

        Raises
        ------
        UnknownIdError
            If the user or an item is unknown.
        SharingError
            If an item is not there to be withdrawn, or is so already; nothing is recorded.
        """
        return self._request("unshare", user, items, fraction)

    def erase(self, user: object, items: object = None, fraction: float | None = None) -> Request:
        """Ask for a user's data to be gone everywhere; parameters and errors as of `unshare`. `unlearn` applies it."""
        return self._request("erase", user, items, fraction)

    @property
    def pending(self) -> list[Request]:
        """Requests that `unlearn` has still to apply."""
        return self._account.pending

    def unlearn(
        self,
        *,
        audit: bool = False,
        oracle: bool = False,
        at_least: int = 1,
        key: str | Path | None = None,
        progress: Progress = no_progress,
    ) -> Receipt:
        """Apply the pending requests: the model forgets what they name.

        Parameters
        ----------
        audit
            Attack the model before and after, and sign a certificate.
        oracle
            With `audit`: beside the model trained without what is withdrawn; takes three trainings.
        at_least
            Wait until so many users withdraw what the model learnt.
        key
            File of the private key that signs; your own key unless given, made where there is none.

        Raises
        ------
        ConfigError
            If unlearning diverged, or `oracle` is given without `audit`; nothing is applied.
        """
        held, options, batch = self._fitted, UnlearnOptions(self.seed, at_least), self._account.batch(self._fitted)
        if oracle and not audit:
            raise ConfigError("oracle=True needs audit=True")
        if batch.waits(at_least):
            return Receipt.of(waiting(held, batch, options), None)
        auditing = self._auditing(oracle, key, progress) if audit else None
        forgotten = forget(held, batch, Manner(self.seed, progress))
        report = report_on(forgotten, options)
        (auditing or no_judge)(forgotten)
        self._hold(forgotten.after)
        certificate = None if auditing is None else auditing.certificate
        self._account.settle(forgotten, [] if certificate is None else [sha256(certificate)])
        return Receipt.of(report, auditing)

    # --- growing and keeping ------------------------------------------------------------------------------------------

    def extend(
        self,
        data: object,
        *,
        share: float | None = None,
        again: bool = False,
        columns: Columns | None = None,
        at_least_rating: float | None = None,
        progress: Progress = no_progress,
    ) -> ExtendReport:
        """Take in new interactions without training again: Exact new users and items, PersonalFR new users.

        Parameters
        ----------
        again
            Whether to take in what was erased before, and to share what was unshared: on a new consent. Without it only
            what happened after the request comes in, where the data says when.

        Raises
        ------
        ConfigError
            If the system cannot.
        SharingError
            If `share` has to be given: a column said what was shared so far, and this data has none.
        """
        held, dataset = self._fitted, Fit.of(self.kind, data, columns, at_least_rating).dataset
        asked, known = self._account.asked, self._account.suppression
        found = extended(held, dataset, asked, known, share=share, again=again, seed=self.seed, progress=progress)
        if found.changed:
            self._hold(found.held)
            self._ids = self._ids.within(found.held.catalog)
        self._account.suppression = found.suppression
        return found.report

    def save(self, path: str | Path, *, force: bool = False, key: str | Path | None = None) -> None:
        """Write a folder that `retract.load` and the commands read, pending requests included.

        Parameters
        ----------
        force
            Replace another model that is there, and its chain of versions.
        key
            File of the private key that signs the version; your own key unless given, made where there is none.

        Raises
        ------
        FolderError
            If it holds another model and `force` is not given, or anything else; or if something that was withdrawn
            there would come back: it holds a later version of this model, or this one holds what was erased there; or
            if another key signed the version before.
        """
        folder = TrainedFolder(Path(path), None if key is None else Path(key))
        manifest = self._account.save(folder, self._fitted, force=force)
        self._hold(replace(self._fitted, version=manifest.version))

    @classmethod
    def of_folder(cls, path: Path) -> Any:
        """A model from a folder; see `retract.load`."""
        folder = TrainedFolder(path)
        held = folder.load()
        made = cls.__new__(cls)
        Model.__init__(made, seed=held.trained.seed)
        made.config = held.trained.config
        made._hold(held)
        made._account = Account.of(folder, held)
        made._ids = Ids.of(None, held.catalog, {})
        return made

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={getattr(self.config, name)!r}" for name in sorted(self.config.model_fields_set))
        state = "not fitted" if self._held is None else f"fitted on {len(self._held.interactions):,} interactions"
        return f"<retract.{type(self).__name__}({given}): {state}>"

    # --- inside -------------------------------------------------------------------------------------------------------

    @property
    def _fitted(self) -> Held:
        if self._held is None:
            raise ConfigError(f"this {type(self).__name__} is not fitted yet: call fit(data) first")
        return self._held

    @property
    def _recommender(self) -> Recommender:
        if self._reader is None:
            self._reader = self._fitted.recommender()
        return self._reader

    def _hold(self, held: Held) -> None:
        self._held, self._reader = held, None

    def _codes_of_users(self, users: object) -> NDArray[np.int64]:
        held = self._fitted
        if users is None:
            return held.interactions.active_users()
        return np.array([held.catalog.user(user) for user in listed(users)], dtype=np.int64)

    def _request(self, kind: Kind, user: object, items: object, fraction: float | None) -> Request:
        names = None if items is None else [str(item) for item in listed(items)]
        return self._account.record(self._fitted, Wish(kind, str(user), names, fraction, self.seed))

    def _auditing(self, oracle: bool, key: str | Path | None, progress: Progress) -> Auditing:
        from retract.auditing.judging import Auditing
        from retract.stores.keys import Signer

        signer = Signer.at(None if key is None else Path(key))
        for text in signer.notes:
            warnings.warn(text, stacklevel=3)
        return Auditing(lambda: signer.key, oracle=oracle, progress=progress)
