"""Bundles small enough to run in milliseconds, with the real file format: for every test that needs a model."""

from pathlib import Path
from typing import Any

import torch

from model.bundle import save_bundle
from model.foveation import FoveationModule
from model.networks.build import build_network
from tests.raster.cards import make_card

DARK, BRIGHT = 0, 1
"""Classes of `make_bundle`'s network: pixels below and above half of the value scale."""

CURVE = [
    {
        "coverage": "refined",
        "detail": detail,
        "threshold": threshold,
        "share": detail,
        "seconds": 1.0,
        "miou": 50.0,
        "low": -1.0,
        "high": 1.0,
    }
    for detail, threshold in ((0.0, 10.0), (0.5, 0.35), (1.0, -1.0))
]
"""Makes a bundle refinable: nothing is looked at closer at detail 0, everything at 1."""


def make_bundle(directory: Path, *, constant: int | None = None, **changes: Any) -> Path:
    """A bundle in `directory` whose network tells dark pixels from bright ones, or always says class `constant`.

    `changes` go to `make_card`: name, kind ("slide", "scene", "any"), spacing (None or µm), bands, dtype, patch_size,
    fovs, mapping, policy; `foveation=None` leaves F_theta out (its weights are random, always the same).
    """
    card = make_card(
        **{
            "classes": [
                {"value": DARK, "name": "dark", "color": (40, 40, 120)},
                {"value": BRIGHT, "name": "bright", "color": (250, 220, 90)},
            ],
            "provenance": {"data": "none; the weights were written down"},
        }
        | changes
    )
    network = build_network(card.network, len(card.classes))
    state = {name: torch.zeros_like(tensor) for name, tensor in network.state_dict().items()}
    if constant is None:
        # Normalised pixels are 0 at half of the scale.
        state["head.weight"][DARK], state["head.weight"][BRIGHT] = -2.0, 2.0
    else:
        state["head.bias"][constant] = 8.0
    foveation = None
    if card.foveation is not None:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            foveation = FoveationModule.from_card(card.foveation, len(card.input.bands), len(card.fovs)).state_dict()
    save_bundle(directory, card, state, foveation, readme=f"# {card.name}\n", training_yaml="{}\n")
    return directory


def make_scene_and_slide(directory: Path) -> Path:
    """`landcover` and `glands` as the shipped ones present themselves, in one directory for FOVEATE_BUNDLES."""
    make_bundle(directory / "landcover", name="landcover", kind="scene", spacing=None)
    make_bundle(directory / "glands", name="glands", kind="slide", mapping="explicit", policy="mode")
    return directory
