"""raster/fit.py: what goes together, and what is said where it does not."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveate.errors import (
    KindMismatch,
    ModelChoice,
    OptionInvalid,
    SpacingMismatch,
)
from foveate.schema import SegmentOptions
from raster.fit import checked_policy_for, choose_bundle, fit
from tests.raster.cards import make_card, make_info, metres, micrometres

SLIDE = make_info(name="slide.svs", kind="slide", spacing=micrometres(0.25))
SCENE = make_info(name="scene.tif", kind="scene", spacing=metres(0.3))
PICTURE = make_info(name="photo.png")
GLANDS = make_card()
LANDCOVER = make_card(name="landcover", kind="scene", spacing=None)
CARDS = {"glands": GLANDS, "landcover": LANDCOVER}


def test_the_ratio_is_exact_and_per_axis() -> None:
    found = fit(make_info(kind="slide", spacing=micrometres(0.31, 0.25)), GLANDS, SegmentOptions())
    assert found.ratio == (0.62 / 0.31, 0.62 / 0.25)
    assert found.warnings == ()


@given(st.floats(-5e-10, 5e-10))
def test_a_ratio_next_to_one_is_one(error: float) -> None:
    info = make_info(kind="slide", spacing=micrometres(0.62 * (1 + error)))
    assert fit(info, GLANDS, SegmentOptions()).ratio == (1.0, 1.0)


def test_a_bundle_without_spacing_sees_level_0_and_says_so() -> None:
    found = fit(SCENE, LANDCOVER, SegmentOptions())
    assert found.ratio == (1.0, 1.0)
    assert found.spacing == SCENE.spacing
    [warning] = found.warnings
    assert warning.startswith("landcover does not say") and "(scale unknown to the model)" in warning
    assert "--spacing 2 changes nothing" in fit(SCENE, LANDCOVER, SegmentOptions(spacing=2)).warnings[1]


def test_spacing_of_the_user_wins() -> None:
    found = fit(SLIDE, GLANDS, SegmentOptions(spacing=0.5))
    assert found.ratio == (0.62 / 0.5, 0.62 / 0.5)
    assert found.spacing is not None
    assert found.spacing.origin == "--spacing"
    assert found.warnings == ("--spacing 0.5 wins over 0.25 µm (the file)",)
    assert fit(PICTURE, GLANDS, SegmentOptions(spacing=0.62)).ratio == (1.0, 1.0)


@pytest.mark.parametrize(
    ("info", "options", "says"),
    [
        (PICTURE, {}, "unknown"),
        (make_info(kind="slide", spacing=micrometres(2.0)), {}, "2 µm"),
        (make_info(kind="slide", spacing=micrometres(0.5, 2.0)), {}, "0.5 x 2 µm"),
        (make_info(kind="slide", spacing=micrometres(0.1499)), {}, "0.15 to 1.3 µm"),
        (SLIDE, {"spacing": 5.0}, "5 µm"),
        (make_info(spacing=metres(0.5)), {}, "0.5 m"),
        (SCENE, {"force": True}, "0.3 m"),
    ],
)
def test_unknown_or_wrong_spacing_is_refused_with_the_remedy(info: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpacingMismatch, match=says) as refusal:
        fit(info, GLANDS, SegmentOptions(**options))
    assert "spacing" in refusal.value.hint
    assert "0.15 to 1.3 µm" in refusal.value.hint


def test_the_ends_of_the_range_are_inside() -> None:
    for side in (0.15, 1.3):
        assert fit(make_info(kind="slide", spacing=micrometres(side)), GLANDS, SegmentOptions())


def test_a_slide_is_no_scene_unless_forced() -> None:
    with pytest.raises(KindMismatch, match=r"slide\.svs is a slide") as refusal:
        fit(SLIDE, LANDCOVER, SegmentOptions())
    assert "--force" in refusal.value.hint
    assert "--force" in fit(SLIDE, LANDCOVER, SegmentOptions(force=True)).warnings[0]
    with pytest.raises(KindMismatch, match="is a scene"):
        fit(SCENE, GLANDS, SegmentOptions(spacing=0.5))
    assert fit(SCENE, GLANDS, SegmentOptions(spacing=0.5, force=True))


def test_a_picture_fits_either_kind_and_any_takes_both() -> None:
    assert fit(PICTURE, LANDCOVER, SegmentOptions())
    anything = make_card(kind="any", spacing=None)
    assert fit(SLIDE, anything, SegmentOptions())
    assert fit(SCENE, anything, SegmentOptions())


def test_the_only_bundle_that_fits_is_chosen() -> None:
    assert choose_bundle(SLIDE, CARDS, SegmentOptions()) == "glands"
    assert choose_bundle(SCENE, CARDS, SegmentOptions()) == "landcover"


def test_no_bundle_or_several_are_explained() -> None:
    with pytest.raises(ModelChoice, match=r"several bundles fit photo\.png: glands, landcover") as several:
        choose_bundle(PICTURE, CARDS, SegmentOptions(spacing=0.5))
    assert several.value.hint == "choose one with --model glands or --model landcover"
    with pytest.raises(ModelChoice, match=r"glands: .*spacing.*; landcover: .*slide") as none:
        choose_bundle(make_info(kind="slide"), CARDS, SegmentOptions())
    assert "--spacing" in none.value.hint
    with pytest.raises(ModelChoice, match="no bundle is installed"):
        choose_bundle(PICTURE, {}, SegmentOptions())


def test_policies_that_the_bundle_cannot_follow_are_refused_before_any_pixel() -> None:
    assert checked_policy_for(GLANDS, None) == "mean"
    assert checked_policy_for(GLANDS, "fixed:3") == "fixed:3"
    with pytest.raises(OptionInvalid, match="fixed:4"):
        checked_policy_for(GLANDS, "fixed:4")
    explicit = make_card(mapping="explicit", policy="mode")
    assert checked_policy_for(explicit, "gumbel") == "gumbel"
    with pytest.raises(OptionInvalid, match="average"):
        checked_policy_for(explicit, "average")
    with pytest.raises(OptionInvalid, match="F_theta"):
        checked_policy_for(make_card(foveation=None, policy="fixed:1"), "mode")
