"""The model as one small file for clients: whoever holds it needs to ask the server for nothing.

Asking for the rows of single items would tell the server which items a client holds in private. So clients get all
rows, sparsified, in eight bits a number, and compressed.
"""

from __future__ import annotations

import json
import lzma
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import norm

from retract.data import Catalog, Interactions
from retract.errors import ConfigError, FolderError
from retract.models.ease import regularised_inverse
from retract.models.fold_in import FoldIn
from retract.models.gram import rows, user_weights, weighted_gram
from retract.models.graph_filter import sides
from retract.models.item_matrix import LEVELS, ItemToItem, Quantised, largest, largest_weights
from retract.models.recommender import Scores, recommend
from retract.systems.base import Trained
from retract.systems.exact.config import ExactConfig, require_memory
from retract.systems.exact.reading import folding_numbers
from retract.systems.exact.tables import Tables, form_of

MAGIC = b"retract shipped model 1\n"


@dataclass(frozen=True, eq=False)
class ShippedFolding:
    """What a client folds its history into: the items' vectors in eight bits a number.

    Parameters
    ----------
    levels
        int8, shape [n_items, d].
    scale
        The largest size of an entry of each row, float32, shape [n_items].
    support
        Users that hold each item, int64, shape [n_items].
    numbers
        The other arguments of `FoldIn`.
    """

    levels: NDArray[np.int8]
    scale: NDArray[np.float32]
    support: NDArray[np.int64]
    numbers: Mapping[str, float]

    @classmethod
    def of(cls, trained: Trained, columns: int) -> ShippedFolding:
        """The first columns, which are the strongest."""
        assert isinstance(trained.config, ExactConfig)
        table, model = trained.model["items"][:, :columns], trained.model
        scale = np.abs(table).max(axis=1).astype(np.float32)
        levels = np.rint(table / np.where(scale > 0, scale, 1)[:, None] * LEVELS).astype(np.int8)
        numbers = {"mean_degree": float(model["mean_degree"]), **folding_numbers(trained.config)}
        return cls(levels, scale, model["degrees"], numbers)

    @cached_property
    def reader(self) -> FoldIn:
        """What reads a history."""
        return FoldIn(self.levels.astype(np.float32) / LEVELS * self.scale[:, None], self.support, **self.numbers)


@dataclass(frozen=True)
class ShippedModel:
    """What a client holds: the items, and a sparse item-to-item matrix or what a history is folded into.

    Parameters
    ----------
    item_ids, titles
        As in the catalog.
    matrix
        B, float32, shape [n_items, n_items]: a history's scores are the sum of its items' rows.
    folding
        Of the spectral form, instead of B.
    """

    item_ids: NDArray[np.str_]
    titles: NDArray[np.str_] | None
    matrix: sp.csr_matrix | None = None
    folding: ShippedFolding | None = None

    def scores(self, users: NDArray[np.int64], history: Interactions) -> Scores:
        """Shape [len(users), n_items]."""
        if self.folding is not None:
            return self.folding.reader.scores(users, history)
        assert self.matrix is not None
        return ItemToItem(self.matrix).scores(users, history)

    def recommend(self, items: Iterable[str], k: int | None = None) -> list[tuple[str, str, float]]:
        """The `k` best items for somebody who has `items`: original id, title and score of each.

        Raises
        ------
        UnknownIdError
            If an item is unknown; the message names the nearest known ids.
        ConfigError
            If k lies outside [1, number of items].
        """
        catalog = Catalog(np.array(["somebody"]), self.item_ids, self.titles)
        own = catalog.items(items)
        history = Interactions.of(catalog, np.zeros(len(own)), own)
        best = recommend(self, np.zeros(1, dtype=np.int64), history, min(10, catalog.n_items) if k is None else k)
        return [
            (str(self.item_ids[item]), catalog.title(item), score)
            for item, score in zip(best.items[0].tolist(), best.scores[0].tolist(), strict=True)
            if np.isfinite(score)
        ]

    def to_bytes(self) -> bytes:
        """The file."""
        names: dict[str, Any] = {"items": self.item_ids.tolist()}
        names["titles"] = None if self.titles is None else self.titles.tolist()
        if self.folding is not None:
            names["folding"] = dict(self.folding.numbers)
            parts = {name: getattr(self.folding, name) for name in ("levels", "scale", "support")}
        else:
            assert self.matrix is not None
            parts = _written(self.matrix)
        payload = safetensors.numpy.save(parts, metadata={"catalog": json.dumps(names)})
        return MAGIC + lzma.compress(payload, preset=6)

    @classmethod
    def from_bytes(cls, content: bytes, source: str = "this file") -> ShippedModel:
        """Read what `to_bytes` wrote.

        Raises
        ------
        FolderError
            If it is something else or damaged.
        """
        if not content.startswith(MAGIC):
            raise FolderError(f"{source} is not a shipped model: make one with `retract ship`")
        try:
            payload = lzma.decompress(content[len(MAGIC) :])
            parts = safetensors.numpy.load(payload)
            size = int.from_bytes(payload[:8], "little")
            names = json.loads(json.loads(payload[8 : 8 + size])["__metadata__"]["catalog"])
            titles = None if names["titles"] is None else np.array(names["titles"], dtype=np.str_)
            items = np.array(names["items"], dtype=np.str_)
            if "folding" in names:
                return cls(items, titles, folding=ShippedFolding(**parts, numbers=names["folding"]))
            return cls(items, titles, _read(parts))
        except (lzma.LZMAError, EOFError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise FolderError(f"{source} is damaged ({type(error).__name__}): ship the model again") from None

    @classmethod
    def load(cls, path: Path) -> ShippedModel:
        """Read a file. Errors as in `from_bytes`."""
        if path.is_dir():
            raise FolderError(f"{path} is a folder: give a shipped file")
        if not path.exists():
            raise FolderError(f"no such file: {path}; `retract ship` makes one")
        return cls.from_bytes(path.read_bytes(), str(path))


def _written(matrix: sp.csr_matrix) -> dict[str, NDArray[Any]]:
    small = Quantised.of(matrix)
    gaps = np.diff(matrix.indices, prepend=0).astype(np.int64)
    first = matrix.indptr[:-1][np.diff(matrix.indptr) > 0]
    gaps[first] = matrix.indices[first]
    planes = gaps.astype("<u4").view(np.uint8).reshape(-1, 4).T  # equal bytes side by side compress best
    parts: dict[str, NDArray[Any]] = {"counts": small.counts, "scale": small.scale, "levels": small.levels}
    return parts | {f"gaps.{place}": np.ascontiguousarray(plane) for place, plane in enumerate(planes)}


def _read(parts: Mapping[str, NDArray[Any]]) -> sp.csr_matrix:
    counts, planes = parts["counts"], [parts[f"gaps.{place}"] for place in range(4)]
    gaps = np.stack(planes, axis=1).reshape(-1).view("<u4").astype(np.int64)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    columns = np.cumsum(gaps)
    columns -= np.repeat((columns - gaps)[indptr[:-1][counts > 0]], counts[counts > 0])
    return Quantised(counts, columns, parts["levels"], parts["scale"]).matrix


def ship(trained: Trained, *, max_bytes: int = 2_000_000, epsilon: float | None = None, delta: float = 1e-6) -> bytes:
    """The largest entries of the item-to-item matrix, or of the spectral form the leading columns, as room allows.

    Parameters
    ----------
    trained
        A model of Exact. Of the spectral form the filter beside it does not go along.
    max_bytes
        Size of the file at most.
    epsilon, delta
        With `epsilon`, the shipped model is (ε, δ)-differentially private for whole users. It is an EASE of what is
        shared, whatever form the model has: see `noisy_gram`.

    Raises
    ------
    ConfigError
        If the settings allow no model, or the machine has no room for the noise.
    """
    catalog = trained.shared.catalog
    if form_of(trained.model) == "spectral" and epsilon is None:
        most = trained.model["items"].shape[1]
        start = max_bytes // catalog.n_items

        def made(size: int) -> ShippedModel:
            return ShippedModel(catalog.item_ids, catalog.titles, folding=ShippedFolding.of(trained, size))

    else:
        matrix = _item_matrix(trained, epsilon, delta, entries=max_bytes)
        most, start = matrix.nnz, max_bytes // 2

        def made(size: int) -> ShippedModel:
            return ShippedModel(catalog.item_ids, catalog.titles, largest(matrix, size))

    size, best = max(min(start, most), min(most, 1)), None
    for _ in range(4):
        content = made(size).to_bytes()
        fill = len(content) / max_bytes
        best = content if fill <= 1 else best
        if 0.9 < fill <= 1 or (fill <= 1 and size == most):
            break
        size = min(max(int(size / fill * 0.96), 1), most)
    if best is not None:
        return best
    raise ConfigError(f"{max_bytes:,} bytes are too few for a catalog of {catalog.n_items:,} items: allow more")


def _item_matrix(trained: Trained, epsilon: float | None, delta: float, entries: int) -> sp.csr_matrix:
    """B, of large ones the largest entries; float32."""
    assert isinstance(trained.config, ExactConfig)
    config, form = trained.config, form_of(trained.model)
    if epsilon is not None:
        if config.count_private:
            raise ConfigError("noise is added to sums over shared data, and count_private sums more: leave it off")
        require_memory(trained.shared.n_items)
        # From the system's entropy, never from a seed: whoever could draw the noise again could take it off.
        draw = np.random.default_rng(secrets.randbits(256))
        gram, ridge = noisy_gram(trained.shared, config, epsilon, delta, draw)
        return largest_weights(regularised_inverse(sp.csr_matrix(gram), ridge), entries)
    if form == "ease":
        return largest_weights(trained.model["inverse"], entries)
    assert config.filter_beta is not None
    tables = Tables.of(trained.model)
    read, said = sides(tables["degrees"] + config.filter_prior, config.filter_beta)
    return largest(sp.csr_matrix(sp.diags(read) @ tables.gram.total @ sp.diags(said)), entries)


def noisy_gram(
    shared: Interactions, config: ExactConfig, epsilon: float, delta: float, draw: np.random.Generator
) -> tuple[NDArray[np.float64], float]:
    """EASE's Gram matrix with Gaussian noise, and the ridge that outweighs the noise.

    A user's term is bounded by ‖ω x xᵀ‖_F = ω n ≤ 1 (weights are lowered to 1/n), so one user more or less moves the
    sum by at most 1, and the noise of `gaussian_deviation` makes all that is computed from it (ε, δ)-private. `draw`
    must be seeded by a secret that is thrown away.

    Returns
    -------
    gram, ridge
        float64, shape [n_items, n_items]; λ plus twice the deviation times √n_items, the noise's largest eigenvalue.
    """
    deviation = gaussian_deviation(epsilon, delta)
    degrees = shared.user_degrees()
    weights = user_weights(degrees, max(config.ease_exponent, 1.0))
    gram: NDArray[np.float64] = weighted_gram(rows(shared), weights).toarray()
    n = shared.n_items
    upper = np.triu(draw.normal(scale=deviation, size=(n, n)))
    gram += upper + np.triu(upper, 1).T
    return gram, config.ridge + 2 * deviation * float(np.sqrt(n))


def gaussian_deviation(epsilon: float, delta: float) -> float:
    """The least deviation that makes a sum of sensitivity 1 (ε, δ)-private (Balle and Wang, ICML 2018, theorem 8).

    Raises
    ------
    ConfigError
        If ε is not positive, or δ lies outside (0, 1).
    """
    if not (epsilon > 0 and np.isfinite(epsilon)) or not 0 < delta < 1:
        raise ConfigError(f"epsilon {epsilon:g} must be above 0, and delta {delta:g} between 0 and 1")

    def excess(deviation: float) -> float:
        half, scaled = 0.5 / deviation, epsilon * deviation
        return float(norm.cdf(half - scaled) - np.exp(epsilon + norm.logcdf(-half - scaled)) - delta)

    return float(brentq(excess, 1e-3 / np.sqrt(epsilon), 1e3 * (1 + 1 / epsilon)))
