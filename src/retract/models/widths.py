"""The layers of PersonalFR's autoencoder, their parameters' names and sizes; see `retract.models.learn.autoencoder`."""

from __future__ import annotations

from dataclasses import dataclass

ENCODER, DECODER = ("input", "code"), ("hidden", "output")
"""The layers of the two halves."""

BY_ITEM = ("input.weight", "output.weight", "output.bias")
"""Parameters with a row for each item: of them a client uses some rows only."""


def layer_of(name: str) -> str:
    """The layer that a parameter belongs to."""
    return name.split(".")[0]


@dataclass(frozen=True)
class Widths:
    """Sizes of the two inner layers."""

    hidden: int = 256
    code: int = 128

    def shapes(self, layers: tuple[str, ...], n_items: int) -> dict[str, tuple[int, ...]]:
        """The shape of every parameter of some layers, by name."""
        weights = {
            "input": (n_items, self.hidden),
            "code": (self.hidden, self.code),
            "hidden": (self.code, self.hidden),
            "output": (n_items, self.hidden),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in layers:
            rows, columns = weights[layer]
            shapes[f"{layer}.weight"] = (rows, columns)
            shapes[f"{layer}.bias"] = (n_items if layer == "output" else columns,)
            if layer != "output":
                shapes[f"{layer}.gain"] = shapes[f"{layer}.offset"] = (columns,)
        return shapes
