"""The original ids of users and items, and the titles that people read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retract.errors import UnknownIdError


@dataclass(frozen=True, eq=False)
class Catalog:
    """Which users and items exist, in a fixed order: the code of an id is its position.

    Parameters
    ----------
    user_ids, item_ids
        The original ids as text, unique; empty for a user whose id was erased.
    titles
        One title per item, or None where the data has none.
    """

    user_ids: NDArray[np.str_]
    item_ids: NDArray[np.str_]
    titles: NDArray[np.str_] | None = None

    @property
    def n_users(self) -> int:
        """How many users."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """How many items."""
        return len(self.item_ids)

    def same_as(self, other: Catalog) -> bool:
        """Whether both give every id the same code."""
        return self is other or (
            np.array_equal(self.user_ids, other.user_ids) and np.array_equal(self.item_ids, other.item_ids)
        )

    def starts(self, other: Catalog) -> bool:
        """Whether `other` gives every id of this catalog the same code, and may have more."""
        return np.array_equal(self.user_ids, other.user_ids[: self.n_users]) and np.array_equal(
            self.item_ids, other.item_ids[: self.n_items]
        )

    def extended_by(self, other: Catalog) -> Catalog:
        """A catalog of all these ids, and after them those that only `other` has, in their order there.

        Items without a title get their id for one where either catalog has titles.
        """
        users = np.array([name for name in other.user_ids.tolist() if name not in self._user_codes], dtype=np.str_)
        fresh = [code for code, name in enumerate(other.item_ids.tolist()) if name not in self._item_codes]
        if not len(users) and not fresh:
            return self
        titles = None
        if self.titles is not None or other.titles is not None:
            own = [self.title(code) for code in range(self.n_items)]
            titles = np.array([*own, *(other.title(code) for code in fresh)], dtype=np.str_)
        item_ids = np.append(self.item_ids, other.item_ids[fresh])
        return Catalog(np.append(self.user_ids, users), item_ids, titles)

    def without_users(self, codes: NDArray[np.int64]) -> Catalog:
        """The same codes, but some users' ids are gone: empty text stands in their place and names nobody."""
        user_ids = self.user_ids.copy()
        user_ids[codes] = ""
        return Catalog(user_ids, self.item_ids, self.titles) if len(codes) else self

    @property
    def known_users(self) -> list[str]:
        """The ids of all users whose id was not erased."""
        return list(self._user_codes)

    @cached_property
    def _user_codes(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.user_ids.tolist()) if name}

    @cached_property
    def _item_codes(self) -> dict[str, int]:
        return {name: code for code, name in enumerate(self.item_ids.tolist())}

    def user(self, name: object) -> int:
        """The code of one user id.

        Raises
        ------
        UnknownIdError
            If there is no such user; `UnknownIdError.near` gives the nearest known ids.
        """
        code = self._user_codes.get(str(name))
        if code is None:
            if not self._user_codes:
                raise UnknownIdError(f"unknown user {str(name)!r}: the model knows nobody, for all users were erased")
            raise UnknownIdError(f"unknown user {str(name)!r}", lambda: nearest_ids(str(name), self.known_users))
        return code

    def item(self, name: object) -> int:
        """The code of one item id.

        Raises
        ------
        UnknownIdError
            If there is no such item; the message names the nearest known ids.
        """
        code = self._item_codes.get(str(name))
        if code is None:
            near = nearest_ids(str(name), list(self._item_codes))
            raise UnknownIdError(f"unknown item {str(name)!r}; nearest known ids: {', '.join(near)}")
        return code

    def items(self, names: Iterable[object]) -> NDArray[np.int64]:
        """The codes of several item ids, in their order; errors as in `item`."""
        return np.array([self.item(name) for name in names], dtype=np.int64)

    def title(self, code: int) -> str:
        """An item's title, or its id where it has none."""
        return str(self.titles[code] if self.titles is not None else self.item_ids[code])


def nearest_ids(name: str, known: Sequence[str], n: int = 3) -> list[str]:
    """The `n` known ids closest to `name`: by value where all are numbers, else by spelling."""
    try:
        target = int(name)
        return sorted(known, key=lambda other: (abs(int(other) - target), other))[:n]
    except ValueError:
        return difflib.get_close_matches(name, known, n=n, cutoff=0.0)
