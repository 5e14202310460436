"""Palette images as colours: indices are names, and blending names makes new ones."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp


@dataclass(frozen=True)
class Palette:
    """`table`: (entries, 4) uint8, red green blue alpha by index."""

    table: NDArray[np.uint8]

    @classmethod
    def of(cls, dataset: Any, colors: list[int], dtype: str) -> Self | None:
        """The palette of an open rasterio dataset; None where its one band is no index into a colour table."""
        if len(colors) != 1 or dtype not in ("uint8", "uint16"):
            return None
        if dataset.colorinterp[colors[0] - 1] != ColorInterp.palette:
            return None
        table = np.full((np.iinfo(dtype).max + 1, 4), (0, 0, 0, 255), np.uint8)
        for index, color in dataset.colormap(colors[0]).items():
            if index < len(table):
                table[index] = color
        return cls(table)

    @property
    def bands(self) -> list[str]:
        return ["red", "green", "blue"]

    @property
    def transparent(self) -> bool:
        """Whether an entry of the table is see-through; an index without an entry is black."""
        return bool((self.table[:, 3] == 0).any())

    def expand(self, indices: NDArray[Any]) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Colours (height, width, 3) of indices (height, width), and where they are opaque; None: everywhere."""
        colors = self.table[indices]
        opaque = colors[..., 3] > 0 if self.transparent else None
        return np.ascontiguousarray(colors[..., :3]), opaque
