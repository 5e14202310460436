"""Images out of parts, and the middle of an image."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import OptionInvalid
from raster.array import ArrayImage
from raster.geometry import Region
from raster.mosaic import MosaicImage, crop_in_the_middle

WIDTHS, HEIGHTS = (7, 5, 6), (4, 9)
WHOLE = np.random.default_rng(0).integers(0, 255, (13, 18, 3), np.uint8)
VALID = np.random.default_rng(1).random((13, 18)) < 0.7


def parts(*, valid: bool = False) -> list[ArrayImage]:
    rows, columns = np.cumsum((0, *HEIGHTS)), np.cumsum((0, *WIDTHS))
    cuts = [
        np.s_[rows[r] : rows[r + 1], columns[c] : columns[c + 1]]
        for r in range(len(HEIGHTS))
        for c in range(len(WIDTHS))
    ]
    masks = [[VALID[cut]] if valid and k != 2 else None for k, cut in enumerate(cuts)]
    return [
        ArrayImage.of([WHOLE[cut]], mask, name=f"part-{k}")
        for k, (cut, mask) in enumerate(zip(cuts, masks, strict=True))
    ]


@given(st.integers(0, 17), st.integers(0, 12), st.data())
def test_any_region_is_put_together(x: int, y: int, data: st.DataObject) -> None:
    region = Region(x, y, data.draw(st.integers(1, 18 - x)), data.draw(st.integers(1, 13 - y)))
    image = MosaicImage(parts(), 3)
    assert (image.info.width, image.info.height) == (18, 13)
    pixels = image.read(0, region)
    assert pixels.valid is None and np.array_equal(pixels.values, WHOLE[region.slices()])


def test_no_data_of_the_parts_is_kept() -> None:
    image = MosaicImage(parts(valid=True), 3)
    expected = VALID.copy()
    expected[:4, 12:] = True
    region = Region(3, 1, 14, 11)
    assert image.info.validity == "mask"
    for valid in (image.read(0, region).valid, image.read_valid(0, region)):
        assert valid is not None and np.array_equal(valid, expected[region.slices()])


def test_a_part_that_does_not_fit_is_named() -> None:
    wrong = [*parts()[:4], ArrayImage.of([WHOLE[:9, :4]], name="narrow"), parts()[5]]
    with pytest.raises(OptionInvalid, match="narrow is 4 x 9"):
        MosaicImage(wrong, 3)
    grey = [*parts()[:5], ArrayImage.of([WHOLE[:9, :6, :1]], name="grey")]
    with pytest.raises(OptionInvalid, match="grey holds uint8 of gray"):
        MosaicImage(grey, 3)


@pytest.mark.parametrize(("side", "box"), [(6, (6, 3, 6, 6)), (15, (1, 0, 15, 13)), (40, (0, 0, 18, 13))])
def test_the_middle_is_cut_to_what_there_is(side: int, box: tuple[int, int, int, int]) -> None:
    image = crop_in_the_middle(ArrayImage.of([WHOLE], [VALID]), side)
    region = Region(*box)
    assert (image.info.width, image.info.height) == (region.width, region.height)
    pixels = image.read(0, Region(1, 2, 4, 3))
    inside = Region(region.x + 1, region.y + 2, 4, 3)
    assert np.array_equal(pixels.values, WHOLE[inside.slices()])
    assert pixels.valid is not None and np.array_equal(pixels.valid, VALID[inside.slices()])
