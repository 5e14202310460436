"""Bundles: a trained network and its F_theta in a directory that can be trusted after reading (design 4.4).

`bundle.json` says what the networks are, `weights.safetensors` holds their tensors under the prefixes `network.` and
`foveation.`. Nothing is ever unpickled, and no tensor is read before its name, type and shape are
what the card implies.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from pydantic_core import PydanticSerializationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foveate.card import (
    CARD_FILE,
    README_FILE,
    TRAINING_FILE,
    WEIGHTS_FILE,
    bundle_digest,
    bundle_file,
    read_card,
)
from foveate.errors import BundleInvalid, FoveateError
from foveate.schema import BundleCard, CoverageCard
from model.foveation import FoveationModule
from model.networks.build import build_network, input_channels

__all__ = [
    "Bundle",
    "VerifyReport",
    "load_bundle",
    "load_networks",
    "read_tensors",
    "save_bundle",
    "store_coverage",
    "verify_bundle",
]

_FLOATS = {"F16", "BF16", "F32"}
_INTEGERS = {"I64"}
_LEAST_BYTES = 2
"""Of a number in `_FLOATS`."""
_MODEST_BYTES = 1 << 30
"""Networks up to this size are built whatever their file holds, so that a missing tensor can be named."""
_HEADER_BYTES_PER_TENSOR = 4096
"""A generous share of the file's JSON header; what is beyond it is not weights."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose card has been read; its weights have not."""

    card: BundleCard
    directory: Path
    sha256: str
    """Hex digest over bundle.json and weights.safetensors."""


@dataclass(frozen=True)
class VerifyReport:
    """What `verify_bundle` found in a sound bundle; sizes in bytes, parameters counted."""

    name: str
    version: str
    sha256: str
    files: dict[str, int]
    network_parameters: int
    foveation_parameters: int
    checks: list[str]


def load_bundle(path: Path) -> Bundle:
    """Read and check the card in the directory `path`; raises BundleUnknown or BundleInvalid."""
    directory = Path(path)
    return Bundle(read_card(directory), directory, bundle_digest(directory))


def load_networks(bundle: Bundle, device: torch.device | str = "cpu") -> tuple[nn.Module, FoveationModule | None]:
    """The segmentation network and F_theta (None where the card has none) on `device`: float32, in evaluation mode.

    Raises BundleInvalid naming the tensor that is missing, superfluous, of another shape or type, or not finite.
    """
    check_appetite(bundle.card, bundle_file(bundle.directory, WEIGHTS_FILE))
    network, foveation = _fresh_networks(bundle.card)
    modules: dict[str, nn.Module] = {"network": network}
    if foveation is not None:
        modules["foveation"] = foveation
    expected = {
        f"{part}.{name}": tensor for part, module in modules.items() for name, tensor in module.state_dict().items()
    }
    tensors = read_tensors(bundle_file(bundle.directory, WEIGHTS_FILE), expected)
    for part, module in modules.items():
        module.load_state_dict({name: tensors[f"{part}.{name}"] for name in module.state_dict()})
        module.to(device).eval().requires_grad_(False)
    return network, foveation


def read_tensors(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, in the dtypes of `expected`, whose names, shapes and kinds they must have.

    Raises BundleInvalid naming the tensor that is missing, superfluous, of another shape or type, or not finite.
    Nothing is read before the file's size is plausible.
    """
    largest = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    largest += _HEADER_BYTES_PER_TENSOR * (len(expected) + 1)
    if path.stat().st_size > largest:
        _refuse(f"{path} has {path.stat().st_size} bytes; the networks of the card take at most {largest}")
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            for kind, odd in (("lacks", expected.keys() - names), ("has the superfluous", names - expected.keys())):
                if odd:
                    _refuse(f"{path} {kind} tensor {min(odd)} ({len(odd)} of that kind)")
            return {name: _checked_tensor(path, file, name, wanted) for name, wanted in expected.items()}
    except (SafetensorError, OSError) as error:
        _refuse(f"{path} cannot be read: {error}", cause=error)


def save_bundle(
    directory: Path,
    card: BundleCard,
    network_state: Mapping[str, Tensor],
    foveation_state: Mapping[str, Tensor] | None,
    *,
    readme: str,
    training_yaml: str,
    half: bool = True,
) -> Bundle:
    """Write a bundle into `directory` (made if need be, its four files replaced) and read it back.

    `half` stores convolution kernels and other tensors of two or more axes in half precision; biases, norms and running
    statistics, a few KB, stay float32, for small variances would be lost. Raises BundleInvalid where a value is not
    finite, too large for half precision, or where the states do not belong to the card.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network_state.items()}
    tensors |= {f"foveation.{name}": tensor for name, tensor in (foveation_state or {}).items()}
    stored = {name: _for_disk(name, tensor, half) for name, tensor in tensors.items()}
    text = _card_text(card)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CARD_FILE).unlink(missing_ok=True)
    (directory / README_FILE).write_text(readme, encoding="utf-8")
    (directory / TRAINING_FILE).write_text(training_yaml, encoding="utf-8")
    save_file(stored, directory / WEIGHTS_FILE)
    (directory / WEIGHTS_FILE).chmod(0o644)  # safetensors leaves it to its owner alone; a service has another user
    # Last and at once: a directory with a card is a whole bundle, whenever the process was killed.
    scratch = directory / f".{CARD_FILE}"
    scratch.write_text(text + "\n", encoding="utf-8")
    scratch.replace(directory / CARD_FILE)
    bundle = load_bundle(directory)
    load_networks(bundle)
    return bundle


def store_coverage(directory: Path, coverage: CoverageCard) -> Bundle:
    """Put a measured curve into the card of the bundle in `directory`, at once; its digest changes with it."""
    card = read_card(directory)
    checked = BundleCard.model_validate(card.model_copy(update={"coverage": coverage}).model_dump())
    scratch = directory / f".{CARD_FILE}"
    scratch.write_text(_card_text(checked) + "\n", encoding="utf-8")
    scratch.replace(directory / CARD_FILE)
    return load_bundle(directory)


def verify_bundle(path: Path) -> VerifyReport:
    """Everything that can be checked without an image: files, card, weights, and a forward on random input.

    Raises BundleUnknown or BundleInvalid at the first fault.
    """
    directory = Path(path)
    bundle = load_bundle(directory)
    files = _verified_files(directory)
    network, foveation = load_networks(bundle)
    _verify_network(bundle, network)
    checks = ["files", "card", "weights", "network forward"]
    if foveation is not None:
        _verify_foveation(bundle, foveation)
        checks.append("F_theta forward")
    return VerifyReport(
        name=bundle.card.name,
        version=bundle.card.version,
        sha256=bundle.sha256,
        files=files,
        network_parameters=_parameters(network),
        foveation_parameters=0 if foveation is None else _parameters(foveation),
        checks=checks,
    )


def _card_text(card: BundleCard) -> str:
    try:
        return card.model_dump_json(indent=2)
    except PydanticSerializationError as error:
        _refuse(
            f"the card of {card.name} cannot be written as JSON: {error}",
            hint="give provenance numbers, texts, lists and objects only",
            cause=error,
        )


def _fresh_networks(card: BundleCard) -> tuple[nn.Module, FoveationModule | None]:
    network = build_network(card.network, len(card.classes))
    if card.foveation is None:
        return network, None
    return network, FoveationModule.from_card(card.foveation, card.network.in_channels, len(card.fovs))


def check_appetite(card: BundleCard, path: Path) -> None:
    """Refuse a card whose networks would take more memory than the weights at `path` can fill, before they take it."""
    try:
        with torch.device("meta"):
            modules = _fresh_networks(card)
    except BundleInvalid:
        return  # some encoders cannot be laid out without memory; what is really wrong is found again with it
    tensors = [tensor for module in modules if module is not None for tensor in module.state_dict().values()]
    least = sum(tensor.numel() * _LEAST_BYTES for tensor in tensors if tensor.is_floating_point())
    if least > max(_MODEST_BYTES, path.stat().st_size):
        _refuse(f"{path} has {path.stat().st_size} bytes; the networks of the card take at least {least}")


def _checked_tensor(path: Path, file: Any, name: str, wanted: Tensor) -> Tensor:
    header = file.get_slice(name)
    shape, dtype = tuple(header.get_shape()), header.get_dtype()
    if shape != tuple(wanted.shape):
        _refuse(f"{path}: tensor {name} has shape {shape}, the card implies {tuple(wanted.shape)}")
    if dtype not in (_FLOATS if wanted.is_floating_point() else _INTEGERS):
        _refuse(f"{path}: tensor {name} is of type {dtype}")
    tensor: Tensor = file.get_tensor(name).to(wanted.dtype)
    if not bool(torch.isfinite(tensor).all()):
        _refuse(f"{path}: tensor {name} holds values that are not finite")
    return tensor


def _for_disk(name: str, tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    if not tensor.is_floating_point():
        return tensor
    if not bool(torch.isfinite(tensor).all()):
        _refuse(f"tensor {name} holds values that are not finite", hint="train again from an earlier checkpoint")
    stored = tensor.to(torch.float16 if half and tensor.ndim > 1 else torch.float32)
    if not bool(torch.isfinite(stored).all()):
        _refuse(f"tensor {name} holds values beyond half precision", hint="save the bundle with half=False")
    # A copy of its own: safetensors refuses two names for one memory, and views would drag their whole storage along.
    return stored.clone()


def _verified_files(directory: Path) -> dict[str, int]:
    ours = (CARD_FILE, WEIGHTS_FILE, README_FILE, TRAINING_FILE)
    for path in sorted(directory.iterdir()):
        if path.name not in ours:
            _refuse(f"{path} does not belong in a bundle", hint=f"remove it; a bundle holds {', '.join(ours)} alone.")
    return {name: bundle_file(directory, name).stat().st_size for name in ours}


def _verify_network(bundle: Bundle, network: nn.Module) -> None:
    card = bundle.card
    side = card.patch_size
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn((2, input_channels(card.network), side, side), generator=generator)
    scores = _forward(bundle, "the network", network, patches)
    wanted = (2, len(card.classes), side, side)
    if tuple(scores.shape) != wanted:
        _refuse(f"{bundle.directory}: the network's output has shape {tuple(scores.shape)}, not {wanted}")


def _verify_foveation(bundle: Bundle, foveation: FoveationModule) -> None:
    # Thumbnails have any size, down to a single cell.
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, bundle.card.network.in_channels, 7, 5), (1, bundle.card.network.in_channels, 1, 1)):
        distribution = _forward(bundle, "F_theta", foveation, torch.randn(shape, generator=generator))
        if not torch.allclose(distribution.sum(dim=1), torch.ones(())):
            _refuse(f"{bundle.directory}: the output of F_theta does not sum to 1")


def _forward(bundle: Bundle, what: str, module: nn.Module, batch: Tensor) -> Tensor:
    try:
        with torch.inference_mode():
            output: Tensor = module(batch)
    except FoveateError:
        raise
    except Exception as error:  # whatever a third party's network raises means that the bundle does not work
        _refuse(f"{bundle.directory}: {what} fails on input of shape {tuple(batch.shape)}: {error}", cause=error)
    if not bool(torch.isfinite(output).all()):
        _refuse(f"{bundle.directory}: {what} gives values that are not finite")
    return output


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _refuse(
    message: str, hint: str = "export the bundle again, or get it anew", cause: Exception | None = None
) -> NoReturn:
    raise BundleInvalid(message, hint=hint) from cause
