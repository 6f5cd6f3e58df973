"""What works on anybody's recommender: how well it ranks, and whether it forgot."""

from __future__ import annotations

from typing import Any

from retract.api.models import Model
from retract.auditing.external import audit_scores as audit
from retract.data import Columns
from retract.data.columns import USUAL

__all__ = ["audit", "evaluate"]


def evaluate(
    model: Any, test: object, *, history: object | None = None, k: int = 20, columns: Columns = USUAL
) -> dict[str, float | None]:
    """Recall@k and NDCG@k of anybody's recommender, all items ranked, those in the history left out.

    Parameters
    ----------
    model
        A model of retract, of implicit, LensKit or RecTools, or a function of (users, items) that gives scores.
    test
        Interactions to find again, in any form that `Exact.fit` takes.
    history
        What the users have had; a model of retract knows it.
    k
        Length of the lists.
    columns
        The columns' names where they are not the usual ones.

    Raises
    ------
    DataError
        If the data is not what it must be.
    """
    if isinstance(model, Model) and history is None:
        return model.evaluate(test, k, columns=columns)
    from retract.auditing.external import evaluate_scores

    return evaluate_scores(model, test, history=history, k=k, columns=columns)
