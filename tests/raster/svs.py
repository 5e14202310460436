"""Slides in Aperio's manner, written for tests: JPEG tiles, levels of any size, a thumbnail and a label among them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray


def write_svs(path: Path, levels: Sequence[NDArray[np.uint8]], tile: int = 256, **options: Any) -> Path:
    """`levels`: (height, width, 3), finest first. `options` go to every level's `tifffile.TiffWriter.write`."""
    height, width = levels[0].shape[:2]
    frame = f"{width}x{height} ({tile}x{tile}) JPEG/RGB Q=90"
    description = f"Aperio Image Library v11.2.1 \r\n{frame}|AppMag = 20|MPP = 0.5"
    # No chroma subsampling and the best quality: what is asked of these slides is where their pixels lie.
    settings: dict[str, Any] = {"photometric": "rgb", "compression": "jpeg", "metadata": None}
    settings["compressionargs"] = {"level": 100, "outcolorspace": "rgb"}
    with tifffile.TiffWriter(path) as file:
        for index, level in enumerate(levels):
            tiled = {**settings, "tile": (tile, tile), **options}
            file.write(level, description=description if index == 0 else None, **tiled)
            if index == 0:
                file.write(level[::8, ::8], rowsperstrip=16, description="thumbnail", **settings)
        label = np.zeros((60, 90, 3), np.uint8)
        file.write(label, rowsperstrip=16, subfiletype=1, description="label 90x60", **settings)
    return path
