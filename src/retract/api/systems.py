"""The models by name. Each docstring lists its settings: `help(retract.Exact)` reads like a page."""

from __future__ import annotations

from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, TypeVar

from retract.api.models import Model
from retract.errors import ConfigError
from retract.stores.folder import TrainedFolder
from retract.systems.registry import system_type
from retract.systems.system import SystemType

Made = TypeVar("Made", bound=type[Model])


def _documented(made: Made) -> Made:
    """The class with its settings in its docstring and its signature."""
    fields = made.kind.config.model_fields
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    told = [
        f"    {name}\n        {field.description or 'See its source.'} Default: {defaults[name]!r}."
        for name, field in fields.items()
    ]
    seed = "    seed\n        Key of every random draw: the same seed gives the same model. Default: 0."
    made.__doc__ = "\n".join([(made.__doc__ or "").rstrip(), "", "    Parameters", "    ----------", *told, seed, ""])
    parameters = [Parameter(name, Parameter.KEYWORD_ONLY, default=default) for name, default in defaults.items()]
    seeds = Parameter("seed", Parameter.KEYWORD_ONLY, default=0)
    made.__signature__ = Signature([*parameters, seeds])  # type: ignore[attr-defined]
    return made


@_documented
class Exact(Model):
    """Closed-form recommenders that forget exactly, in milliseconds: EASE, the graph filter, or both in blocks.

    After every withdrawal the model is, to floating-point error, the one that training without the data gives. It takes
    in new users and items, and needs no torch.

    >>> model = retract.Exact().fit(ratings)
    >>> model.recommend("u7", k=10)
    >>> model.erase("u9")
    >>> receipt = model.unlearn(audit=True)
    """

    kind = system_type("exact")


@_documented
class FedShare(Model):
    """Federated recommendation with user-chosen sharing (Qu et al., arXiv 2603.11610, 2026).

    Users share what they choose (`fit(..., share=0.5)` or a column `shared`), the rest stays on their devices, which
    are simulated here. Needs the extra `learn`.

    >>> model = retract.FedShare(rounds=50).fit(ratings, share=0.5)
    >>> model.unshare("u7", items=["i3"])
    >>> model.unlearn()
    """

    kind = system_type("fedshare")


@_documented
class PersonalFR(Model):
    """Private encoders and one federated decoder, for ratings and for what has none (Le et al., arXiv 2212.08779).

    Nothing has to be shared. New users are served by `extend`. Needs the extra `learn`.

    >>> model = retract.PersonalFR().fit(ratings)
    >>> model.erase("u9")
    >>> model.unlearn()
    """

    kind = system_type("personalfr")


@_documented
class UnlearnRec(Model):
    """LightGCN, SGL or SimGCL, forgetting in one pass of a pre-trained encoder (Chen et al., arXiv 2505.22649).

    Everything lies on the server. Needs the extra `learn`.

    >>> model = retract.UnlearnRec(backbone="simgcl").fit(ratings)
    >>> model.unshare("u7")
    >>> model.unlearn()
    """

    kind = system_type("unlearnrec")


@_documented
class LightGCN(Model):
    """Centralised LightGCN (He et al., SIGIR 2020); it forgets by training again. Needs the extra `learn`.

    >>> model = retract.LightGCN(steps=200).fit(ratings)
    >>> model.recommend()
    """

    kind = system_type("lightgcn")


@_documented
class RecEraser(Model):
    """Shards of similar users, each with a model; the touched ones are trained again (Chen et al., WWW 2022).

    Needs the extra `learn`.

    >>> model = retract.RecEraser(shards=10).fit(ratings)
    >>> model.erase("u9")
    >>> model.unlearn()
    """

    kind = system_type("receraser")


_OURS = {made.kind.name: made for made in (Exact, FedShare, PersonalFR, UnlearnRec, LightGCN, RecEraser)}


def model(system: str, **settings: Any) -> Any:
    """A model of any system by name, plugged-in ones included: `retract.model("exact", ridge=50)`.

    Raises
    ------
    ConfigError
        If there is no such system or setting.
    """
    return _class_of(system)(**settings)


def load(path: str | Path) -> Any:
    """A model that was saved by `Model.save` or trained by `retract train`.

    Raises
    ------
    FolderError
        If there is none, or it is damaged.
    """
    place = Path(path)
    return _class_of(TrainedFolder(place).manifest().system).of_folder(place)


def _class_of(system: str) -> type[Model]:
    """The class of a system; one made for the occasion for a system that is plugged in."""
    if system in _OURS:
        return _OURS[system]
    kind: SystemType = system_type(system)
    name = "".join(part.capitalize() for part in system.replace("-", "_").split("_"))
    if not name.isidentifier():
        raise ConfigError(f"system {system!r} has a name that no class can have: plug it in under another")
    return _documented(type(name, (Model,), {"kind": kind, "__doc__": f"{system}, plugged in."}))
