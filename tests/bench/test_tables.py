"""What each bench makes of its figures, without measuring anything."""

import math

import numpy as np
import pytest

from bench import coverage, decoded, floor, memory, peers, resume
from bench.peers import agreement, alone


def a_case(**changes: object) -> dict[str, object]:
    record: dict[str, object] = {
        "case": "tiny-fcn",
        "image": "scene.tif, 8 x 8",
        "forwards": 4,
        "start_up": 5.0,
        "engine": {"wall": [12.0, 11.0, 30.0], "cpu": [20.0, 20.0, 20.0], "stolen": [0.0, 0.011]},
        "forward_only": {"wall": [8.0, 8.0, 9.0], "cpu": [16.0, 16.0, 16.0], "stolen": [0.0, 0.011]},
        "forward_split": {"wall": [10.0, 10.0, 9.0], "cpu": [16.0, 16.0, 16.0], "stolen": [0.0, 0.011]},
        "decode_only": {"wall": [2.0, 2.0, 1.0], "cpu": [4.0, 4.0, 4.0], "stolen": [0.0, 0.011], "pixels": 64},
        "stages": {"compute": [9.0, 10.0, 11.0]},
    }
    return record | changes


def test_the_floor_divides_medians() -> None:
    record = a_case()
    assert floor.ratio(record, "wall", "forward_only") == 1.5
    assert floor.ratio(record, "wall", "forward_only", "decode_only") == 1.2
    assert floor.ratio(record, "cpu", "forward_only", "decode_only") == 1.0


def test_engines_and_the_accelerator_have_tables_where_they_ran() -> None:
    found = {"wall": [3.0], "busy": [0.91], "seconds_per_patch": [0.5]}
    simulated = {"case": "accelerator", "image": "scene.tif, 16 x 16", "accelerator": found}
    both, alone = floor.table([a_case(), simulated]), floor.table([simulated])
    assert "| accelerator | scene.tif, 16 x 16 | 500 | 3 | 0.91 |" in both
    assert "| accelerator | scene.tif, 16 x 16 | 500 | 3 | 0.91 |" in alone
    assert "| tiny-fcn | 1.5 | 1.2 | 1.25; 1 | 1.2 |" in both
    assert "tiny-fcn" not in alone
    assert "accelerator" not in floor.table([a_case()])


def test_memory_tells_growth_and_why_there_is_no_figure() -> None:
    times = {"wall": [1.0], "cpu": [1.0]}
    small = {"peak_bytes": [1_300_000_000, 1_000_000_000, 980_000_000], "wall": [1.0, 2.0, 9.0], "cpu": [1.0, 3.0, 9.0]}
    records = [
        {"megapixels": 64, "coverage": "dense", "model": "m", **small},
        {"megapixels": 256, "coverage": "dense", "model": "m", "peak_bytes": [1_050_000_000], **times},
        {"megapixels": 64, "coverage": "refined", "model": "m", "refused": "not yet"},
    ]
    shown = memory.table(records)
    assert "dense: +5.0% from the smallest to the largest" in shown
    assert "| dense | m | 64 | 1.000 | 0.980 to 1.300 | 2 | 3 |" in shown
    assert "| refined | m | 64 | not yet |" in shown
    assert memory.growth(records, "refined") is None


def test_coverage_holds_wall_time_against_the_share_of_the_forwards() -> None:
    dense = {
        "coverage": "dense",
        "wall": [100.0, 90.0, 110.0],
        "stolen": [0.0],
        "preview": [],
        "forwards": 1000,
        "share": 1.0,
    }
    refined = {
        "coverage": "refined",
        "detail": 0.35,
        "wall": [41.0],
        "stolen": [0.3],
        "preview": [4.0],
        "forwards": 350,
        "share": 0.35,
    }
    assert coverage.wall_share([dense, refined], refined) == 0.41
    assert "| refined | 0.35 | 350 | 0.350 | 41 | 41 to 41 | 30.0% | 0.410 | at most 0.450 | 4.0 |" in coverage.table(
        [dense, refined]
    )


def test_resume_tells_what_was_forwarded_twice_and_a_mask_that_differs() -> None:
    record = {"coverage": "dense", "forwards": 100, "killed_at": 52, "rest": 51, "repeated": 0.03, "same": False}
    assert "| dense | 100 | 52 | 51 | 3.0% | no |" in resume.table([record])


def test_decoded_names_the_largest_ratio() -> None:
    base = {"image": "slide", "pixels": 4_000_000, "bank": 3, "policy": "mode", "needed": 2_000_000}
    base |= {"counted": 2_000_000, "tiles": 2_400_000, "converted": 0, "decoded": 2_100_000}
    text = decoded.table([base, base | {"decoded": 2_600_000}])
    assert "Largest ratio 1.300, and 1.083 in whole tiles" in text


def test_equal_masks_agree_and_a_wrong_class_costs_its_share() -> None:
    ours = np.zeros((20, 20), np.uint8)
    ours[:, 10:] = 1
    assert agreement(ours, ours.copy(), 8, 6).miou == 1
    theirs = ours.copy()
    theirs[:, 10] = 0
    found = agreement(ours, theirs, 8, 6)
    assert found.equal == pytest.approx(0.95)
    assert found.miou == pytest.approx((10 / 11 + 9 / 10) / 2)


def test_masks_of_other_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="stands against"):
        agreement(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), 2, 2)


@pytest.mark.parametrize("patch, stride, length", [(8, 6, 50), (512, 384, 2048), (8, 8, 40), (8, 4, 40)])
def test_a_pixel_stands_alone_where_exactly_one_window_covers_it(patch: int, stride: int, length: int) -> None:
    """Whether the last window hangs over the border or is moved into the image."""
    found = alone(length, patch, stride)
    for moved in (False, True):
        counts = np.zeros(length + patch, int)
        for start in range(0, length - patch + stride, stride):
            place = min(start, length - patch) if moved else start
            counts[place : place + patch] += 1
        assert (counts[:length][found] == 1).all()
    assert found.any()


def test_a_peer_that_failed_is_named_with_its_reason() -> None:
    run = {"job": 2.0, "wall": 3.0, "cpu": 4.0, "stolen": 0.02, "peak_bytes": 1e9}
    records = [
        {"model": "m", "who": "Foveate", "runs": [run]},
        {"model": "m", "who": "slow", "runs": [run | {"job": 6.0}], "agreement": {}},
        {"model": "m", "who": "absent", "runs": [], "failed": "cannot be installed: no wheel"},
    ]
    records[1]["agreement"] = {"equal": 1.0, "miou": 1.0, "core": math.nan, "differs": "nothing"}
    shown = peers.table(records)
    assert "| m | absent |  |  |  | not measured: cannot be installed: no wheel |" in shown
    assert "| m | slow | 6 | 6 to 6 | 3 | 4 | 2.0% | 1 | 3 |" in shown
