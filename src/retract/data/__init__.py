"""What everyone speaks: interactions, the catalog behind them, and who shares what."""

from retract.data.catalog import Catalog
from retract.data.interactions import Interactions
from retract.data.sharing import Sharing
from retract.data.splits import split_per_user

__all__ = ["Catalog", "Interactions", "Sharing", "split_per_user"]
