"""A recommender you can take your data back from.

```python
import retract

model = retract.Exact().fit(ratings)                  # pandas, polars, CSR, a file: columns are found or named
model.recommend(["u7", "u9"], k=10)                   # user, item, score, rank, by your own ids
model.erase("u9")
receipt = model.unlearn(audit=True)                   # what was asked, what it cost, figures, certificate
model.save("model")
```

`Exact`, `FedShare`, `PersonalFR`, `UnlearnRec`, `LightGCN` and `RecEraser` are alike; `help(retract.Exact)` lists the
settings of each. `audit` asks whether any recommender forgot, `evaluate` how well any ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from retract.version import __version__

if TYPE_CHECKING:
    from retract.api import (
        Exact,
        FedShare,
        LightGCN,
        PersonalFR,
        Receipt,
        RecEraser,
        UnlearnRec,
        load,
        model,
    )
    from retract.api.tools import audit, evaluate

__all__ = [
    "Exact",
    "FedShare",
    "LightGCN",
    "PersonalFR",
    "RecEraser",
    "Receipt",
    "UnlearnRec",
    "__version__",
    "audit",
    "evaluate",
    "load",
    "model",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first asked for: `import retract` alone is quick."""
    if name not in __all__:
        raise AttributeError(f"module 'retract' has no attribute {name!r}")
    if name in ("audit", "evaluate"):
        from retract.api import tools

        return getattr(tools, name)
    from retract import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
