"""Pictures of F_theta's maps while it learns (Fig. B.4.4): 0, dark, is the smallest field of view, 1 the largest."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import colormaps, image
from numpy.typing import NDArray
from torch import Tensor, nn

from model.foveation import FoveationModule
from model.inputs import Normalise
from model.metrics import foveation_map, normalised_map
from model.training.devices import Place
from model.training.images import OpenImages
from model.training.locations import Locations
from raster.geometry import Region

__all__ = ["MapPictures"]

_SIDE = 512
"""Cells of a map that are drawn at most: the middle of a larger one."""


class MapPictures:
    """The maps of some training images, drawn every so many updates into a folder; called by the training loop."""

    def __init__(
        self,
        foveation: nn.Module,
        images: OpenImages,
        grids: Sequence[Locations],
        normalise: Normalise,
        folder: Path,
        every: int,
        place: Place,
    ) -> None:
        assert isinstance(foveation, FoveationModule)
        self._foveation, self._folder, self._every, self._place = foveation, folder, every, place
        self._fovs = grids[0].fovs
        self._thumbnails: list[Tensor] = []
        for k, grid in enumerate(grids):
            pixels = torch.from_numpy(np.ascontiguousarray(grid.thumbnail(images[k], _middle(grid.shape))))
            self._thumbnails.append(normalise(pixels[None].to(place.device)))
        images.close()

    def __call__(self, step: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
        """The name and the picture (Y, X, 3) of each image after update `step`, where one is due."""
        if step % self._every:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for k, distribution in enumerate(self._distributions(), start=1):
            shares = normalised_map(foveation_map(distribution, self._fovs), self._fovs)
            colours = colormaps["viridis"](shares, bytes=True)[..., :3]
            image.imsave(self._folder / f"{k}-{step:07d}.png", colours)
            yield f"map/{k}", colours

    @torch.no_grad()
    def _distributions(self) -> list[NDArray[np.float32]]:
        training = self._foveation.training
        self._foveation.eval()
        outputs = [self._foveation(thumbnail)[0] for thumbnail in self._thumbnails]
        self._foveation.train(training)
        return [(out.exp() if self._foveation.log_probabilities else out).cpu().numpy() for out in outputs]


def _middle(shape: tuple[int, int]) -> Region:
    rows, columns = (min(side, _SIDE) for side in shape)
    return Region((shape[1] - columns) // 2, (shape[0] - rows) // 2, columns, rows)
