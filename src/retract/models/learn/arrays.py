"""From the arrays that cross a border to tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor


def as_tensor(array: ArrayLike) -> Tensor:
    """The same values as a tensor, over the same memory; not to be written into.

    An array that is read-only, as one from a file or from the wire is, is copied: tensors cannot be that.
    """
    values: NDArray[Any] = np.asarray(array)
    return torch.from_numpy(values if values.flags.writeable else values.copy())
