"""Recommenders of other libraries as functions from users and items, by their own ids, to scores.

A library is recognised by the name of the module that a model's class comes from: none is imported to find out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retract.data import Interactions
from retract.errors import ConfigError, DataError

Scores = NDArray[np.float64]
Ids = Sequence[Any]
ScoreFunction = Callable[[Ids, Ids], Any]
"""(users, items), by original ids, to scores of shape [n_users, n_items]; NaN where it knows the user or item not."""

KNOWN = (
    "a function of (users, items), an object with such a method `scores`, an implicit model, a trained LensKit "
    "pipeline, or a pair (model, dataset) of RecTools or RecBole"
)


class Scorer(Protocol):
    """A model that can be asked."""

    @property
    def items(self) -> Ids | None:
        """The items it knows, by its own ids; None where it does not say."""
        ...

    def scores(self, users: Ids, items: Ids, history: Interactions) -> Scores:
        """How much each user would like each item.

        Parameters
        ----------
        users, items
            Original ids.
        history
            What users hold, for models that read it when they are asked.

        Returns
        -------
        ndarray
            float64, shape [len(users), len(items)]; NaN where the model knows the user or the item not.
        """
        ...


def recognise(model: Any, user_ids: Ids | None = None, item_ids: Ids | None = None) -> Scorer:
    """A model as something that can be asked.

    Parameters
    ----------
    model
        A function of users and items, an object with such a method `scores`, or a model of a library; with its
        dataset, as a pair, if the library keeps ids there (RecTools, RecBole). An implicit model may come as
        (model, user_ids, item_ids).
    user_ids, item_ids
        The ids of the rows of models that know numbers only (implicit); the numbers themselves unless given.

    Raises
    ------
    ConfigError
        If nobody knows how to ask it.
    """
    if isinstance(model, str | Path):
        raise ConfigError(f"{model} is a file: score files are audited by audit_files or `retract audit --before`")
    first, *rest = model if isinstance(model, tuple) and model else (model,)
    libraries = {cls.__module__.split(".")[0] for cls in type(first).__mro__}
    if "implicit" in libraries:
        return Implicit(first, *(rest if len(rest) == 2 else (user_ids, item_ids)))
    if "lenskit" in libraries:
        return LensKit(first)
    for library, adapter in (("rectools", RecTools), ("recbole", RecBole)):
        if library in libraries:
            if len(rest) != 1:
                raise ConfigError(f"{type(first).__name__}: give a pair (model, dataset), the dataset it was fitted on")
            return adapter(first, rest[0])
    if not rest and callable(getattr(first, "scores", None)):
        return Named(first)
    if not rest and callable(first):
        return Function(first)
    raise ConfigError(f"no way is known to ask {type(model).__name__} for scores: give {KNOWN}")


class Function:
    """A function of users and items.

    Parameters
    ----------
    function
        Called with lists of original ids.
    """

    items = None

    def __init__(self, function: ScoreFunction) -> None:
        self._function = function

    def scores(self, users: Ids, items: Ids, history: Interactions) -> Scores:
        """What the function says; whatever history it reads is its own."""
        found: Any = self._function(list(users), list(items))
        try:
            return np.asarray(found, dtype=np.float64)
        except (TypeError, ValueError):
            kind = type(found).__name__
            raise DataError(f"a score function gave {kind}, which are no numbers of shape [users, items]") from None


class Named:
    """An object with a method `scores(users, items)`, such as a model of retract.

    Parameters
    ----------
    model
        What it says of itself in `users` and `items`, lists of ids, is all that it is asked for.
    """

    def __init__(self, model: Any) -> None:
        self._function = Function(model.scores)
        users, items = (getattr(model, name, None) for name in ("users", "items"))
        self.items: Ids | None = _listed(items)
        self._users = None if (known := _listed(users)) is None else _Rows(known)
        self._items = None if self.items is None else _Rows(self.items)

    def scores(self, users: Ids, items: Ids, history: Interactions) -> Scores:
        """What the method says, and NaN for ids that are none of the model's."""
        rows, columns = (
            np.arange(len(ids)) if known is None else np.where(known.of(ids) >= 0, np.arange(len(ids)), -1)
            for known, ids in ((self._users, users), (self._items, items))
        )

        def read(one: NDArray[np.int64], other: NDArray[np.int64]) -> Scores:
            return self._function.scores([users[row] for row in one], [items[at] for at in other], history)

        return _spread(rows, columns, read)


class Implicit:
    """A model of implicit: factors as they are stored, or an item-item model read through what users hold.

    Parameters
    ----------
    model
        Fitted.
    user_ids, item_ids
        The ids of its rows and columns; their numbers unless given.

    Raises
    ------
    ConfigError
        If it is not fitted, or the ids are not as many as its rows.
    """

    def __init__(self, model: Any, user_ids: Ids | None = None, item_ids: Ids | None = None) -> None:
        self._similarity = getattr(model, "similarity", None)
        self._factors = [_numpy(getattr(model, f"{kind}_factors", None)) for kind in ("user", "item")]
        if self._similarity is None and any(table is None for table in self._factors):
            raise ConfigError(
                f"{type(model).__name__} of implicit is not fitted, or has neither factors nor similarity"
            )
        n_items = len(self._factors[1]) if self._similarity is None else self._similarity.shape[0]
        self.items: Ids = _as_many("item", item_ids, n_items)
        self._item_rows = _Rows(self.items)
        if self._similarity is None:
            self._user_rows = _Rows(_as_many("user", user_ids, len(self._factors[0])))

    def scores(self, users: Ids, items: Ids, history: Interactions) -> Scores:
        """Inner products; or the sum of similarities to what the user holds, each counted once."""
        columns = self._item_rows.of(items)
        if self._similarity is None:
            rows, (of_users, of_items) = self._user_rows.of(users), self._factors
            return _spread(rows, columns, lambda one, other: of_users[one] @ of_items[other].T)
        names = dict(zip(history.catalog.user_ids.tolist(), range(history.n_users), strict=True))
        codes = np.array([names.get(str(user), -1) for user in users])
        held = history.csr()[np.maximum(codes, 0)]
        own = self._item_rows.of(history.catalog.item_ids.tolist())
        known = np.flatnonzero(own >= 0)
        read = held[:, known] @ self._similarity[own[known]]
        rows = np.where(np.diff(held.indptr) > 0, np.arange(len(users)), -1)  # whoever holds nothing is not known
        return _spread(np.where(codes >= 0, rows, -1), columns, lambda one, other: read[one][:, other].toarray())


class LensKit:
    """A trained pipeline of LensKit, asked by the user's id: it reads whatever history it holds itself.

    Parameters
    ----------
    pipeline
        With a component "scorer".

    Raises
    ------
    ConfigError
        If it is no pipeline, or has no such component.
    """

    def __init__(self, pipeline: Any) -> None:
        if not hasattr(pipeline, "nodes"):
            name = type(pipeline).__name__
            raise ConfigError(f"{name} is a part of LensKit: give the pipeline, topn_pipeline({name}(...)), trained")
        self._pipeline = pipeline
        node = pipeline.node("scorer", missing="none")
        if node is None:
            raise ConfigError("the LensKit pipeline has no component 'scorer', so it cannot be asked for scores")
        component = getattr(node, "component", None)
        self._items, self._users = (_vocabulary(component, kind) for kind in ("items", "users"))
        self.items: Ids | None = None if self._items is None else list(self._items.values())

    def scores(self, users: Ids, items: Ids, history: Interactions) -> Scores:
        """One query for each user; LensKit scores what it does not know as NaN."""
        ask = import_module("lenskit").score
        names = [item if self._items is None else self._items.get(str(item)) for item in items]
        columns = np.flatnonzero([name is not None for name in names])
        wanted = [names[column] for column in columns]
        found = np.full((len(users), len(items)), np.nan)
        for row, user in enumerate(users):
            query = user if self._users is None else self._users.get(str(user))
            if query is not None and wanted:
                found[row, columns] = ask(self._pipeline, query, wanted).scores()
        return found


class RecTools:
    """A fitted model of RecTools and the dataset that it reads: any model, for all can recommend the whole catalog.

    Parameters
    ----------
    model, dataset
        As they are given to `model.recommend`.
    """

    def __init__(self, model: Any, dataset: Any) -> None:
        self._model, self._dataset = model, dataset
        self.items: Ids = dataset.item_id_map.external_ids.tolist()
        self._user_rows, self._item_rows = _Rows(dataset.user_id_map.external_ids.tolist()), _Rows(self.items)

    def scores(self, users: Ids, items: Ids, history: Interactions) -> Scores:
        """The whole catalog recommended to each user, nothing left out; NaN for what the model leaves out itself."""
        rows, columns = self._user_rows.of(users), self._item_rows.of(items)
        asked = np.unique(rows[rows >= 0])
        table = np.full((len(asked), len(self.items)), np.nan)
        if len(asked):
            told = self._model.recommend(
                users=self._dataset.user_id_map.external_ids[asked],
                dataset=self._dataset,
                k=len(self.items),
                filter_viewed=False,
                add_rank_col=False,
                on_unsupported_targets="ignore",
            )
            at = np.searchsorted(asked, self._user_rows.of(told["user_id"].tolist()))
            table[at, self._item_rows.of(told["item_id"].tolist())] = told["score"].to_numpy()
        places = np.where(rows >= 0, np.searchsorted(asked, rows), -1)
        return _spread(places, columns, lambda one, other: table[np.ix_(one, other)])


class RecBole:
    """A trained general model of RecBole and its dataset; sequential ones need a function of their own.

    Parameters
    ----------
    model, dataset
        As `recbole.quick_start.load_data_and_model` returns them.
    """

    def __init__(self, model: Any, dataset: Any) -> None:
        self._model, self._dataset = model, dataset
        users, items = (dataset.field2id_token[field] for field in (dataset.uid_field, dataset.iid_field))
        self._user_rows, self._item_rows = _Rows(users), _Rows(items)
        self.items: Ids = list(items[1:])  # the first is padding

    def scores(self, users: Ids, items: Ids, history: Interactions) -> Scores:
        """What `full_sort_predict` says.

        Raises
        ------
        ConfigError
            If the model has no such method.
        """
        torch, interaction = import_module("torch"), import_module("recbole.data.interaction").Interaction
        rows, columns = self._user_rows.of(users), self._item_rows.of(items)
        asked = np.unique(rows[rows > 0])
        if not len(asked):
            return np.full((len(users), len(items)), np.nan)
        batch = interaction({self._dataset.uid_field: torch.from_numpy(asked)}).to(self._model.device)
        self._model.eval()
        try:
            with torch.no_grad():
                told = self._model.full_sort_predict(batch)
        except NotImplementedError:
            name = type(self._model).__name__
            raise ConfigError(
                f"{name} of RecBole has no full_sort_predict: give a function of (users, items)"
            ) from None
        table = told.reshape(len(asked), -1).cpu().numpy()
        places = np.where(rows > 0, np.searchsorted(asked, rows), -1)
        return _spread(places, np.where(columns > 0, columns, -1), lambda one, other: table[np.ix_(one, other)])


class _Rows:
    """The rows of ids, compared as text, for a library may hold numbers where a file holds text."""

    def __init__(self, ids: Iterable[Any]) -> None:
        self._rows = {str(name): row for row, name in enumerate(ids)}

    def of(self, ids: Ids) -> NDArray[np.int64]:
        """Shape [len(ids)], -1 for what is not known."""
        return np.array([self._rows.get(str(name), -1) for name in ids], dtype=np.int64)


def _spread(
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    read: Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[Any]],
) -> Scores:
    """What is read of known rows and columns, and NaN where either is -1."""
    found = np.full((len(rows), len(columns)), np.nan)
    one, other = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
    if len(one) and len(other):
        found[np.ix_(one, other)] = read(rows[one], columns[other])
    return found


def _listed(ids: Any) -> Ids | None:
    """A list of ids; None for what is none."""
    return list(ids) if isinstance(ids, list | tuple | np.ndarray) else None


def _as_many(kind: str, ids: Ids | None, n: int) -> Ids:
    """The ids of `n` rows; their numbers where none are given."""
    if ids is None:
        return range(n)
    if len(ids) != n:
        raise ConfigError(f"{kind}_ids holds {len(ids)} ids, but the implicit model was fitted on {n} {kind}s")
    return list(ids)


def _vocabulary(component: Any, kind: str) -> dict[str, Any] | None:
    """A LensKit component's own ids, by their text."""
    found: Any = getattr(component, kind, None)
    return {str(name): name for name in found.ids().tolist()} if hasattr(found, "ids") else None


def _numpy(table: Any) -> Any:
    """A table, fetched from the accelerator where it lies there."""
    return table.to_numpy() if hasattr(table, "to_numpy") else table
