"""DICOM slides that OpenSlide refuses, through wsidicom."""

from pathlib import Path

import numpy as np
import pytest

from foveate.errors import ImageUnreadable
from raster.dicom import series_files
from raster.geometry import Region
from raster.image import ImageRef, RasterImage, open_image
from tests.raster.contract import ReaderContract
from tests.shared import DATA

SERIES = DATA / "slides/dicom-bpaec"


class TestGreyDicom(ReaderContract):
    reader, path = "wsidicom", SERIES

    def test_optical_paths_are_bands(self, image: RasterImage) -> None:
        info = image.info
        assert info.bands == ["gray", "undefined", "undefined"]
        assert (info.width, info.height, len(info.levels), info.dtype) == (3072, 2304, 8, "uint8")
        values = image.read(2, Region(0, 0, 768, 576)).values
        assert not np.array_equal(values[..., 0], values[..., 1])

    def test_spacing_is_that_of_the_largest_level(self, image: RasterImage) -> None:
        assert image.info.spacing is not None
        assert image.info.spacing.x == pytest.approx(1.29)


def test_one_instance_stands_for_its_series() -> None:
    assert series_files(SERIES / "7_0.dcm") == series_files(SERIES)
    assert len(series_files(SERIES)) == 9


def test_other_series_in_the_folder_are_left_out(tmp_path: Path) -> None:
    for source in (SERIES / "12_0.dcm", DATA / "slides/dicom-tiny/sm_image.dcm"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    assert series_files(tmp_path / "sm_image.dcm") == [tmp_path / "sm_image.dcm"]


def test_label_without_a_slide_is_refused_with_both_reasons() -> None:
    with pytest.raises(ImageUnreadable, match=r"openslide: .*concatenation.*wsidicom: ") as caught:
        open_image(ImageRef(DATA / "broken/sm_label_concatenation.dcm"))
    assert caught.value.hint
