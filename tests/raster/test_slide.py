"""Slides through OpenSlide: real files, and a faked handle for the formats without a sample here."""

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from foveate.errors import ImageLimits, ImageUnreadable
from raster import slide
from raster.geometry import Region
from raster.image import ImageRef, RasterImage, open_image
from raster.limits import Limits
from raster.slide import SlideImage, vendor_of
from tests.raster.contract import ReaderContract, whole
from tests.shared import DATA

SLIDES = DATA / "slides"


class TestAperio(ReaderContract):
    reader, path = "openslide", SLIDES / "CMU-1-Small-Region.svs"

    def opened(self) -> RasterImage:
        return open_image(ImageRef(self.path, reader=self.reader))

    def test_label_and_macro_are_no_levels(self, image: RasterImage) -> None:
        assert [(level.width, level.height) for level in image.info.levels] == [(2220, 2967)]

    def test_spacing_is_the_files(self, image: RasterImage) -> None:
        spacing = image.info.spacing
        assert spacing is not None
        assert (spacing.x, spacing.y, spacing.unit) == (0.499, 0.499, "um")
        assert (image.info.kind, image.info.driver, image.info.validity) == ("slide", "aperio", "none")


class TestHamamatsu(ReaderContract):
    reader, path = "openslide", SLIDES / "test3-DAPI-2-387.ndpi"

    def test_has_all_its_levels(self, image: RasterImage) -> None:
        assert [level.width for level in image.info.levels] == [3968, 1984, 992, 496, 248, 124, 62]


class TestDicomFolder(ReaderContract):
    reader, path = "openslide", SLIDES / "dicom-tiny"

    def test_any_instance_is_the_slide(self) -> None:
        for path in sorted((SLIDES / "dicom-boxes").iterdir()):
            with closing(open_image(ImageRef(path))) as image:
                assert (image.info.width, image.info.height, image.info.driver) == (16, 16, "dicom")

    def test_anisotropic_spacing_is_kept(self) -> None:
        with closing(open_image(ImageRef(SLIDES / "dicom-camelyon"))) as image:
            assert image.info.spacing is not None
            assert (image.info.spacing.x, image.info.spacing.y) == (28.969, 28.968)


@pytest.mark.parametrize("name", ["/etc/passwd", "../other/a.jpg", "a/../../b.jpg"])
@pytest.mark.parametrize("kind", ["mirax", "vms"])
def test_a_slide_that_names_files_elsewhere_is_not_opened(tmp_path: Path, kind: str, name: str) -> None:
    if kind == "mirax":
        path, index = tmp_path / "a.mrxs", tmp_path / "a" / "Slidedat.ini"
        path.write_bytes(b"\xff\xd8\xff")
        index.parent.mkdir()
    else:
        path = index = tmp_path / "a.vms"
    columns = "NoLayers = 1\nNoJpegColumns = 1\nNoJpegRows = 1\n"
    index.write_text(f"[Virtual Microscope Specimen]\n{columns}ImageFile = {name}\nMapFile = {name}\n")
    with pytest.raises(ImageUnreadable, match="outside its own folder"):
        slide.open_file(path, sidecars=False, limits=Limits())


def test_a_level_in_huge_tiles_is_not_opened() -> None:
    with pytest.raises(ImageLimits, match="blocks of 240 x 240"):
        slide.open_file(TestAperio.path, sidecars=False, limits=Limits(block_bytes=200_000))


class FakeHandle:
    """Answers as an OpenSlide handle: a canvas of 400 x 300 whose scanned part is see-through outside bounds."""

    def __init__(self, vendor: str, bounds: tuple[int, int, int, int] | None) -> None:
        self.dimensions = (400, 300)
        self.level_dimensions = ((400, 300), (100, 75))
        self.level_downsamples = (1.0, 4.0)
        self.properties = {"openslide.vendor": vendor, "openslide.mpp-x": "0.25", "openslide.mpp-y": "0.26"}
        self.bounds = bounds or (0, 0, 400, 300)
        self.closed, self.fail = False, False
        if bounds:
            names = ("x", "y", "width", "height")
            self.properties |= {f"openslide.bounds-{n}": str(v) for n, v in zip(names, bounds, strict=True)}

    def read_region(self, place: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
        if self.fail:
            raise OSError("a tile is damaged")
        step = int(self.level_downsamples[level])
        columns = place[0] + step * np.arange(size[0])
        rows = place[1] + step * np.arange(size[1])
        x, y, width, height = self.bounds
        rgba = np.zeros((size[1], size[0], 4), np.uint8)
        inside = np.outer((rows >= y) & (rows < y + height), (columns >= x) & (columns < x + width))
        rgba[inside] = (200, 100, 50, 255)
        rgba[inside & (columns[None, :] < x + 40) & (rows[:, None] < y + 40)] = 0
        return Image.fromarray(rgba, "RGBA")

    def close(self) -> None:
        self.closed = True


BOUNDS = (80, 60, 200, 120)


def faked(vendor: str, bounds: tuple[int, int, int, int] | None = BOUNDS) -> tuple[SlideImage, list[FakeHandle]]:
    handles: list[FakeHandle] = []

    def opened() -> Any:
        handles.append(FakeHandle(vendor, bounds))
        return handles[-1]

    return SlideImage(Path(f"/slides/{vendor}"), opened), handles


@pytest.mark.parametrize("vendor", ["mirax", "leica", "ventana"])
class TestScannerBounds:
    def test_are_stated_in_the_canvas_frame(self, vendor: str) -> None:
        info = faked(vendor)[0].info
        assert (info.bounds, info.frame, info.validity) == (BOUNDS, "openslide-canvas", "bounds")
        assert (info.width, info.height, info.driver, info.kind) == (400, 300, vendor, "slide")
        assert info.spacing is not None
        assert (info.spacing.x, info.spacing.y) == (0.25, 0.26)

    @pytest.mark.parametrize("level", [0, 1])
    def test_only_scanned_pixels_inside_them_are_data(self, vendor: str, level: int) -> None:
        image = faked(vendor)[0]
        pixels = whole(image, level)
        assert pixels.valid is not None
        step = 4**level
        expected = np.zeros((300 // step, 400 // step), bool)
        expected[60 // step : 180 // step, 80 // step : 280 // step] = True
        expected[60 // step : 100 // step, 80 // step : 120 // step] = False
        np.testing.assert_array_equal(pixels.valid, expected)

    def test_see_through_is_white_never_black(self, vendor: str) -> None:
        pixels = whole(faked(vendor)[0])
        assert pixels.values[0, 0].tolist() == [255, 255, 255]
        assert pixels.values[150, 200].tolist() == [200, 100, 50]


def test_slide_without_bounds_is_data_where_it_was_scanned() -> None:
    image = faked("mirax", None)[0]
    assert (image.info.bounds, image.info.validity, image.info.frame) == (None, "bounds", "level-0")
    valid = whole(image).valid
    assert valid is not None
    assert valid.sum() == 400 * 300 - 40 * 40


def test_handle_is_opened_again_after_an_error() -> None:
    image, handles = faked("mirax")
    handles[0].fail = True
    with pytest.raises(ImageUnreadable, match=r"10 x 10 px at \(5, 6\) of level 0 .*a tile is damaged"):
        image.read(0, Region(5, 6, 10, 10))
    assert handles[0].closed
    assert image.read(0, Region(200, 150, 1, 1)).values.tolist() == [[[200, 100, 50]]]
    assert len(handles) == 2


def test_damaged_tile_leaves_the_real_handle_usable(tmp_path: Path) -> None:
    source = (SLIDES / "CMU-1-Small-Region.svs").read_bytes()
    broken = tmp_path / "broken.svs"
    broken.write_bytes(source[:600_000] + bytes(20_000) + source[620_000:])
    with closing(open_image(ImageRef(broken, reader="openslide"))) as image:
        good, bad = 0, 0
        for y in range(0, 2880, 240):
            for x in range(0, 2160, 240):
                try:
                    image.read(0, Region(x, y, 240, 240))
                    good += 1
                except ImageUnreadable:
                    bad += 1
        assert bad >= 1
        assert good > 90


def test_truncated_slide_names_file_and_reason(tmp_path: Path) -> None:
    cut = tmp_path / "cut.svs"
    cut.write_bytes((SLIDES / "CMU-1-Small-Region.svs").read_bytes()[:5_000])
    with pytest.raises(ImageUnreadable, match=r"cut\.svs"):
        open_image(ImageRef(cut))
    with pytest.raises(ImageUnreadable, match=r"unreadable\.svs.*Bogus marker length"):
        open_image(ImageRef(DATA / "broken/unreadable.svs"))


def test_folder_without_a_slide_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(Exception, match="0 slides"):
        open_image(ImageRef(tmp_path))


def test_vendor_is_asked_of_the_content(tmp_path: Path) -> None:
    renamed = tmp_path / "photo.jpg"
    renamed.write_bytes((SLIDES / "small.svs").read_bytes())
    assert vendor_of(renamed) == "aperio"
    with closing(open_image(ImageRef(renamed))) as image:
        assert image.info.driver == "aperio"
