"""The card of a bundle, read strictly, its digest, and what its policies may be; needs neither torch nor numpy.

A bundle is a directory (design 4.4). `bundle.json` is untrusted input: its size is limited, a duplicate key, an unknown
key, NaN and infinity are refused, and a file that a link leads out of the directory is not opened.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NoReturn

from pydantic import ValidationError

from foveate.errors import BundleInvalid, BundleUnknown, OptionInvalid
from foveate.faults import faults_of
from foveate.schema import BundleCard, checked_policy

__all__ = [
    "CARD_FILE",
    "README_FILE",
    "TRAINING_FILE",
    "WEIGHTS_FILE",
    "bundle_digest",
    "bundle_file",
    "check_contract",
    "check_policy",
    "fovs_nest",
    "possible_policies",
    "read_card",
]

CARD_FILE = "bundle.json"
WEIGHTS_FILE = "weights.safetensors"
README_FILE = "README.md"
TRAINING_FILE = "training.yaml"

MAX_CARD_BYTES = 1 << 20
MAX_WIDTH = 8192
"""Channels of a layer; far above any network here, and low enough that a card cannot ask for all memory."""
_MAX_DIGITS = 18
_DISTRIBUTION_POLICIES = ("mean", "mode", "gumbel")
_MIXING_POLICIES = ("mean", "average")


def read_card(directory: Path) -> BundleCard:
    """The checked card of the bundle in `directory`.

    Raises BundleUnknown where there is no bundle, BundleInvalid where the card breaks its contract.
    """
    if not directory.is_dir() or not (directory / CARD_FILE).exists():
        raise BundleUnknown(
            f"{directory} holds no {CARD_FILE}", hint="name a bundle directory, or see `foveate models list`"
        )
    text = _card_text(bundle_file(directory, CARD_FILE))
    try:
        # Strict JSON mode of pydantic: "256" is no integer, and 1 is no boolean.
        card = BundleCard.model_validate_json(text, strict=True)
    except ValidationError as error:
        _refuse(
            f"{directory / CARD_FILE}: {faults_of(error)}", "correct bundle.json (docs/models.md lists every field)"
        )
    check_contract(card, directory / CARD_FILE)
    return card


def bundle_digest(directory: Path) -> str:
    """SHA-256 (hex) over the names, sizes and bytes of bundle.json and weights.safetensors: a bundle's identity."""
    digest = hashlib.sha256()
    for name in (CARD_FILE, WEIGHTS_FILE):
        path = bundle_file(directory, name)
        # Name and size first, so that moving a byte from one file to the other changes the digest.
        digest.update(f"{name}:{path.stat().st_size}:".encode())
        try:
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)
        except OSError as error:
            _refuse(f"{path} cannot be read: {error.strerror}", "check its permissions and the disk")
    return digest.hexdigest()


def bundle_file(directory: Path, name: str) -> Path:
    """The path of the regular file `name` inside `directory`; BundleInvalid if it is missing or lies elsewhere."""
    path = directory / name
    if not path.is_file():
        _refuse(f"{directory} has no file {name}", "restore the file, or export the bundle again")
    if not path.resolve().is_relative_to(directory.resolve()):
        _refuse(f"{path} is a link to {path.resolve()}, outside the bundle", "replace the link by the file itself")
    return path


def check_policy(policy: str, *, fovs: int, mapping: Literal["implicit", "explicit"], foveated: bool = True) -> None:
    """OptionInvalid, naming the policies that are possible, unless a bundle of this kind can follow `policy`.

    `fovs` is the number of fields of view; `foveated` says whether the bundle has an F_theta.
    """
    possible = f"possible here: {', '.join(possible_policies(fovs=fovs, mapping=mapping, foveated=foveated))}"
    try:
        checked_policy(policy)
    except ValueError as error:
        raise OptionInvalid(str(error), hint=possible) from error
    name, _, argument = policy.partition(":")
    if len(argument) > _MAX_DIGITS:
        raise OptionInvalid(f"policy {policy[:40]!r}…: the number has {len(argument)} digits", hint=possible)
    if name == "fixed" and int(argument) > fovs:
        raise OptionInvalid(f"policy {policy!r}: the bundle has {fovs} fields of view", hint=possible)
    if mapping == "explicit" and name in _MIXING_POLICIES:
        raise OptionInvalid(
            f"policy {policy!r} mixes fields of view, which explicit mapping cannot read back", hint=possible
        )
    if not foveated and fovs > 1 and name in _DISTRIBUTION_POLICIES:
        raise OptionInvalid(f"policy {policy!r} needs an F_theta, and the bundle has none", hint=possible)


def possible_policies(*, fovs: int, mapping: Literal["implicit", "explicit"], foveated: bool = True) -> list[str]:
    """The policies that such a bundle can follow, as written on the command line."""
    names = list(_DISTRIBUTION_POLICIES) if foveated or fovs == 1 else []
    names += [f"fixed:{k}" for k in range(1, fovs + 1)] + ["average", "random", "random:SEED", "ensemble"]
    return [name for name in names if mapping == "implicit" or name not in _MIXING_POLICIES]


def _card_text(path: Path) -> bytes:
    if path.stat().st_size > MAX_CARD_BYTES:
        _refuse(
            f"{path} has {path.stat().st_size} bytes, more than {MAX_CARD_BYTES}",
            "keep long texts in README.md, not in the card",
        )
    try:
        text = path.read_bytes()
    except OSError as error:
        _refuse(f"{path} cannot be read: {error.strerror}", "check its permissions and the disk")
    try:
        json.loads(
            text.decode("utf-8"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_finite,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        _refuse(f"{path} is not strict JSON: {error}", "write UTF-8 JSON with distinct keys and finite numbers")
    return text


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} occurs twice")
    return dict(pairs)


def _finite(literal: str) -> float:
    value = float(literal)
    if not math.isfinite(value):
        raise ValueError(f"{literal} is not a finite number")
    return value


def check_contract(card: BundleCard, path: Path) -> None:
    """What holds between fields and is not a matter of JSON; BundleInvalid names `path` and the field."""
    try:
        check_policy(card.policy, fovs=len(card.fovs), mapping=card.mapping, foveated=card.foveation is not None)
    except OptionInvalid as error:
        _refuse(f"{path}: {error.message}", error.hint)
    _check_widths(card, path)
    if card.coverage.default == "dense":
        return
    if card.mapping != "explicit":
        _refuse(
            f"{path}: coverage.default {card.coverage.default!r} needs explicit mapping, this bundle maps implicitly",
            'set coverage.default to "dense"',
        )
    if not fovs_nest(card.fovs):
        _refuse(
            f"{path}: coverage.default {card.coverage.default!r} needs several fovs with integer ratios, and these are "
            f"{card.fovs}",
            'set coverage.default to "dense", or train with nested fields of view',
        )
    if not any(point.coverage == card.coverage.default and point.low >= 0 for point in card.coverage.curve):
        _refuse(
            f"{path}: coverage.default {card.coverage.default!r} is not supported by coverage.curve: at no point is it "
            "as good as the best fixed scale",
            'set coverage.default to "dense", or measure the curve with `foveate evaluate`',
        )


def fovs_nest(fovs: Sequence[int]) -> bool:
    """Whether there are several, each a whole multiple of the next finer one."""
    return len(fovs) > 1 and not any(coarse % fine for fine, coarse in pairwise(fovs))


def _check_widths(card: BundleCard, path: Path) -> None:
    widths = {} if card.foveation is None else {"foveation.hidden": card.foveation.hidden}
    for name, value in card.network.options.items():
        numbers = [number for number in (value if isinstance(value, list) else [value]) if isinstance(number, int)]
        widths[f"network.options.{name}"] = max(numbers, default=0)
    for name, width in widths.items():
        if width > MAX_WIDTH:
            _refuse(f"{path}: {name} is {width}, more than {MAX_WIDTH}", "correct that field of bundle.json")


def _refuse(message: str, hint: str) -> NoReturn:
    raise BundleInvalid(message, hint=hint)
