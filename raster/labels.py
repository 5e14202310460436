"""Label images: the stored number of every pixel (readers of pictures would give the palette's colour for it)."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from foveate.errors import ImageUnreadable

__all__ = ["read_labels"]


def read_labels(path: Path) -> NDArray[np.uint8]:
    """(H, W) uint8: the class numbers in a one-band 8-bit image, such as an indexed PNG; else ImageUnreadable."""
    try:
        with Image.open(path) as image:
            if image.mode not in ("P", "L"):
                raise ImageUnreadable(
                    f"{path} is no label image: its pixels are {image.mode}",
                    hint="Give one band of 8-bit class numbers.",
                )
            return np.asarray(image)
    except (UnidentifiedImageError, OSError) as error:
        raise ImageUnreadable(f"{path} cannot be read as a label image: {error}", hint="Replace the file.") from error
