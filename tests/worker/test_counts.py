"""The pixels that a plan needs, against a count of every pixel."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from foveate.schema import LevelInfo
from raster.geometry import Size
from raster.grid import WorkingGrid
from tests.raster.cards import make_info
from worker.counts import Seen, pixels_needed


@st.composite
def plans(draw):
    """An image with a level of half the size, and windows of three fields of view over it, some of them read."""
    width, height = draw(st.integers(1, 120)), draw(st.integers(1, 120))
    levels = [
        LevelInfo(width=-(-width // k), height=-(-height // k), downsample=(float(k), float(k)), tile=(16, 16))
        for k in (1, 2)
    ]
    ratio = draw(st.sampled_from([0.5, 1.0, 1.3]))
    grid = WorkingGrid(Size(width, height), (ratio, ratio))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    step = draw(st.integers(3, 20))
    shape = -(-grid.size.height // step), -(-grid.size.width // step)
    share = draw(st.sampled_from([0.0, 0.1, 0.6, 1.0]))
    seen = [Seen(rng.random(shape) < share, -side / 4, step, side) for side in (8, 16, 32)]
    return make_info(width=width, height=height, levels=levels), grid, seen


@given(plans())
@settings(max_examples=80, deadline=None)
def test_needed_pixels_are_those_under_any_window(plan):
    info, grid, seen = plan
    level_of = (0, 0, 1).__getitem__
    expected = 0
    for level, size in enumerate(info.levels):
        covered = np.zeros((size.height, size.width), bool)
        scale = grid.ratio[0] / size.downsample[0]
        for fov, windows in enumerate(seen):
            if level_of(fov) == level:
                for row, column in np.argwhere(windows.mask):
                    starts = (windows.start + k * windows.step for k in (row, column))
                    (y0, y1), (x0, x1) = (
                        (int(np.floor(s * scale + 1e-9)), int(np.ceil((s + windows.side) * scale - 1e-9)))
                        for s in starts
                    )
                    covered[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)] = True
        expected += int(covered.sum())
    assert pixels_needed(seen, grid, info, level_of) == expected
