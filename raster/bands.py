"""Which bands of an image a bundle sees, and how their values become the bundle's."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import BandsMismatch
from foveate.schema import ImageInfo, InputCard, SegmentOptions

_ROWS_AT_ONCE = 256
_TABLE_TYPES = frozenset({"uint8", "int8", "uint16", "int16"})


@dataclass(frozen=True)
class BandPlan:
    """The source bands in the bundle's order, and one conversion for every pixel of the image.

    `indices`: 0-based places in `Pixels.values`. `rescale`: the source values that become 0
    and `top`, clipped and rounded half up; None: values are taken as they are, `source_dtype` is `dtype` then.
    """

    indices: tuple[int, ...]
    source_dtype: str
    dtype: str
    rescale: tuple[float, float] | None = None
    top: float = 255.0
    warnings: tuple[str, ...] = ()

    def convert(self, values: NDArray[Any]) -> NDArray[Any]:
        """The bundle's pixels: (H, W, B) of the source's type in, C-contiguous (H, W, C) of the bundle's type out.

        A value always becomes the same value, whatever else the array holds. NaN becomes 0; it is no data anyway.
        """
        chosen = values
        if self.indices != tuple(range(values.shape[2])):
            # Band by band: indexing with a list takes eight times as long.
            chosen = np.stack([values[:, :, index] for index in self.indices], axis=2)
        if self.rescale is None:
            return np.ascontiguousarray(chosen, dtype=self.dtype)
        if self.source_dtype in _TABLE_TYPES and chosen.dtype == np.dtype(self.source_dtype):
            return np.ascontiguousarray(self._table[chosen.view(f"u{chosen.itemsize}")])
        converted = np.empty(chosen.shape, dtype=self.dtype)
        for row in range(0, chosen.shape[0], _ROWS_AT_ONCE):
            converted[row : row + _ROWS_AT_ONCE] = self._rescaled(chosen[row : row + _ROWS_AT_ONCE])
        return converted

    @cached_property
    def _table(self) -> NDArray[Any]:
        """The converted value of each bit pattern of the source's type."""
        dtype = np.dtype(self.source_dtype)
        patterns = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
        return self._rescaled(patterns.view(dtype))

    def _rescaled(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.rescale is None:
            return values
        low, high = self.rescale
        with np.errstate(all="ignore"):
            scaled = (values.astype(np.float64) - low) * self.top / (high - low)
            scaled = np.clip(np.nan_to_num(scaled, nan=0.0), 0.0, self.top)
        return (scaled if self.dtype == "float32" else np.floor(scaled + 0.5)).astype(self.dtype)


def plan_bands(info: ImageInfo, card: InputCard, options: SegmentOptions) -> BandPlan:
    """How `info`'s bands answer the bundle's input contract; BandsMismatch with the remedy where they do not.

    `--bands` counts from 1 along `info.bands`, as `foveate info` lists them: alpha, wherever it is stored, is no band.
    Without it, bands are found by their colour interpretation only, never by their place. For bundles that take other
    types than uint8, `--rescale` maps its upper value to the bundle's `value_scale`.
    """
    if info.dtype.startswith("complex"):
        raise BandsMismatch(
            f"{info.name} holds complex values ({info.dtype}), which no bundle can see",
            hint="write the amplitude to a file of its own and segment that",
        )
    missing = [] if options.bands else _missing(info, card)
    remedies = []
    reasons = []
    if missing:
        reasons.append(f"its bands are {_listed(info.bands)}, and the bundle needs {_listed(card.bands)}")
        remedies.append(_bands_remedy(info, card))
    if info.dtype != card.dtype and options.rescale is None:
        reasons.append(f"its values are {info.dtype}, and the bundle takes {card.dtype}")
        remedies.append(_rescale_remedy(info, card))
    if reasons:
        raise BandsMismatch(f"{info.name}: {'; '.join(reasons)}", hint=f"say {' and '.join(remedies)}")
    numbers = _checked(options.bands, info, card) if options.bands else _by_name(info, card)
    return BandPlan(
        indices=tuple(number - 1 for number in numbers),
        source_dtype=info.dtype,
        dtype=card.dtype,
        rescale=options.rescale,
        top=255.0 if card.dtype == "uint8" else card.value_scale,
        warnings=_unused(numbers, info),
    )


def fill_colour(card: InputCard) -> NDArray[Any]:
    """(bands,) in the bundle's dtype: the mean colour, which stands for what is not data."""
    mean = np.array(card.mean) * card.value_scale
    return mean.astype(np.float32) if card.dtype == "float32" else np.rint(mean).astype(card.dtype)


def _missing(info: ImageInfo, card: InputCard) -> list[str]:
    """The bundle's bands that no band, or more than one, of the image claims to be."""
    counts = Counter(info.bands)
    return [name for name in card.bands if counts[name] != 1]


def _by_name(info: ImageInfo, card: InputCard) -> list[int]:
    return [info.bands.index(name) + 1 for name in card.bands]


def _checked(numbers: list[int], info: ImageInfo, card: InputCard) -> list[int]:
    if len(numbers) != len(card.bands):
        raise BandsMismatch(
            f"--bands {_joined(numbers)} names {len(numbers)} bands, and the bundle needs {len(card.bands)}",
            hint=f"name one band for each of {_listed(card.bands)}, in this order",
        )
    for number in numbers:
        if number > len(info.bands):
            raise BandsMismatch(
                f"--bands {_joined(numbers)} names band {number}, and {info.name} has {_listed(info.bands)}",
                hint=f"use numbers from 1 to {len(info.bands)}",
            )
    return numbers


def _unused(numbers: list[int], info: ImageInfo) -> tuple[str, ...]:
    left = [k for k, name in enumerate(info.bands, start=1) if k not in numbers]
    if not left:
        return ()
    return (f"bands not used: {', '.join(f'{k} ({info.bands[k - 1]})' for k in left)}",)


def _bands_remedy(info: ImageInfo, card: InputCard) -> str:
    needed = len(card.bands)
    if len(info.bands) == 1:
        return f"--bands {_joined([1] * needed)} to show the one band as {_listed(card.bands)}"
    if len(info.bands) == needed:
        numbers = list(range(1, needed + 1))
        return f"--bands {_joined(numbers)} if they are {_listed(card.bands)}, or another order"
    return f"--bands with {needed} numbers from 1 to {len(info.bands)}, for {_listed(card.bands)}"


def _rescale_remedy(info: ImageInfo, card: InputCard) -> str:
    top = 255 if card.dtype == "uint8" else f"{card.value_scale:g}"
    example = "such as 0,1"
    if np.issubdtype(np.dtype(info.dtype), np.integer):
        limits = np.iinfo(info.dtype)
        example = f"{limits.min},{limits.max} for the whole range of {info.dtype}"
    return f"--rescale LO,HI, the values that become 0 and {top} ({example})"


def _listed(names: list[str]) -> str:
    return ", ".join(names)


def _joined(numbers: list[int]) -> str:
    return ",".join(str(number) for number in numbers)
