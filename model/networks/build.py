"""Segmentation networks by name, our own and those of segmentation_models_pytorch ("smp").

Letters: N patches, C bands (one more where the card asks for the scale channel), H W pixels, K classes.
"""

import inspect
import re
from collections.abc import Callable

from torch import nn

from foveate.errors import BundleInvalid
from foveate.schema import NetworkCard
from model.networks.hrnet import HRNet
from model.networks.small import Fcn, Linear
from model.networks.upernet import UPerNet

__all__ = ["build_network", "input_channels"]

STATED_ELSEWHERE = {"encoder_name", "encoder_weights", "in_channels", "classes", "activation", "aux_params"}
"""Arguments of smp's that a card states elsewhere, or that would download weights or change what `forward` returns."""


_ENCODER = re.compile(r"[A-Za-z0-9_.-]+")
"""timm takes "hf-hub:..." and "local-dir:..." for a place to load from: nothing that a card says is ever fetched."""

_OURS: dict[str, Callable[..., nn.Module]] = {
    "fcn": Fcn,
    "hrnet_w18": lambda channels, classes: HRNet(channels, classes, width=18),
    "hrnet_w48": lambda channels, classes: HRNet(channels, classes, width=48),
    "linear": Linear,
    "upernet_resnet50": UPerNet,
}


def input_channels(card: NetworkCard) -> int:
    """Channels that the network takes: the bands, and the scale channel where there is one."""
    return card.in_channels + int(card.scale_channel)


def build_network(card: NetworkCard, classes: int) -> nn.Module:
    """The network of `card` with fresh random weights.

    Its `forward` takes (N, C, H, W) normalised float32, the last channel holding log2(f / P) where `scale_channel` is
    set, and gives logits (N, `classes`, H, W); in training mode the HRNets and UPerNet give them at a quarter of the
    size, rounded up. Networks of "smp" need H and W to be multiples of their encoder's stride, mostly 32; ours take any
    size. What ImageNet weights may fill is the submodule `encoder`, where there is one.
    Raises BundleInvalid for a name or an option that the library does not know.
    """
    if card.library == "foveate":
        return _own(card, classes)
    return _smp(card, classes)


def _own(card: NetworkCard, classes: int) -> nn.Module:
    if card.architecture not in _OURS:
        raise BundleInvalid(
            f"network.architecture {card.architecture!r} is not one of our own networks",
            hint=f'Use one of {", ".join(sorted(_OURS))}, or library "smp".',
        )
    if card.encoder is not None:
        raise BundleInvalid(
            f"network.encoder {card.encoder!r}: the encoder of {card.architecture} cannot be chosen",
            hint="Set network.encoder to null.",
        )
    try:
        return _OURS[card.architecture](input_channels(card), classes, **card.options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise _bad_options(card, error) from error


def _smp(card: NetworkCard, classes: int) -> nn.Module:
    # Takes seconds to import (torchvision, timm), which our own small networks need not pay.
    import segmentation_models_pytorch as smp  # noqa: PLC0415

    architectures = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
    if card.architecture not in architectures:
        raise BundleInvalid(
            f"network.architecture {card.architecture!r} is not in segmentation_models_pytorch",
            hint=f"Use one of {', '.join(architectures)}.",
        )
    if card.encoder is None:
        raise BundleInvalid(
            f"network.encoder is missing: {card.architecture} needs one", hint="Name one, such as resnet18."
        )
    if not _ENCODER.fullmatch(card.encoder):
        raise BundleInvalid(
            f"network.encoder {card.encoder!r} is no name",
            hint="Names have letters, digits, '_', '-' and '.'; weights are never fetched from a hub.",
        )
    # The constructors pass what they do not know on to the encoder, where it vanishes without a word.
    known = set(inspect.signature(smp.MODEL_ARCHITECTURES_MAPPING[card.architecture]).parameters)
    allowed = known - STATED_ELSEWHERE - {"kwargs"}
    if unknown := set(card.options) - allowed:
        raise BundleInvalid(
            f"network.options may not hold {', '.join(sorted(unknown))}",
            hint=f"{card.architecture} takes {', '.join(sorted(allowed))}.",
        )
    try:
        network: nn.Module = smp.create_model(
            card.architecture,
            encoder_name=card.encoder,
            encoder_weights=None,
            in_channels=input_channels(card),
            classes=classes,
            **card.options,
        )
    except (KeyError, RuntimeError) as error:
        raise BundleInvalid(
            f"network.encoder {card.encoder!r} cannot be made for {card.architecture}: {error}",
            hint=f"Use a timm model as tu-NAME, or one of {', '.join(smp.encoders.get_encoder_names())}.",
        ) from error
    except (TypeError, ValueError) as error:
        raise _bad_options(card, error) from error
    return network


def _bad_options(card: NetworkCard, error: Exception) -> BundleInvalid:
    return BundleInvalid(
        f"network.options {card.options} do not suit {card.architecture}: {error}",
        hint="Use keyword arguments of that architecture's constructor.",
    )
