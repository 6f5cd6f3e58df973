"""What differential privacy has been spent, and the refusal of the round that would spend too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from retract.errors import ConfigError, PrivacyError, missing_extra


@dataclass(frozen=True, order=True)
class Step:
    """One release: a Gaussian mechanism on a sum over clients.

    Parameters
    ----------
    multiplier
        Deviation of the noise over the L2 bound of one client's part.
    sampling
        The probability with which each client takes part, by a draw of its own (Poisson sampling).

    Raises
    ------
    ConfigError
        If the multiplier is not positive and finite, or the probability not in (0, 1].
    """

    multiplier: float
    sampling: float = 1.0

    def __post_init__(self) -> None:
        if not (isfinite(self.multiplier) and self.multiplier > 0):
            raise ConfigError(f"the noise multiplier of a round is {self.multiplier:g}: it must be positive and finite")
        if not 0 < self.sampling <= 1:
            raise ConfigError(f"clients take part with probability {self.sampling:g}: it must be in (0, 1]")


@dataclass(frozen=True)
class Spending:
    """All steps so far. A training that is resumed must go on from its own, so keep it beside the checkpoint.

    Parameters
    ----------
    steps
        How often each was taken.
    """

    steps: tuple[tuple[Step, int], ...] = ()

    def after(self, step: Step, *, instead_of: Step | None = None) -> Spending:
        """The spending with one step more, or with one in the place of another."""
        counts = Counter(dict(self.steps))
        counts[step] += 1
        if instead_of is not None:
            counts[instead_of] -= 1
        return Spending(tuple(sorted((each, count) for each, count in counts.items() if count)))

    @property
    def plain(self) -> list[list[float]]:
        """As numbers that JSON can hold: multiplier, sampling and count of each step."""
        return [[step.multiplier, step.sampling, count] for step, count in self.steps]

    @classmethod
    def of(cls, plain: Any) -> Spending:
        """From what `plain` gave.

        Raises
        ------
        PrivacyError
            If it is anything else: what was spent is then not known.
        """
        try:
            counts: Counter[Step] = Counter()
            for multiplier, sampling, count in plain:
                if count != int(count) or count < 1:
                    raise ValueError
                counts[Step(float(multiplier), float(sampling))] += int(count)
        except (TypeError, ValueError, ConfigError) as error:
            raise PrivacyError(
                f"the record of spent privacy cannot be read: {plain!r:.80} is no list of multiplier, sampling and "
                "count; without it no further round may run"
            ) from error
        return cls(tuple(sorted(counts.items())))


class Accountant:
    """States epsilon for a delta, and holds a training to its budget.

    Steps are composed in Rényi differential privacy by dp-accounting (Mironov, CSF 2017; with sampling: Mironov, Talwar
    and Zhang, *Rényi differential privacy of the sampled Gaussian mechanism*, 2019). Two data sets are neighbours where
    one has a client more. How many clients answered counts as public.

    Parameters
    ----------
    epsilon
        The budget.
    delta
        Below one over the number of clients, or a single client's data might be published outright.
    spending
        What was spent before.
    keep
        Called with the spending whenever it changes, before the round is asked: lay it down there, so that a kill in
        the midst of a round forgets nothing.

    Raises
    ------
    ConfigError
        If the budget is not positive and finite, or delta not in (0, 1).
    MissingExtraError
        If dp-accounting is not installed.
    """

    def __init__(
        self,
        epsilon: float,
        delta: float,
        spending: Spending | None = None,
        keep: Callable[[Spending], None] = lambda spending: None,
    ) -> None:
        if not (isfinite(epsilon) and epsilon > 0):
            raise ConfigError(f"the privacy budget is epsilon={epsilon:g}: it must be positive and finite")
        if not 0 < delta < 1:
            raise ConfigError(f"delta is {delta:g}: it must be above 0 and below 1, and below one over the clients")
        self.budget, self.delta, self._keep = epsilon, delta, keep
        self.spending = Spending() if spending is None else spending
        self.epsilon = epsilon_of(self.spending, delta)

    def spend(self, step: Step) -> None:
        """Take a step, before anything of it is sent.

        Raises
        ------
        PrivacyError
            If it would exceed the budget. Nothing is spent then.
        """
        after = self.spending.after(step)
        would = epsilon_of(after, self.delta)
        if would > self.budget:
            raise PrivacyError(
                f"this round would bring epsilon from {self.epsilon:.4g} to {would:.4g} at delta={self.delta:g}, "
                f"beyond the budget of {self.budget:g}: nothing was sent; stop here, or take more noise from the start"
            )
        self._take(after, would)

    def correct(self, step: Step, was: Step) -> None:
        """State a step as it turned out: with more clients that answered, and so more noise of theirs.

        Raises
        ------
        PrivacyError
            If it is less noise than was stated before.
        """
        if step.multiplier < was.multiplier or step.sampling != was.sampling:
            raise PrivacyError(f"a round had less noise ({step.multiplier:g}) than was stated ({was.multiplier:g})")
        after = self.spending.after(step, instead_of=was)
        self._take(after, epsilon_of(after, self.delta))

    def _take(self, spending: Spending, epsilon: float) -> None:
        self._keep(spending)
        self.spending, self.epsilon = spending, epsilon

    @property
    def state(self) -> Mapping[str, Any]:
        """What a log or a page states: epsilon so far, delta, the budget, and the spending as plain numbers."""
        return {"epsilon": self.epsilon, "delta": self.delta, "budget": self.budget, "spent": self.spending.plain}


def epsilon_of(spending: Spending, delta: float) -> float:
    """The epsilon of all steps at a delta; 0 without any.

    Raises
    ------
    MissingExtraError
        If dp-accounting is not installed.
    """
    try:
        import dp_accounting
        from dp_accounting.rdp import RdpAccountant
    except ImportError as error:
        raise missing_extra("the accounting of differential privacy", "privacy", "dp-accounting") from error
    if not spending.steps:
        return 0.0
    accountant = RdpAccountant()
    for step, count in spending.steps:
        event = dp_accounting.GaussianDpEvent(step.multiplier)
        if step.sampling < 1:
            event = dp_accounting.PoissonSampledDpEvent(step.sampling, event)
        accountant.compose(event, count)
    return float(accountant.get_epsilon(delta))
