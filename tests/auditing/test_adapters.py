"""Models of other libraries, trained for real on a small world, each audited as it was and trained again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from retract import streams
from retract.auditing.adapters import recognise
from retract.auditing.external import audit_scores
from retract.auditing.standing import ScoreAudit
from retract.data import Interactions
from retract.errors import ConfigError
from tests.auditing.worlds import clustered
from tests.samples import numbered_catalog

EVERYTHING = clustered(200, 120).interactions
WITHDRAWN = streams.uniform(1, 0, EVERYTHING.users, "withdrawn", EVERYTHING.items) < 0.3
FORGET = EVERYTHING.where(WITHDRAWN & (EVERYTHING.users < 90))
LEFT = EVERYTHING - FORGET
USERS, ITEMS = range(1000, 1200), range(500, 620)
"""Ids as a service has them, unlike rows and columns."""


def frame(pairs: Interactions) -> pd.DataFrame:
    return pd.DataFrame({"user_id": pairs.users + 1000, "item_id": pairs.items + 500})


def audits(train: Callable[[Interactions, int], Any], **ids: Any) -> tuple[ScoreAudit, ScoreAudit]:
    """Of the model left as it was, and of one trained again with another seed than the oracle's."""
    before, oracle, again = train(EVERYTHING, 0), train(LEFT, 0), train(LEFT, 1)
    told: dict[str, Any] = {"forget": frame(FORGET), "history": frame(LEFT), "oracle": oracle, **ids}
    return audit_scores(before, before, **told), audit_scores(before, again, **told)


def assert_told_apart(left_alone: ScoreAudit, retrained: ScoreAudit) -> None:
    assert left_alone.verdict.word == "not yet", left_alone.verdict.text
    assert retrained.verdict.word == "forgotten", retrained.verdict.text


def factors(pairs: Interactions, seed: int) -> Any:
    als = pytest.importorskip("implicit.als")
    model = als.AlternatingLeastSquares(
        factors=8, regularization=0.1, iterations=15, random_state=seed, num_threads=1, use_gpu=False
    )
    model.fit(pairs.csr(), show_progress=False)
    return model


def neighbours(pairs: Interactions, seed: int) -> Any:
    knn = pytest.importorskip("implicit.nearest_neighbours")
    model = knn.CosineRecommender(K=20, num_threads=1)
    model.fit(pairs.csr(), show_progress=False)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("train", [factors, neighbours])
def test_implicit_left_as_it_was_has_not_forgotten_and_trained_again_has(
    train: Callable[[Interactions, int], Any],
) -> None:
    assert_told_apart(*audits(train, user_ids=USERS, item_ids=ITEMS))


def test_implicit_scores_are_those_by_which_it_recommends() -> None:
    catalog = numbered_catalog(200, 120)
    for train in (factors, neighbours):
        model = train(EVERYTHING, 0)
        asked = recognise((model, catalog.user_ids, catalog.item_ids))
        own = asked.scores(["u7", "stranger", "u3"], ["i5", *catalog.item_ids, "new"], EVERYTHING)
        assert own.shape == (3, 122)
        assert np.isnan(own[1]).all()
        assert np.isnan(own[:, -1]).all()
        assert (own[[0, 2], 0] == own[[0, 2], 6]).all()
        for row, user in ((0, 7), (2, 3)):
            items, scores = model.recommend(user, EVERYTHING.csr()[user], N=120, filter_already_liked_items=False)
            kept = scores > 0 if train is neighbours else np.full(len(items), True)
            assert own[row, 1:-1][items[kept]] == pytest.approx(scores[kept], rel=1e-4, abs=1e-5)


def test_an_item_item_model_knows_nothing_of_who_holds_nothing() -> None:
    asked = recognise(neighbours(EVERYTHING, 0), None, [f"i{item}" for item in range(120)])
    assert np.isnan(asked.scores(["u7"], ["i5"], LEFT.where(LEFT.users != 7))).all()
    assert np.isfinite(asked.scores(["u7"], ["i5"], LEFT)).all()


def test_implicit_counts_rows_where_it_is_told_no_ids() -> None:
    before, oracle = factors(EVERYTHING, 0), factors(LEFT, 0)
    audit = audit_scores(before, before, oracle=oracle, forget=FORGET.csr(), history=LEFT.csr())
    named = audit_scores(
        before, before, oracle=oracle, forget=frame(FORGET), history=frame(LEFT), user_ids=USERS, item_ids=ITEMS
    )
    assert audit.verdict.word == "not yet"
    assert (audit.attacked, audit.users) == (named.attacked, named.users)


def test_a_retrained_implicit_model_may_have_other_rows_of_its_own() -> None:
    als = pytest.importorskip("implicit.als")
    some = np.flatnonzero(LEFT.item_degrees())[::-1]
    model = als.AlternatingLeastSquares(factors=8, regularization=0.1, iterations=15, random_state=0, num_threads=1)
    model.fit(LEFT.csr()[:, some].tocsr(), show_progress=False)
    other = (model, USERS, some + 500)
    before = factors(EVERYTHING, 0)
    told: dict[str, Any] = {"forget": frame(FORGET), "history": frame(LEFT), "user_ids": USERS, "item_ids": ITEMS}
    audit = audit_scores(before, other, oracle=factors(LEFT, 0), **told)
    assert audit.verdict.word == "forgotten", audit.verdict.text


def rectools_ease(pairs: Interactions, seed: int) -> Any:
    models, data = pytest.importorskip("rectools.models"), pytest.importorskip("rectools.dataset")
    dataset = data.Dataset.construct(frame(pairs).assign(weight=1, datetime="2024-01-01"))
    return models.EASEModel(regularization=10).fit(dataset), dataset


def rectools_als(pairs: Interactions, seed: int) -> Any:
    models, data = pytest.importorskip("rectools.models"), pytest.importorskip("rectools.dataset")
    als = pytest.importorskip("implicit.als")
    dataset = data.Dataset.construct(frame(pairs).assign(weight=1, datetime="2024-01-01"))
    inner = als.AlternatingLeastSquares(
        factors=8, regularization=0.1, iterations=15, random_state=seed, num_threads=1, use_gpu=False
    )
    return models.ImplicitALSWrapperModel(inner).fit(dataset), dataset


@pytest.mark.slow
@pytest.mark.parametrize("train", [rectools_ease, rectools_als])
def test_rectools_left_as_it_was_has_not_forgotten_and_trained_again_has(
    train: Callable[[Interactions, int], Any],
) -> None:
    assert_told_apart(*audits(train))


def test_rectools_scores_are_those_of_its_recommendations() -> None:
    model, dataset = rectools_ease(EVERYTHING, 0)
    own = recognise((model, dataset)).scores([1007, "stranger", "1003", 1007], [505, 999, 501], EVERYTHING)
    told = model.recommend([1003, 1007], dataset, k=120, filter_viewed=False).set_index(["user_id", "item_id"])["score"]
    for row, user in ((0, 1007), (2, 1003), (3, 1007)):
        assert own[row, [0, 2]] == pytest.approx([told[user, 505], told[user, 501]])
    assert np.isnan(own[1]).all()
    assert np.isnan(own[:, 1]).all()


def lenskit(pairs: Interactions, seed: int) -> Any:
    pytest.importorskip("lenskit", reason="LensKit is not installed (pip install lenskit)")
    from lenskit.als import ImplicitMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.pipeline import topn_pipeline
    from lenskit.training import TrainingOptions

    pipeline = topn_pipeline(ImplicitMFScorer(embedding_size=8, epochs=15, regularization=0.5, weight=5))
    pipeline.train(from_interactions_df(frame(pairs)), TrainingOptions(rng=seed))
    return pipeline


@pytest.mark.slow
def test_lenskit_left_as_it_was_has_not_forgotten_and_trained_again_has() -> None:
    assert_told_apart(*audits(lenskit))


@pytest.mark.slow
def test_lenskit_scores_are_those_of_its_pipeline() -> None:
    pipeline = lenskit(EVERYTHING, 0)
    from lenskit import score

    asked = recognise(pipeline)
    own = asked.scores(["1007", "stranger", 1003], [505, "501", 9999], EVERYTHING)
    for row, user in ((0, 1007), (2, 1003)):
        assert own[row, :2] == pytest.approx(score(pipeline, user, [505, 501]).scores())
    assert np.isnan(own[1]).all()
    assert np.isnan(own[:, 2]).all()
    assert asked.items is not None
    assert sorted(asked.items) == list(ITEMS)


def test_a_part_of_lenskit_is_refused_with_what_to_give_instead() -> None:
    scorer = lenskit(EVERYTHING, 0).node("scorer").component
    with pytest.raises(ConfigError, match=r"give the pipeline, topn_pipeline\(ImplicitMFScorer"):
        recognise(scorer)


def recbole(folder: Path, pairs: Interactions, name: str) -> Any:
    pytest.importorskip("recbole.config", reason="RecBole is not installed: it fits no pins of ours (ray<=2.6.3)")
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.model.general_recommender import EASE
    from recbole.trainer import Trainer

    (folder / name).mkdir()
    table = frame(pairs).rename(columns={"user_id": "user_id:token", "item_id": "item_id:token"})
    table.to_csv(folder / name / f"{name}.inter", sep="\t", index=False)
    split = {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": "user", "mode": "full"}
    settings = {"data_path": str(folder), "eval_args": split, "epochs": 1, "use_gpu": False, "state": "ERROR"}
    config = Config(model="EASE", dataset=name, config_dict={**settings, "checkpoint_dir": str(folder / "saved")})
    dataset = create_dataset(config)
    train, *_ = data_preparation(config, dataset)
    model = EASE(config, train.dataset)
    Trainer(config, model).fit(train, None, saved=False, verbose=False, show_progress=False)
    return model, dataset


def test_recbole_left_as_it_was_has_not_forgotten_and_trained_again_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["pytest"])  # RecBole reads the command line
    monkeypatch.setattr(logging.root, "handlers", logging.root.handlers[:])
    monkeypatch.chdir(tmp_path)
    names = iter(("before", "oracle", "again"))
    assert_told_apart(*audits(lambda pairs, seed: recbole(tmp_path, pairs, next(names))))


def test_an_object_with_scores_by_ids_needs_no_adapter() -> None:
    table = np.arange(6.0).reshape(2, 3)
    model = SimpleNamespace(scores=lambda users, items: table[: len(users), : len(items)])
    assert recognise(model).scores([1], [2, 3], LEFT).tolist() == [[0.0, 1.0]]
    assert recognise(model.scores).scores([1], [2], LEFT).tolist() == [[0.0]]


def test_an_object_that_names_its_users_and_items_is_asked_for_no_others() -> None:
    def scores(users: list[int], items: list[int]) -> np.ndarray:
        assert set(users) <= {1, 2}
        assert set(items) <= {7, 8}
        return np.array([[10.0 * user + item for item in items] for user in users])

    asked = recognise(SimpleNamespace(scores=scores, users=[1, 2], items=[7, 8]))
    assert asked.items == [7, 8]
    found = asked.scores([2, 3], [9, 8, 7], LEFT)
    assert found[0].tolist()[1:] == [28.0, 27.0]
    assert np.isnan(found[0, 0])
    assert np.isnan(found[1]).all()


def test_a_model_of_retract_is_judged_like_any_other_and_forgets() -> None:
    import retract

    before, after = (
        retract.Exact(form="ease", ridge=5.0).fit(frame(EVERYTHING)),
        retract.Exact(form="ease", ridge=5.0).fit(frame(EVERYTHING)),
    )
    for user in np.unique(FORGET.users):
        after.erase(1000 + int(user), items=(500 + FORGET.items_of(int(user))).tolist())
    after.unlearn()
    oracle = retract.Exact(form="ease", ridge=5.0).fit(frame(LEFT))
    told: dict[str, Any] = {"forget": frame(FORGET), "history": frame(LEFT), "oracle": oracle}
    assert retract.audit(before, before, **told).verdict.word == "not yet"
    audit = retract.audit(before, after, **told)
    assert audit.verdict.word == "forgotten", audit.verdict.text
    assert audit.ks_after == 0


def test_a_library_is_recognised_without_being_there() -> None:
    """By the name of the module alone, also where a user's own class derives from the library's."""
    base = type("Base", (), {"__module__": "implicit.cpu.als", "user_factors": np.ones((2, 1))})
    mine = type("Mine", (base,), {"__module__": "shop.models", "item_factors": np.ones((3, 1))})
    assert recognise(mine()).scores([0, 1], [2], LEFT).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("module", "given", "message"),
    [
        ("implicit.als", lambda model: model, "not fitted, or has neither factors nor similarity"),
        ("rectools.models.ease", lambda model: model, r"give a pair \(model, dataset\)"),
        ("recbole.model", lambda model: (model,), r"give a pair \(model, dataset\)"),
        ("lenskit.als", lambda model: model, "is a part of LensKit"),
        ("shop.models", lambda model: model, "no way is known to ask Model for scores: give a function"),
        ("shop.models", lambda model: (model, 1), "no way is known to ask tuple for scores"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(module: str, given: Callable[[Any], Any], message: str) -> None:
    model = type("Model", (), {"__module__": module})()
    with pytest.raises(ConfigError, match=message) as refused:
        recognise(given(model))
    assert "\n" not in str(refused.value)


def test_ids_must_be_as_many_as_the_rows() -> None:
    with pytest.raises(ConfigError, match="user_ids holds 3 ids, but the implicit model was fitted on 200 users"):
        recognise(factors(EVERYTHING, 0), [1, 2, 3])
