"""The digest of a set of interactions, against a slow one that reads as its docstring."""

import hashlib
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retract.data import Catalog, Interactions, digest, load
from retract.data.digest import retained_digest
from tests.samples import numbered_catalog

# Backslashes and the letters of escapes, what sorts before a tab, and on both sides of where UTF-16 sorts otherwise.
IDS = st.lists(st.text("aÄ\t\n\\tn9\x01 \uffee\U0001f600", min_size=1, max_size=3), min_size=1, max_size=6, unique=True)


def slow_digest(interactions):
    """The digest as its docstring reads."""
    columns = {"rating": interactions.ratings, "timestamp": interactions.timestamps}
    names = [name for name, column in columns.items() if column is not None]
    lines = []
    for row, (user, item) in enumerate(zip(interactions.users, interactions.items, strict=True)):
        ids = [str(interactions.catalog.user_ids[user]), str(interactions.catalog.item_ids[item])]
        ids = [name.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n") for name in ids]
        lines.append("\t".join([*ids, *(str(columns[name][row].item()) for name in names)]).encode())
    text = b"".join(line + b"\n" for line in ["\t".join(["user", "item", *names]).encode(), *sorted(lines)])
    return hashlib.sha256(text).hexdigest()


def polars_digest(interactions):
    """The digest as the first edition made it: sorted by polars."""

    def names(ids):
        escapes = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n"})
        return pl.Series([name.translate(escapes) for name in ids.tolist()], dtype=pl.String)

    catalog = interactions.catalog
    columns = {
        "user": names(catalog.user_ids).gather(interactions.users),
        "item": names(catalog.item_ids).gather(interactions.items),
    }
    if interactions.ratings is not None:
        columns["rating"] = pl.Series([repr(value) for value in (interactions.ratings + 0.0).tolist()], dtype=pl.String)
    if interactions.timestamps is not None:
        columns["timestamp"] = pl.Series(interactions.timestamps).cast(pl.String)
    lines = pl.DataFrame(columns).select(line=pl.concat_str(pl.all(), separator="\t")).sort("line")
    text = "".join(f"{line}\n" for line in ["\t".join(columns), *lines["line"]])
    return hashlib.sha256(text.encode()).hexdigest()


def random_set(users, items, seed, rated, timed):
    draw = np.random.default_rng(seed)
    held = np.nonzero(draw.random((len(users), len(items))) < 0.5)
    ratings = draw.choice([0.1, 4, 3.5, 1e-9, 3e8], len(held[0])) if rated else None
    times = draw.integers(-5, 2**62, len(held[0])) if timed else None
    return Interactions.of(Catalog(np.array(users), np.array(items)), *held, ratings, times)


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 4, 1 << 14])
@given(IDS, IDS, st.integers(0, 1000), st.booleans(), st.booleans())
def test_the_digest_is_the_one_that_its_docstring_describes(at_once, users, items, seed, rated, timed):
    found = random_set(users, items, seed, rated, timed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digest, "_LINES_AT_ONCE", at_once)
        assert retained_digest(found) == slow_digest(found) == polars_digest(found)


def test_users_whose_ids_are_gone_may_have_lines_that_mix():
    catalog = Catalog(np.array(["", "b", "", "a"]), np.array(["y", "x"]))
    found = Interactions.of(catalog, [0, 1, 2, 2, 3], [0, 0, 0, 1, 1], [5, 1, 3, 2, 4])
    assert retained_digest(found) == slow_digest(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ml-100k", "ml-1m"])
def test_the_digest_of_a_public_data_set_is_that_of_the_first_edition(shared_data, name):
    found = load(shared_data / f"{name}.parquet").interactions
    assert retained_digest(found) == polars_digest(found)


def rated_and_timed():
    draw = np.random.default_rng(1)
    users, items = np.nonzero(draw.random((30, 25)) < 0.2)
    times = draw.integers(10**9, 2 * 10**9, len(users))
    return Interactions.of(numbered_catalog(30, 25), users, items, draw.integers(1, 6, len(users)), times)


def test_the_digest_does_not_depend_on_the_order_of_the_catalog_nor_on_who_else_is_in_it():
    data = rated_and_timed()
    catalog = data.catalog
    turned = Catalog(np.append(catalog.user_ids, "new")[::-1], catalog.item_ids[::-1])
    codes = len(catalog.user_ids) - data.users, len(catalog.item_ids) - 1 - data.items
    assert retained_digest(Interactions.of(turned, *codes, data.ratings, data.timestamps)) == retained_digest(data)


def test_the_digest_tells_every_difference():
    data = rated_and_timed()
    one, gone = np.zeros(len(data)), np.arange(len(data)) != 7
    one[7] = 1
    others = [
        data.where(gone),
        replace(data, ratings=None),
        replace(data, timestamps=None),
        replace(data, ratings=None, timestamps=None),
        replace(data, ratings=(data.ratings + one).astype(np.float32)),
        replace(data, timestamps=data.timestamps + one.astype(np.int64)),
        Interactions.empty(data.catalog),
    ]
    assert len({retained_digest(each) for each in [data, *others]}) == len(others) + 1


def test_zero_has_one_sign():
    catalog = numbered_catalog(2, 2)
    plus, minus = (retained_digest(Interactions.of(catalog, [0, 1], [0, 1], [zero, zero])) for zero in (0.0, -0.0))
    assert plus == minus
