"""The interface that every reader answers, and the opener that chooses one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.schema import ImageInfo
from raster.geometry import Region


@dataclass(frozen=True)
class Pixels:
    """A rectangle of pixels.

    `values`: (height, width, bands), the file's dtype, bands in the file's order (alpha not among them).
    `valid`: (height, width) bool, True where the pixel is data; None: every pixel is.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_] | None


class RasterImage(Protocol):
    """One open image; used by one thread at a time, and opened again (not shared) in another thread or process.

    `info` never changes. `read` gives the pixels of `region` (in pixels of `level`, wholly inside it) or raises
    ImageUnreadable if any of them cannot be decoded; the handle stays usable afterwards. `read_valid` gives what `read`
    gives as `valid` without decoding colours where the format allows it. `close` may be called twice.
    """

    @property
    def info(self) -> ImageInfo: ...

    def read(self, level: int, region: Region) -> Pixels: ...

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class ImageRef:
    """How to open an image again in another thread or process; picklable."""

    path: Path
    sidecars: bool = True
    """Whether .ovr, .msk and .aux.xml beside the file may be read: a local user's yes, an uploader's no."""
    reader: str | None = None
    """The reader that was chosen, so that one job uses one reader; None: choose."""
