"""What an unlearning did, as the caller of the API gets it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from retract.stores.forgetting import UnlearnReport

if TYPE_CHECKING:
    from retract.auditing.judging import Auditing


@dataclass(frozen=True)
class Receipt:
    """What an unlearning did.

    Parameters
    ----------
    requests, forgotten
        How many requests were applied, and how many interactions they named.
    seconds, rounds
        What it took: of unlearning alone.
    waiting
        Users who still wait for more to join them.
    metrics_before, metrics
        Recall and NDCG at 20 on what was held out; None where nothing was.
    audits
        Figures of each withdrawal's audit; empty without one.
    certificate
        The signed certificate of an audited unlearning, else None.
    notes
        What to tell people.
    """

    requests: int
    forgotten: int
    seconds: float
    rounds: int
    waiting: int
    metrics_before: Mapping[str, float | None]
    metrics: Mapping[str, float | None]
    audits: tuple[Mapping[str, Any], ...] = ()
    certificate: bytes | None = field(default=None, repr=False)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, report: UnlearnReport, auditing: Auditing | None) -> Receipt:
        """From what the stores report."""
        told = asdict(report)
        fields = {name: told[name] for name in cls.__dataclass_fields__ if name in told}
        if auditing is None:
            return cls(**fields)
        return cls(**fields, audits=tuple(auditing.audits), certificate=auditing.certificate)
