"""A pyramid of arrays answers as files do."""

import numpy as np

from raster.array import ArrayImage
from raster.geometry import Region
from tests.raster.contract import ReaderContract


class TestArrayImage(ReaderContract):
    reader = "array"

    def opened(self) -> ArrayImage:
        full = np.random.default_rng(2).integers(0, 255, (200, 300, 3), np.uint8)
        valid = np.arange(300)[None, :] >= np.full((200, 1), 30)
        return ArrayImage.of([full, full[::2, ::2]], [valid, valid[::2, ::2]])

    def test_reads_are_copies(self) -> None:
        image = self.opened()
        region = Region(0, 0, 2, 2)
        image.read(0, region).values[:] = 0
        assert image.read(0, region).values.any()

    def test_fields_of_its_info_may_be_chosen(self) -> None:
        image = ArrayImage.of([np.zeros((4, 5, 2), np.float32)], kind="scene", name="made")
        assert (image.info.kind, image.info.name, image.info.dtype) == ("scene", "made", "float32")
        assert image.info.bands == ["gray", "undefined"]
