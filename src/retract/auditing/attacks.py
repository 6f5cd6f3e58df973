"""Membership inference: from what a model gives away about pairs of user and item to how well the forgotten stand out.

Three attackers, each stronger than the one before:

- *score*: the pair's score, standardised over the user's list (Yeom et al., CSF 2018: a threshold);
- *rank*: its place in the list;
- *learned*: a logistic regression over both, in every view of the model, and over their difference from shadow models
  that were trained without the pair. Shadow models are Shokri et al.'s (S&P 2017), the difference is Watson et al.'s
  difficulty calibration (ICLR 2022): without it, what a user likes anyway drowns what the model was told.

Where the attacker lacks a user's vector, the scores come from the user's other items and the published tables.

Others plug in their own attacks, see `AttackType`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm, rankdata

from retract import plugins
from retract.auditing.targets import Targets
from retract.data import Interactions
from retract.errors import ConfigError
from retract.models.recommender import Recommender

if TYPE_CHECKING:
    from retract.auditing.shadows import Shadows

Values = NDArray[np.float64]
BATCH_SCORES = 32_000_000
"""Scores held at once: bounds the memory, never the result."""
GROUP = "retract.attacks"
ATTACKS: Mapping[str, str] = {
    "score": "retract.auditing.attacks:SCORE",
    "rank": "retract.auditing.attacks:RANK",
    "learned": "retract.auditing.attacks:LEARNED",
}
"""Our own, by name; the stronger the later."""


@dataclass(frozen=True)
class Seen:
    """What one model gives away about the targets; each array has a row per view.

    Parameters
    ----------
    names
        Of the views.
    scores
        Standardised over the user's whole list; of members and of others, shape [2, n_views, n].
    ranks
        The part of the list that stands above, 0 the top; shape as `scores`.
    """

    names: tuple[str, ...]
    scores: Values
    ranks: Values

    @property
    def features(self) -> Values:
        """Both, ranks as normal deviates; shape [2, 2 n_views, n]."""
        places: Values = -norm.ppf(np.clip(self.ranks, 1e-6, 1 - 1e-6))
        return np.concatenate([self.scores, places], axis=1)


@dataclass(frozen=True)
class AUC:
    """How well an attack tells members from others: 0.5 is guessing; with the bounds of a 95 % interval."""

    value: float
    low: float
    high: float


def look(views: Mapping[str, Recommender], targets: Targets) -> Seen:
    """Read the targets in every view of a model."""
    read = [_read(view, targets) for view in views.values()]
    scores, ranks = (np.stack(values, axis=1) for values in zip(*read, strict=True))
    return Seen(tuple(views), scores, ranks)


def auc(members: Values, others: Values, users: NDArray[np.int64]) -> AUC:
    """The probability that a member scores above another pair, ties half; users are the units of the interval.

    The pairs of a user are not independent, so the variance is that of sums over users (Obuchowski, Biometrics 1997).
    From one user alone it cannot be told, and the interval is all that is possible.

    Parameters
    ----------
    members, others
        Scores, shape [n] each.
    users
        The user of each, shape [n].
    """
    n = len(members)
    if not n:
        return AUC(0.5, 0.0, 1.0)
    together = rankdata(np.concatenate([members, others]))
    above = (together[:n] - rankdata(members)) / n  # the part of the others below each member
    below = 1 - (together[n:] - rankdata(others)) / n
    value = float(above.mean())
    sums = np.bincount(np.unique(users, return_inverse=True)[1], weights=(above - value) + (below - value)) / n
    if len(sums) < 2:
        return AUC(value, 0.0, 1.0)
    spread = 1.96 * float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)))
    return AUC(value, max(0.0, value - spread), min(1.0, value + spread))


class LearnedAttack:
    """Logistic regression on what shadow models give away about pairs of which it is known whether they were in.

    Parameters
    ----------
    examples
        Features of members and others in a shadow model, and the features of the same pairs in the other shadow model,
        which knew neither; each of shape [2, n_features, n].
    """

    ridge = 1e-2

    def __init__(self, examples: Sequence[tuple[Values, Values]]) -> None:
        rows = np.concatenate([_beside(own, other) for own, other in examples], axis=2)
        n = rows.shape[2]
        features = np.concatenate([rows[0], rows[1]], axis=1).T
        labels = np.concatenate([np.ones(n), -np.ones(n)])
        self._mean, self._deviation = features.mean(axis=0), features.std(axis=0) + 1e-9
        scaled = self._scale(features)

        def loss(weights: Values) -> tuple[float, Values]:
            margins = labels * (scaled @ weights[1:] + weights[0])
            gradient = -labels * expit(-margins) / len(labels)
            total = np.logaddexp(0, -margins).mean() + 0.5 * self.ridge * (weights[1:] ** 2).sum()
            return float(total), np.concatenate([[gradient.sum()], scaled.T @ gradient + self.ridge * weights[1:]])

        self._weights = minimize(loss, np.zeros(scaled.shape[1] + 1), jac=True, method="L-BFGS-B").x[1:]

    def scores(self, own: Values, other: Values) -> Values:
        """How likely each pair was in: of members and of others, shape [2, n].

        Parameters
        ----------
        own, other
            Features in the model under attack, and their mean over the shadow models.
        """
        rows = _beside(own, other)
        return np.stack([self._scale(side.T) @ self._weights for side in rows])

    def _scale(self, features: Values) -> Values:
        scaled: Values = (features - self._mean) / self._deviation
        return scaled


def _beside(own: Values, other: Values) -> Values:
    return np.concatenate([own, own - other], axis=1)


def _read(view: Recommender, targets: Targets) -> tuple[Values, Values]:
    """Standardised scores and ranks of members and others in one view, shape [2, n] each."""
    users, places = np.unique(targets.users, return_inverse=True)
    items = np.stack([targets.members.items, targets.others])
    scores, ranks = np.zeros(items.shape), np.zeros(items.shape)
    size = max(1, BATCH_SCORES // targets.known.n_items)
    for begin in range(0, len(users), size):
        lists = view.scores(users[begin : begin + size], targets.known)
        mean, deviation = lists.mean(axis=1, dtype=np.float64), lists.std(axis=1, dtype=np.float64)
        first, last = np.searchsorted(targets.users, (users[begin], users[min(begin + size, len(users)) - 1] + 1))
        for start in range(first, last, size):
            pairs = slice(start, min(start + size, last))
            rows = places[pairs] - begin
            own = lists[rows]
            for side in range(2):
                values = own[np.arange(len(own)), items[side, pairs]]
                scores[side, pairs] = (values - mean[rows]) / np.maximum(deviation[rows], 1e-12)
                ranks[side, pairs] = _places(own, values)
    return scores, ranks


def _places(lists: NDArray[Any], values: NDArray[Any]) -> Values:
    """The part of each list (a row) that stands above a value of it, ties half."""
    above = (lists > values[:, None]).sum(axis=1)
    below = (lists < values[:, None]).sum(axis=1)
    return np.asarray(0.5 + (above - below) / (2.0 * max(lists.shape[1] - 1, 1)))


def shadow_pairs(seen: Mapping[tuple[int, int], Seen]) -> list[tuple[Values, Values]]:
    """Examples for `LearnedAttack` from two shadow models: (a, b) is what model a shows of the targets of b."""
    return [(seen[0, 0].features, seen[1, 0].features), (seen[1, 1].features, seen[0, 1].features)]


def mean_score(view: Recommender, users: NDArray[np.int64], items: NDArray[np.int64], known: Interactions) -> float:
    """Mean σ(score) of some pairs, as MI-BF and MI-NG have it."""
    total, size = 0.0, max(1, BATCH_SCORES // known.n_items)
    everyone = np.unique(users)
    for begin in range(0, len(everyone), size):
        part = everyone[begin : begin + size]
        at = np.isin(users, part)
        rows = np.searchsorted(part, users[at])
        total += float(expit(view.scores(part, known)[rows, items[at]].astype(np.float64)).sum())
    return total / max(len(users), 1)


class Attack(Protocol):
    """Tells members from others by what a model gives away."""

    def __call__(self, targets: Targets, seen: Seen, shadows: Shadows | None) -> Values:
        """How likely each pair was in, on any scale: of members and of others, shape [2, n].

        Parameters
        ----------
        targets
            The pairs, and the history that the attacker knows. Which side is which must not be used: the two are the
            same to an attacker.
        seen
            What the model under attack gives away about them.
        shadows
            Models of which the attacker knows everything; None where there are none.
        """
        ...


@dataclass(frozen=True)
class AttackType:
    """A kind of attack, by name: what a registry and an entry point of `retract.attacks` hold.

    Parameters
    ----------
    name
        What the commands call it.
    make
        Makes the attack, called without arguments: a class, a function, or the path of one, `package.module:name`.
    needs_shadows
        Whether it learns from shadow models, so that it is left out where there are none.
    """

    name: str
    make: str | Callable[[], Attack]
    needs_shadows: bool = False

    def __call__(self) -> Attack:
        """An attack of this kind."""
        attack: Attack = (plugins.resolve(self.make) if isinstance(self.make, str) else self.make)()
        return attack


def attack_names() -> list[str]:
    """What `attack_type` finds, our own first."""
    return plugins.names(GROUP, ATTACKS)


def attack_type(name: str) -> AttackType:
    """A kind of attack by name.

    Raises
    ------
    ConfigError
        If there is none, or what is plugged in under the name is none.
    """
    found = plugins.find(GROUP, ATTACKS, name, "attack")
    if not isinstance(found, AttackType):
        raise ConfigError(f"attack {name!r} is plugged in as {type(found).__name__}: it must be an AttackType")
    return found


def run_attack(kind: AttackType, targets: Targets, seen: Seen, shadows: Shadows | None) -> Values | None:
    """An attack's scores of members and of others, shape [2, n]; None where it needs shadow models and has none.

    Raises
    ------
    ConfigError
        If what it returns is not one score for each member and each other pair.
    """
    if kind.needs_shadows and shadows is None:
        return None
    scores, wanted = np.asarray(kind()(targets, seen, shadows), dtype=np.float64), (2, len(targets.users))
    if scores.shape != wanted or np.isnan(scores).any():
        raise ConfigError(
            f"attack {kind.name!r} gave scores of shape {scores.shape}, NaN among them: {np.isnan(scores).any()}; it "
            f"must give numbers of shape {wanted}, those of members and those of others"
        )
    return scores


class Score:
    """The standardised score in the first view, the one that users see."""

    def __call__(self, targets: Targets, seen: Seen, shadows: Shadows | None) -> Values:
        """See `Attack`."""
        return seen.scores[:, 0]


class Rank:
    """The place in the list of the first view."""

    def __call__(self, targets: Targets, seen: Seen, shadows: Shadows | None) -> Values:
        """See `Attack`."""
        return -seen.ranks[:, 0]


class Learned:
    """Scores and places in every view, by what was learnt on shadow models."""

    def __call__(self, targets: Targets, seen: Seen, shadows: Shadows | None) -> Values:
        """See `Attack`."""
        assert shadows is not None
        return shadows.scores(seen, targets)


SCORE, RANK = AttackType("score", Score), AttackType("rank", Rank)
LEARNED = AttackType("learned", Learned, needs_shadows=True)
