"""A bundle out of a folder that segmentation_models_pytorch's `save_pretrained` wrote (config.json, model.safetensors).

The folder says what the network is; what it cannot know (name, licence, classes, pixels) comes from a small card of
the user's. The bundle has no F_theta: it tiles the image plainly, in patches of one size.
"""

import inspect
import json
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import torch
import yaml
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from foveate.bundles import SMP_CONFIG
from foveate.card import CARD_FILE, check_contract
from foveate.errors import BundleInvalid, OptionInvalid
from foveate.faults import faults_of
from foveate.schema import BundleCard, Rgb, Wire
from model.bundle import Bundle, check_appetite, read_tensors, save_bundle
from model.networks.build import STATED_ELSEWHERE, build_network

__all__ = ["adopt"]

_WEIGHTS = "model.safetensors"
_MAX_TEXT_BYTES = 1 << 20
_SOFTMAX = (None, "identity", "softmax", "softmax2d", "logsoftmax")
"""Last layers that leave the classes' probabilities as softmax finds them; Foveate takes the logits before."""
_COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999")
"""Okabe and Ito 2008; told apart by everybody."""


class _Class(Wire):
    """A name alone will do."""

    name: str
    value: int | None = None
    """Null: its place in the list."""
    color: Rgb | None = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, entry: Any) -> Any:
        return {"name": entry} if isinstance(entry, str) else entry


class _Input(Wire):
    kind: Literal["slide", "scene", "any"]
    mean: list[float]
    """Band by band, of values divided by `value_scale`: what training subtracted."""
    std: list[float]
    bands: list[str] | None = None
    """Null: red, green, blue, or gray."""
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    value_scale: float | None = None
    """Null: 255 for uint8; another dtype must state it."""
    spacing: float | None = None
    spacing_unit: Literal["um", "m"] | None = None
    spacing_range: list[float] | None = None


class _Card(Wire):
    """What the folder cannot know."""

    name: str
    licence: str
    patch_size: int
    classes: Annotated[list[_Class], Field(min_length=1)]
    input: _Input
    version: str = "1"
    description: str = ""
    provenance: dict[str, Any] = Field(default_factory=dict)


def adopt(folder: Path, card_file: Path | None, target: Path) -> Bundle:
    """Write the network in `folder` as a bundle into the directory `target`, weights in full precision.

    A network of one class (a sigmoid's logit z) becomes one of two, (0, z), whose softmax is that sigmoid; the card
    then names two classes, background first. Raises OptionInvalid for the card, BundleInvalid for the folder.
    """
    config = _read_config(folder)
    if card_file is None:
        raise OptionInvalid(
            f"{folder} holds a network of segmentation_models_pytorch, which says nothing of its use",
            hint=f"give --card CARD.json, at least {_example(config)}",
        )
    card = _bundle_card(_read_user_card(card_file, config), config, card_file, folder)
    try:
        check_contract(card, folder / SMP_CONFIG)
        check_appetite(card, folder / _WEIGHTS)
    except BundleInvalid as error:
        _refuse(error.message, "save a network that somebody trained")
    network = build_network(card.network, config["classes"])
    _check_patch_size(card, network, card_file)
    state = _read_state(folder, network, config)
    return save_bundle(
        target,
        card,
        state,
        None,
        readme=_readme(card),
        training_yaml="# Not trained by Foveate: taken over from a folder of segmentation_models_pytorch.\n",
        half=False,
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / SMP_CONFIG
    hint = "save the network again: model.save_pretrained(DIR)"
    if not (folder / _WEIGHTS).is_file():
        _refuse(f"{folder} has no {_WEIGHTS}; weights in any other form, such as a pickle, are not read", hint)
    try:
        config = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        _refuse(f"{path} is not JSON: {error}", hint)
    if not isinstance(config, dict) or not isinstance(config.get("_model_class"), str):
        _refuse(f"{path} names no _model_class", f"{hint}, with segmentation_models_pytorch 0.4 or newer")
    for name, kind in (("encoder_name", str), ("in_channels", int), ("classes", int)):
        value = config.get(name)
        if type(value) is not kind or (isinstance(value, int) and value < 1):
            _refuse(f"{path}: {name} is {config.get(name)!r}", hint)
    if config.get("aux_params") is not None:
        _refuse(
            f"{path}: aux_params adds a classification head, which a bundle cannot use", "save it without aux_params"
        )
    activation = config.get("activation")
    if activation not in _SOFTMAX and not (activation == "sigmoid" and config["classes"] == 1):
        _refuse(
            f"{path}: activation {activation!r} of {config['classes']} classes is not what Foveate computes, a softmax",
            "only networks whose classes exclude each other can be used",
        )
    return config


def _read_user_card(path: Path, config: dict[str, Any]) -> _Card:
    if not path.is_file():
        raise OptionInvalid(f"--card {path}: there is no such file", hint=f"write one, at least {_example(config)}")
    try:
        entries = yaml.safe_load(_text(path)) if path.suffix in (".yaml", ".yml") else json.loads(_text(path))
        return _Card.model_validate(entries)
    except ValidationError as error:
        reason = faults_of(error)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        reason = f"neither JSON nor YAML: {error}"
    raise OptionInvalid(f"--card {path}: {reason}", hint=f"a card holds at least {_example(config)}")


def _bundle_card(given: _Card, config: dict[str, Any], path: Path, folder: Path) -> BundleCard:
    outputs = max(2, config["classes"])
    if len(given.classes) != outputs:
        note = " (background and what the single output shows)" if config["classes"] == 1 else ""
        raise OptionInvalid(
            f"--card {path}: classes names {len(given.classes)}, the network in {folder} has {outputs}{note}",
            hint=f"a card holds at least {_example(config)}",
        )
    entries = {
        "format": 1,
        **given.model_dump(include={"name", "version", "licence", "patch_size"}),
        "network": _network(config, folder),
        "fovs": [given.patch_size],
        "foveation": None,
        "mapping": "implicit",
        "policy": "fixed:1",
        "input": _input(given.input, config["in_channels"], path),
        "classes": [_class(entry, place) for place, entry in enumerate(given.classes)],
        "provenance": {
            **given.provenance,
            **({"description": given.description} if given.description else {}),
            "taken_over_from": "segmentation_models_pytorch save_pretrained",
        },
    }
    try:
        return BundleCard.model_validate(entries)
    except ValidationError as error:
        raise OptionInvalid(f"--card {path}: {faults_of(error)}", hint="docs/models.md lists every field") from error


def _network(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    # Takes seconds to import (torchvision, timm).
    import segmentation_models_pytorch as smp  # noqa: PLC0415

    by_class = {kind.__name__: (name, kind) for name, kind in smp.MODEL_ARCHITECTURES_MAPPING.items()}
    if config["_model_class"] not in by_class:
        _refuse(
            f"{folder / SMP_CONFIG}: there is no {config['_model_class']!r} in segmentation_models_pytorch",
            f"use one of {', '.join(sorted(by_class))}",
        )
    architecture, kind = by_class[config["_model_class"]]
    defaults = {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}
    options = {}
    for name, value in config.items():
        default = defaults.get(name)
        as_json = list(default) if isinstance(default, tuple) else default
        if name.startswith("_") or name in STATED_ELSEWHERE or value == as_json:
            continue
        if value is None or isinstance(value, dict):
            _refuse(f"{folder / SMP_CONFIG}: a bundle cannot hold {name} = {value!r}", "leave it at its default")
        options[name] = value
    return {
        "library": "smp",
        "architecture": architecture,
        "encoder": config["encoder_name"],
        "in_channels": config["in_channels"],
        "options": options,
    }


def _input(given: _Input, channels: int, path: Path) -> dict[str, Any]:
    bands = given.bands or {1: ["gray"], 3: ["red", "green", "blue"]}.get(channels)
    if bands is None or len(bands) != channels:
        raise OptionInvalid(
            f"--card {path}: input.bands has {len(bands or [])} entries, the network takes {channels}",
            hint='name every band in order, such as ["red", "green", "blue", "nir"]',
        )
    if given.value_scale is None and given.dtype != "uint8":
        raise OptionInvalid(
            f"--card {path}: input.value_scale is missing for {given.dtype}", hint="state what training divided by"
        )
    return {**given.model_dump(), "bands": bands, "value_scale": given.value_scale or 255.0}


def _class(given: _Class, place: int) -> dict[str, Any]:
    color = given.color or tuple(bytes.fromhex(_COLOURS[place % len(_COLOURS)][1:]))
    return {"value": place if given.value is None else given.value, "name": given.name, "color": color}


def _check_patch_size(card: BundleCard, network: nn.Module, path: Path) -> None:
    side, stride = card.patch_size, getattr(network.encoder, "output_stride", 1)
    if getattr(network, "requires_divisible_input_shape", False) and side % stride:
        raise OptionInvalid(
            f"--card {path}: patch_size {side} is no multiple of {stride}, the stride of {card.network.encoder}",
            hint=f"set patch_size to {max(1, round(side / stride)) * stride}",
        )


def _read_state(folder: Path, network: nn.Module, config: dict[str, Any]) -> dict[str, Tensor]:
    state = read_tensors(folder / _WEIGHTS, network.state_dict())
    if config["classes"] > 1:
        return state
    for name in ("segmentation_head.0.weight", "segmentation_head.0.bias"):
        if name not in state:
            _refuse(f"{folder}: {config['_model_class']} of one class cannot be given two", "train it with two classes")
        state[name] = torch.cat([torch.zeros_like(state[name]), state[name]])
    return state


def _example(config: dict[str, Any]) -> str:
    """The smallest card for this network, to be filled in, on one line."""
    channels, classes = config["in_channels"], config["classes"]
    names = ["background", "building"] if classes <= 2 else [f"class {k}" for k in range(min(classes, 64))]
    return json.dumps(
        {
            "name": "my-model",
            "licence": "Apache-2.0",
            "patch_size": 512,
            "classes": names,
            "input": {
                "kind": "scene",
                **({} if channels in (1, 3) else {"bands": [f"band {k}" for k in range(min(channels, 64))]}),
                "mean": [0.5] * min(channels, 64),
                "std": [0.25] * min(channels, 64),
            },
        }
    )


def _readme(card: BundleCard) -> str:
    front = {
        "license": card.licence,
        "library_name": "segmentation-models-pytorch",
        "pipeline_tag": "image-segmentation",
    }
    description = card.provenance.get("description", "Its makers left no description.")
    return (
        f"---\n{yaml.safe_dump(front, allow_unicode=True)}---\n# {card.name}\n\n{description}\n\n"
        f"{card.network.architecture} on {card.network.encoder}, taken over by `foveate models add`; "
        f"{CARD_FILE} says what it takes and gives.\n"
    )


def _text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > _MAX_TEXT_BYTES:
        raise ValueError(f"no file of at most {_MAX_TEXT_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def _refuse(message: str, hint: str) -> NoReturn:
    raise BundleInvalid(message, hint=hint)
