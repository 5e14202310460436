"""Which coverage a bundle can have, and where on its curve a job stands."""

import pytest
from pydantic import ValidationError

from foveate.coverage import DEFAULT_DETAIL, checked_coverage, threshold_at
from foveate.errors import OptionInvalid
from foveate.schema import CurvePoint, SegmentOptions
from tests.raster.cards import make_card


def point(detail, threshold, coverage="refined"):
    return CurvePoint(
        coverage=coverage, detail=detail, threshold=threshold, share=detail, seconds=1, miou=50, low=-1, high=1
    )


CURVE = [point(1.0, 0.0), point(0.2, 2.0), point(0.6, 1.0), point(0.1, 30.0, "planned")]
NESTED = {"mapping": "explicit", "policy": "mode", "fovs": [64, 128]}


def test_dense_is_the_default_and_has_no_detail():
    assert checked_coverage(make_card(), SegmentOptions()).kind == "dense"
    with pytest.raises(OptionInvalid, match="coverage is dense"):
        checked_coverage(make_card(), SegmentOptions(detail=0.3))


def test_the_bundles_coverage_is_the_default_and_a_policy_alone_asks_for_dense():
    coverage = {"default": "refined", "detail": 0.6, "curve": [p.model_dump() for p in CURVE]}
    card = make_card(**NESTED, coverage=coverage)
    assert checked_coverage(card, SegmentOptions()) == checked_coverage(card, SegmentOptions(coverage="refined"))
    assert checked_coverage(card, SegmentOptions(detail=0.2)).threshold == 2.0
    assert checked_coverage(card, SegmentOptions(policy="fixed:1")).kind == "dense"
    with pytest.raises(OptionInvalid, match="the tree does"):
        checked_coverage(card, SegmentOptions(policy="fixed:1", coverage="refined"))


def test_a_threshold_lies_between_those_of_its_neighbours_on_the_curve():
    card = make_card(**NESTED, coverage={"curve": [p.model_dump() for p in CURVE]})
    found = [checked_coverage(card, SegmentOptions(coverage="refined", detail=d)).threshold for d in (0, 0.4, 0.9, 1)]
    assert found == pytest.approx([2.0, 1.5, 0.25, 0.0])
    assert threshold_at(CURVE[:1], 0.3) == 0.0


def test_detail_is_the_users_or_the_bundles_or_a_third():
    card = make_card(**NESTED)
    assert checked_coverage(card, SegmentOptions(coverage="planned")).detail == DEFAULT_DETAIL
    card = make_card(**NESTED, coverage={"detail": 0.6})
    assert checked_coverage(card, SegmentOptions(coverage="planned")).detail == 0.6
    assert checked_coverage(card, SegmentOptions(coverage="planned", detail=0.0)).detail == 0.0


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"fovs": [64]}, {"coverage": "planned"}, "several fields of view"),
        ({"fovs": [64, 96]}, {"coverage": "planned"}, "whole ratios"),
        ({"mapping": "implicit"}, {"coverage": "planned"}, "explicit mapping"),
        ({}, {"coverage": "refined"}, "foveate evaluate|curve"),
        ({}, {"coverage": "planned", "policy": "mode"}, "policy"),
    ],
)
def test_what_cannot_be_had_is_refused(changes, options, words):
    with pytest.raises(OptionInvalid, match=words) as caught:
        checked_coverage(make_card(**(NESTED | changes)), SegmentOptions(**options))
    assert caught.value.hint


def test_a_point_of_a_curve_is_read_strictly():
    with pytest.raises(ValidationError):
        point(1.2, 0.0)
    with pytest.raises(ValidationError):
        CurvePoint(**(point(0.5, 1.0).model_dump() | {"tau": 1.0}))
