"""What a block keeps of the seams around it: no more than its windows reach, and told from what was damaged."""

import numpy as np
import pytest

from raster.grid import Block
from worker.canvas import BlockRecord, Canvas, Tally

BLOCK = Block(0, 1, range(0, 2), range(2, 4))


@pytest.fixture
def canvas(tmp_path):
    return Canvas(tmp_path, {})


def sums_over(rows: slice, columns: slice) -> np.ndarray:
    """(3, 90, 50): two classes and the summed window, 0 elsewhere."""
    sums = np.zeros((3, 90, 50), np.float32)
    sums[:, rows, columns] = np.random.default_rng(0).random(sums[:, rows, columns].shape, np.float32) + 0.1
    return sums


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(slice(0, 90), slice(0, 50)), (slice(70, 90), slice(0, 50)), (slice(3, 68), slice(17, 18))],
)
def test_of_open_sums_only_what_windows_reach_is_kept(canvas, rows, columns):
    sums = sums_over(rows, columns)
    share = canvas.commit_sums(BLOCK, "1-2", sums)
    assert (share.y, share.x) == (rows.start, columns.start)
    assert np.array_equal(canvas.sums(BLOCK, "1-2"), sums[:, rows, columns])
    assert canvas.holds_sums(BLOCK, "1-2", share.checksum)
    assert not canvas.holds_sums(BLOCK, "1-2", share.checksum ^ 1)


@pytest.mark.parametrize("damage", ["empty", "half", "zeroed", "header", "gone"])
def test_sums_that_a_power_failure_damaged_are_not_held(canvas, damage):
    share = canvas.commit_sums(BLOCK, "1-2", sums_over(slice(0, 90), slice(0, 50)))
    [path] = (canvas.directory / "sums").iterdir()
    whole = path.read_bytes()
    after = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "zeroed": bytes(len(whole)),
        "header": whole[:12] + b"(" + whole[13:],
    }
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(after[damage])
    assert not canvas.holds_sums(BLOCK, "1-2", share.checksum)


def test_sums_that_are_0_everywhere_leave_no_file(canvas):
    assert canvas.commit_sums(BLOCK, "1-2", np.zeros((3, 90, 50), np.float32)) is None
    assert not any((canvas.directory / "sums").iterdir())


def test_a_block_remembers_its_shares_of_seams(canvas):
    share = canvas.commit_sums(BLOCK, "1-2", sums_over(slice(5, 9), slice(2, 50)))
    labels = {"0-1": {"labels": np.ones((4, 5), np.uint8)}}
    record = BlockRecord(labels, frozenset(), Tally(20, 0), 7, None, {"1-2": share})
    canvas.commit_block(BLOCK, record)
    found = canvas.block(BLOCK)
    assert found.sums == {"1-2": share}
    assert np.array_equal(found.pieces["0-1"]["labels"], labels["0-1"]["labels"])


@pytest.mark.parametrize("value", [255, 7])
def test_a_piece_that_is_the_same_everywhere_takes_no_room_and_comes_back_whole(canvas, value):
    noise = np.random.default_rng(0).integers(0, 3, (600, 700), np.uint8)
    layers = {
        "labels": np.full((600, 700), value, np.uint8),
        "uncertainty": np.full((600, 700), -1, np.int16),
        "probabilities": np.full((2, 600, 700), np.nan, np.float16),
    }
    pieces = {"0-1": layers, "0-2": {"labels": noise}, "0-3": {"labels": layers["labels"]}}
    canvas.commit_block(BLOCK, BlockRecord(pieces, frozenset(), Tally(20, 0), 7))
    found = canvas.block(BLOCK).pieces
    assert found.keys() == pieces.keys()
    for name, layer in layers.items():
        back = found["0-1"][name]
        assert (back.dtype, back.flags.writeable) == (layer.dtype, True)
        assert np.array_equal(back, layer, equal_nan=name == "probabilities")
    assert np.array_equal(found["0-2"]["labels"], noise)
    path = next((canvas.directory / "blocks").iterdir())
    plain = BlockRecord({"0-3": {"labels": layers["labels"]}}, frozenset(), Tally(20, 0), 7)
    canvas.commit_block(BLOCK, plain)
    assert path.stat().st_size < 2000
