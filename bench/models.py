"""Bundles that only benches need, made on demand: a tiny FCN, and a per-pixel network with a bank of any length."""

from pathlib import Path
from typing import Any

import torch

from bench.report import ROOT
from foveate.schema import BundleCard
from model.bundle import save_bundle
from model.foveation import FoveationModule
from model.networks.build import build_network

SHIPPED = ROOT / "bundles"
_THRESHOLDS = (-0.8, 0.0, 0.8)
"""Of brightness, in standard deviations of the normalisation."""
_RAISED, _SHARPNESS = 4.0, 10.0
_COLORS = [(36, 110, 200), (222, 192, 138), (110, 110, 118), (204, 58, 46)]
_REFINES_ALL = {"coverage": "refined", "detail": 1.0, "threshold": 0.0, "share": 1.0, "seconds": 0.0}
_REFINES_ALL |= {"miou": 0.0, "low": 0.0, "high": 0.0}
"""No measurement: refined coverage then goes down wherever a score is uncertain at all, which takes the most memory."""


def tiny_fcn(folder: Path, patch: int = 512) -> Path:
    """Four classes by brightness over 5 x 5 pixels, one field of view of `patch` pixels.

    The weights are written down: random ones give a class to every speck, and a mask that no trained network gives.
    """
    return _bundle(folder, "tiny-fcn", "fcn", [patch], patch)


def pixelwise(folder: Path, bank: int, patch: int = 256) -> Path:
    """A 1x1 convolution behind `bank` fields of view, each twice the one before."""
    return _bundle(folder, f"pixelwise-{bank}", "linear", [patch * 2**k for k in range(bank)], patch)


def _bundle(folder: Path, name: str, architecture: str, fovs: list[int], patch: int) -> Path:
    card = _card(name, architecture, fovs, patch)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = build_network(card.network, len(card.classes)).state_dict()
        foveation = None
        if card.foveation is not None:
            foveation = FoveationModule.from_card(card.foveation, 3, len(fovs)).state_dict()
    if architecture == "fcn":
        _by_brightness(network)
    save_bundle(folder / name, card, network, foveation, readme=f"# {name}\n", training_yaml="{}\n", half=False)
    return folder / name


def _by_brightness(state: dict[str, torch.Tensor]) -> None:
    """Channel 0 carries the mean of nine pixels, twice, raised above 0 for the ReLUs; the head cuts it at thresholds.

    Class k's score is a line of slope k, and two neighbours' lines cross at a threshold.
    """
    state["body.0.weight"][0], state["body.0.bias"][0] = 1 / 27, _RAISED
    state["body.2.weight"][0], state["body.2.bias"][0] = 0.0, 0.0
    state["body.2.weight"][0, 0] = 1 / 9
    slopes, cuts = torch.arange(len(_COLORS)), torch.tensor([0.0, *(cut + _RAISED for cut in _THRESHOLDS)])
    state["head.weight"].zero_()
    state["head.weight"][:, 0, 0, 0] = _SHARPNESS * slopes
    state["head.bias"][:] = -_SHARPNESS * cuts.cumsum(0)


def _card(name: str, architecture: str, fovs: list[int], patch: int) -> BundleCard:
    one = len(fovs) == 1
    fields: dict[str, Any] = {
        "format": 1,
        "name": name,
        "version": "1",
        "licence": "Apache-2.0",
        "network": {"library": "foveate", "architecture": architecture, "in_channels": 3},
        "patch_size": patch,
        "fovs": fovs,
        "foveation": None if one else {"downsample": 32, "hidden": 8},
        "mapping": "explicit",
        "policy": "fixed:1" if one else "mode",
        "coverage": {"curve": [] if one else [_REFINES_ALL]},
        "input": {"kind": "any", "bands": ["red", "green", "blue"], "dtype": "uint8", "value_scale": 255.0}
        | {"mean": [0.5] * 3, "std": [0.25] * 3, "spacing": None, "spacing_unit": None, "spacing_range": None},
        "classes": [{"value": k, "name": f"class {k}", "color": color} for k, color in enumerate(_COLORS)],
        "provenance": {"data": "none: random weights, for measurements"},
    }
    return BundleCard.model_validate(fields)
