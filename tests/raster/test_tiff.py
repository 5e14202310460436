"""OME-TIFF through tifffile."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from foveate.errors import ImageUnreadable
from raster.geometry import Region
from raster.image import ImageRef, RasterImage, open_image
from raster.tiff import TiffImage
from tests.raster.contract import ReaderContract, whole
from tests.shared import DATA

ODD = DATA / "slides/OS-2-ndpi.ome.tif"


class TestOddOme(ReaderContract):
    reader, path = "tifffile", ODD

    def test_spacing_is_the_physical_size(self, image: RasterImage) -> None:
        assert image.info.spacing is not None
        assert image.info.spacing.x == pytest.approx(0.2271, abs=1e-4)
        assert image.info.spacing.origin.startswith("OME")

    def test_tissue_is_there(self, image: RasterImage) -> None:
        means = whole(image).values.mean(axis=(0, 1))
        assert image.info.bands == ["red", "green", "blue"]
        assert (means > 60).all()
        assert np.ptp(means) > 1


class TestChannelPyramid(ReaderContract):
    reader = "tifffile"

    @pytest.fixture(autouse=True)
    def _written(self, tmp_path: Path) -> None:
        self.path = tmp_path / "channels.ome.tif"
        write_pyramid(self.path)

    def test_channels_are_bands_and_subifds_levels(self, image: RasterImage) -> None:
        assert image.info.bands == ["gray", "undefined"]
        assert [(level.width, level.height) for level in image.info.levels] == [(301, 203), (151, 102)]
        np.testing.assert_array_equal(whole(image).values, np.moveaxis(channels(), 0, 2))

    def test_nanometres_become_micrometres(self, image: RasterImage) -> None:
        assert image.info.spacing is not None
        assert (image.info.spacing.x, image.info.spacing.y) == (0.5, 0.25)


def channels() -> "np.ndarray[tuple[int, int, int], np.dtype[np.uint16]]":
    rows, columns = np.mgrid[0:203, 0:301]
    return np.stack([rows * 100 + columns, 40_000 - rows * 50 - columns * 30]).astype(np.uint16)


def write_pyramid(path: Path) -> None:
    full = channels()
    half = full[:, ::2, ::2]
    metadata = {
        "axes": "CYX",
        "PhysicalSizeX": 500,
        "PhysicalSizeXUnit": "nm",
        "PhysicalSizeY": 250,
        "PhysicalSizeYUnit": "nm",
    }
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(full, subifds=1, tile=(64, 64), compression="zlib", predictor=True, metadata=metadata)
        file.write(half, subfiletype=1, tile=(64, 64), compression="zlib", predictor=True)


def test_strips_and_separate_planes_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    values = rng.integers(0, 255, (3, 70, 50), np.uint8)
    path = tmp_path / "planar.ome.tif"
    tifffile.imwrite(path, values, photometric="rgb", planarconfig="separate", rowsperstrip=16, ome=True)
    with closing(open_image(ImageRef(path, reader="tifffile"))) as image:
        np.testing.assert_array_equal(whole(image).values, np.moveaxis(values, 0, 2))
        np.testing.assert_array_equal(
            image.read(0, Region(7, 13, 20, 40)).values, values[:, 13:53, 7:27].transpose(1, 2, 0)
        )


def test_other_planes_are_named_as_unused(tmp_path: Path) -> None:
    values = np.arange(3 * 2 * 20 * 30, dtype=np.uint16).reshape(3, 2, 20, 30)
    path = tmp_path / "stack.ome.tif"
    tifffile.imwrite(path, values, ome=True, metadata={"axes": "ZCYX"})
    with closing(open_image(ImageRef(path))) as image:
        np.testing.assert_array_equal(whole(image).values, np.moveaxis(values[0], 0, 2))
        assert image.info.warnings == ["only the first of 3 along axis Z is used"]


def test_only_the_blocks_touched_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pyramid(tmp_path / "a.ome.tif")
    with closing(open_image(ImageRef(tmp_path / "a.ome.tif"))) as image:
        asked: list[int] = []
        decoded = TiffImage._decoded

        def counted(self: TiffImage, key: Any, page: Any, index: int) -> Any:
            asked.append(index)
            return decoded(self, key, page, index)

        monkeypatch.setattr(TiffImage, "_decoded", counted)
        image.read(0, Region(64, 64, 64, 64))
    assert asked == [6, 6]


def test_cut_file_names_the_block(tmp_path: Path) -> None:
    data = ODD.read_bytes()
    cut = tmp_path / "cut.ome.tif"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageUnreadable, match=r"cut\.ome\.tif"), closing(open_image(ImageRef(cut))) as image:
        whole(image)
