"""What noise did to the eigenvalues of a sum, and taking it back: a better estimate at the same privacy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def shrunk(matrix: NDArray[Any], deviation: float) -> NDArray[np.float64]:
    """An estimate of a positive semi-definite X from X plus symmetric Gaussian noise.

    Eigenvalues y, in units of σ√n, become √(y² - 4) above 2, and 0 elsewhere: so far noise alone reaches. Of all
    estimates that keep the eigenvectors it has the least squared error, for large n and few eigenvalues that stand out
    (Gavish and Donoho, *Optimal shrinkage of singular values*, IEEE Trans. IT 2017, for square matrices).

    Parameters
    ----------
    matrix
        Shape [n, n], symmetric.
    deviation
        σ of every entry; 0 leaves the matrix as it is.

    Returns
    -------
    ndarray
        float64, shape [n, n], positive semi-definite.
    """
    whole: NDArray[np.float64] = np.asarray(matrix, dtype=np.float64)
    level = deviation * len(whole) ** 0.5
    if not level:
        return whole
    values, vectors = np.linalg.eigh(whole)
    stands = values > 2 * level
    kept, vectors = np.sqrt(values[stands] ** 2 - 4 * level**2), vectors[:, stands]
    found: NDArray[np.float64] = (vectors * kept) @ vectors.T
    return found
