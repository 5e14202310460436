"""Polygons are whole, exact and valid wherever the tile borders fall."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import ndimage

from raster.polygonize import Polygonizer
from raster.rings import Outlines

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

sides = st.integers(1, 16)
masks = st.tuples(sides, sides).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 255]), fill=st.nothing())
)


@dataclass(frozen=True)
class Outline:
    """One component: its value, its pixels, and its rings of corners (n, 2), the outside first."""

    value: int
    pixels: int
    rings: list[NDArray[np.int32]]

    @property
    def polygon(self) -> shapely.Polygon:
        return shapely.Polygon(self.rings[0], self.rings[1:])


def one_by_one(found: Iterable[Outlines]) -> list[Outline]:
    return [
        Outline(value, pixels, rings[first:end])
        for many in found
        for rings in [np.split(many.rings.corners, many.rings.starts[1:-1])]
        for value, pixels, (first, end) in zip(
            many.values.tolist(), many.pixels.tolist(), pairwise(many.firsts.tolist()), strict=True
        )
    ]


def outlined(mask: NDArray[np.uint8], strip: int, minimum: int = 1) -> list[Outline]:
    polygonizer = Polygonizer(mask.shape[1], lambda: minimum)
    found = [many for y in range(0, len(mask), strip) for many in polygonizer.add(mask[y : y + strip])]
    return one_by_one([*found, *polygonizer.finish()])


def components(mask: NDArray[np.uint8]) -> list[tuple[int, int]]:
    """(value, pixels) of every component, by another library."""
    found = []
    for value in np.unique(mask[mask != 255]).tolist():
        areas = np.bincount(ndimage.label(mask == value)[0].ravel())[1:]
        found += [(value, int(area)) for area in areas]
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(mask=masks, strip=st.integers(1, 12), enlarged=st.sampled_from([1, 3]))
def test_noise_comes_back_exactly_for_any_strips(mask: NDArray[np.uint8], strip: int, enlarged: int) -> None:
    mask = np.kron(mask, np.ones((enlarged, enlarged), dtype=np.uint8))
    found = outlined(mask, strip)
    assert sorted((outline.value, outline.pixels) for outline in found) == components(mask)
    for outline in found:
        assert outline.polygon.is_valid
        assert outline.polygon.area == outline.pixels
    back = np.full(mask.shape, 255, dtype=np.uint8)
    if found:
        shapes = [(outline.polygon, outline.value) for outline in found]
        back = rasterio.features.rasterize(shapes, out_shape=mask.shape, fill=255, dtype=np.uint8)
    assert np.array_equal(back, mask)
    whole = outlined(mask, len(mask))
    assert [ring.tolist() for outline in found for ring in outline.rings] == [
        ring.tolist() for outline in whole for ring in outline.rings
    ]


@pytest.mark.parametrize("phase_x", range(8))
@pytest.mark.parametrize("phase_y", range(8))
def test_a_disc_on_every_border_phase_is_one_polygon(phase_x: int, phase_y: int) -> None:
    y, x = np.mgrid[:40, :40]
    disc = (x - 16 - phase_x) ** 2 + (y - 16 - phase_y) ** 2 <= 11**2
    found = outlined(np.where(disc, 1, 255).astype(np.uint8), strip=8)
    assert len(found) == 1
    assert found[0].polygon.area == disc.sum()
    whole = outlined(np.where(disc, 1, 255).astype(np.uint8), strip=64)
    assert found[0].polygon.equals(whole[0].polygon)
    assert len(shapely.get_coordinates(found[0].polygon)) == len(shapely.get_coordinates(whole[0].polygon))


def test_holes_and_islands_across_borders() -> None:
    mask = np.zeros((30, 30), dtype=np.uint8)
    mask[3:27, 3:27] = 1
    mask[6:24, 6:24] = 0
    mask[9:21, 9:21] = 1
    mask[13:17, 13:17] = 255
    found = outlined(mask, strip=7)
    assert sorted((outline.pixels, len(outline.polygon.interiors)) for outline in found) == [
        (12 * 12 - 16, 1),
        (18 * 18 - 12 * 12, 1),
        (24 * 24 - 18 * 18, 1),
        (30 * 30 - 24 * 24, 1),
    ]


def test_small_pieces_of_a_large_component_are_not_lost() -> None:
    mask = np.full((16, 16), 255, dtype=np.uint8)
    mask[7:9, 2:14] = 1
    mask[0, 0] = 1
    assert [outline.pixels for outline in outlined(mask, strip=8, minimum=20)] == [24]


def test_a_rising_minimum_is_asked_again() -> None:
    mask = np.full((12, 4), 255, dtype=np.uint8)
    mask[1, 1] = mask[5, 1] = mask[9, 1] = 1
    minima = iter([1, 2, 1])
    polygonizer = Polygonizer(4, lambda: next(minima))
    assert [len(one_by_one(polygonizer.add(mask[y : y + 4]))) for y in (0, 4, 8)] == [1, 0, 1]


def test_strips_of_noise_are_cut_down_and_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = np.random.default_rng(3).integers(0, 3, (90, 70), dtype=np.uint8)
    whole = outlined(mask, 90)
    monkeypatch.setattr("raster.polygonize._MOST_EDGES", 200)
    assert [o.polygon.wkb for o in outlined(mask, 90)] == [o.polygon.wkb for o in whole]
    assert sorted((outline.value, outline.pixels) for outline in whole) == components(mask)


def test_memory_follows_the_open_regions_not_the_mask() -> None:
    """Stripes that end every eighth row leave nothing behind."""
    polygonizer = Polygonizer(64, lambda: 1)
    rows = np.zeros((8, 64), np.uint8)
    rows[4:] = 255
    for _ in range(50):
        assert [outline.pixels for outline in one_by_one(polygonizer.add(rows))] == [256]
        assert polygonizer.open_walks == 0
