"""Explicit mapping: the centre of what was seen becomes the smallest window."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.mapping import map_concentric, map_exact, map_parity
from raster.geometry import Region


def ramp(samples: int, window: Region) -> torch.Tensor:
    """Each sample holds the image coordinates, x and y, of its centre."""
    at = (torch.arange(samples) + 0.5) / samples
    x = window.x + at * window.width
    y = window.y + at * window.height
    return torch.stack([x.expand(samples, -1), y[:, None].expand(-1, samples)])[None]


def test_the_smallest_field_of_view_is_left_alone() -> None:
    output = torch.randn(2, 3, 12, 12)
    window = Region(5, 7, 24, 24)
    assert torch.allclose(map_exact(output, window, window), output, atol=1e-6)
    assert torch.equal(map_parity(output, 0, (12, 24)), output)


@given(
    samples=st.integers(4, 40),
    Q=st.integers(8, 64),
    extra=st.integers(0, 200),
    shift_x=st.integers(0, 200),
    shift_y=st.integers(0, 200),
)
def test_every_sample_lands_at_its_own_place(samples: int, Q: int, extra: int, shift_x: int, shift_y: int) -> None:
    """Also for odd ratios, and for windows that were clamped and are not concentric."""
    seen = Region(100, 50, Q + extra, Q + extra)
    smallest = Region(100 + min(shift_x, extra), 50 + min(shift_y, extra), Q, Q)
    mapped = map_exact(ramp(samples, seen), seen, smallest)
    wanted = ramp(samples, smallest)
    half = (Q + extra) / samples / 2
    low, high = (seen.x + half, seen.x1 - half)
    assert torch.allclose(mapped[:, 0], wanted[:, 0].clamp(low, high), atol=1e-3)
    low, high = (seen.y + half, seen.y1 - half)
    assert torch.allclose(mapped[:, 1], wanted[:, 1].clamp(low, high), atol=1e-3)


@given(samples=st.integers(4, 40), smallest=st.integers(8, 64), extra=st.integers(0, 200))
def test_windows_about_one_centre_may_be_odd_in_even_ones(samples: int, smallest: int, extra: int) -> None:
    seen = smallest + extra
    mapped = map_concentric(ramp(samples, Region(-seen, -seen, 2 * seen, 2 * seen)), seen, smallest)
    wanted = ramp(samples, Region(-smallest, -smallest, 2 * smallest, 2 * smallest))
    limit = seen - seen / samples
    assert torch.allclose(mapped, wanted.clamp(-limit, limit), atol=1e-3)


@pytest.mark.parametrize("index", [1, 2])
def test_for_an_integer_ratio_both_forms_agree_inside(index: int) -> None:
    torch.manual_seed(0)
    bank = (24, 48, 72)
    side = bank[index]
    seen = Region(0, 0, side, side)
    smallest = Region((side - 24) // 2, (side - 24) // 2, 24, 24)
    output = torch.randn(1, 2, 24, 24)
    edge = index + 1
    exact, parity = map_exact(output, seen, smallest), map_parity(output, index, bank)
    inner = (..., slice(edge, -edge), slice(edge, -edge))
    assert torch.allclose(exact[inner], parity[inner], atol=1e-5)


def test_scores_still_sum_to_one() -> None:
    scores = torch.rand(1, 3, 16, 16).softmax(dim=1)
    for mapped in (map_exact(scores, Region(0, 0, 50, 50), Region(9, 3, 16, 16)), map_parity(scores, 1, (16, 50))):
        assert torch.allclose(mapped.sum(dim=1), torch.ones(1, 16, 16), atol=1e-5)
