"""What everyone speaks: interactions, the catalog behind them, who shares what, and the data sets they come from."""

from retract.data.catalog import Catalog
from retract.data.columns import Columns
from retract.data.datasets import Dataset, from_csr, from_frame, load, to_dataset
from retract.data.interactions import Interactions
from retract.data.sharing import Sharing, sharing_of
from retract.data.splits import split_per_user

__all__ = [
    "Catalog",
    "Columns",
    "Dataset",
    "Interactions",
    "Sharing",
    "from_csr",
    "from_frame",
    "load",
    "sharing_of",
    "split_per_user",
    "to_dataset",
]
