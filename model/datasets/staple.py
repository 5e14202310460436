"""Several raters' maps of one image, fused by STAPLE (Warfield et al. 2004) through SimpleITK, which is an extra."""

import importlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import EngineMissing, OptionInvalid
from raster.geometry import Region
from raster.labels import LabelFile, write_numbers

__all__ = ["UNDECIDED", "fuse", "staple"]

UNDECIDED = 255
"""Where the estimate holds two labels for equally likely."""
_MOST_ROUNDS = 100
_STOP_BELOW = 1e-5


def fuse(maps: Sequence[Path], out: Path) -> None:
    """Write the fused map of 8-bit label rasters of one size to `out`, a PNG, whole or not at all."""
    numbers = [_read(path) for path in maps]
    for path, values in zip(maps, numbers, strict=True):
        if values.shape != numbers[0].shape:
            raise OptionInvalid(
                f"{path} has {values.shape[1]} x {values.shape[0]} px, and {maps[0]} "
                f"{numbers[0].shape[1]} x {numbers[0].shape[0]}",
                hint="Unpack the maps of this image again.",
            )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_numbers(out, staple(numbers))


def staple(maps: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """(H, W) the likeliest label by all raters' (H, W) maps, each trusted as far as its estimated confusions allow.

    EngineMissing without SimpleITK.
    """
    if len(maps) == 1:
        return maps[0]
    itk = _simpleitk()
    estimate = itk.MultiLabelSTAPLEImageFilter()
    estimate.SetLabelForUndecidedPixels(UNDECIDED)
    estimate.SetTerminationUpdateThreshold(_STOP_BELOW)
    estimate.SetMaximumNumberOfIterations(_MOST_ROUNDS)
    fused = estimate.Execute([itk.GetImageFromArray(np.ascontiguousarray(values)) for values in maps])
    return np.asarray(itk.GetArrayFromImage(fused), np.uint8)


def _read(path: Path) -> NDArray[np.uint8]:
    with closing(LabelFile(path)) as file:
        if file.kind == "colours" or file.info.dtype != "uint8":
            raise OptionInvalid(f"{path} is no map of 8-bit grades", hint="Unpack the maps of this image again.")
        return np.asarray(file.read(0, Region(0, 0, file.info.width, file.info.height)).values[..., 0], np.uint8)


def _simpleitk() -> Any:
    try:
        return importlib.import_module("SimpleITK")
    except ModuleNotFoundError as error:
        raise EngineMissing(
            "the raters' maps of Gleason2019 are fused by SimpleITK, and it is not installed",
            hint="pip install 'SimpleITK>=2.3'",
        ) from error
