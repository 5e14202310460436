"""What is counted while an image's probabilities go by: confusions by block, calibration, windows, and a small mask.

Letters: B blocks, K classes, Y X locations of F_theta's grid, H W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.datasets.classes import IGNORE
from model.evaluation.predict import Span, Strip
from model.metrics import Reliability, confusion
from raster.geometry import Size

__all__ = ["Tally", "WindowCounts", "Windows"]


@dataclass(frozen=True)
class WindowCounts:
    """Pixels per class and location, int64 (K, Y, X): right ones, and those of either prediction or label."""

    intersection: NDArray[np.int64]
    union: NDArray[np.int64]

    def mean_iou(self) -> NDArray[np.float64]:
        """(Y, X): mean over the classes that the window shows in prediction or label; NaN where nothing is labelled."""
        with np.errstate(invalid="ignore"):
            iou = self.intersection / self.union
        shown = (self.union > 0).sum(axis=0)
        total: NDArray[np.float64] = np.where(shown > 0, np.nansum(iou, axis=0) / np.maximum(shown, 1), np.nan)
        return total

    def pooled_iou(self) -> NDArray[np.float64]:
        """(Y, X): summed over the classes before the division, as the authors' code does; NaN as in `mean_iou`."""
        union = self.union.sum(axis=0)
        pooled: NDArray[np.float64] = np.where(union > 0, self.intersection.sum(axis=0) / np.maximum(union, 1), np.nan)
        return pooled


class Windows:
    """Sums over overlapping windows, in one pass over an image's rows; changes with every `add`.

    Only the summed-area table's values at the windows' edges are kept, so memory follows the grid and not the image.
    """

    def __init__(self, rows: Sequence[Span], columns: Sequence[Span], channels: int) -> None:
        self._rows, self._columns = np.array(rows), np.array(columns)
        self._row_edges = np.unique(self._rows)
        self._column_edges = np.unique(self._columns)
        self._so_far = np.zeros((channels, len(self._column_edges)), np.int64)
        self._table = np.zeros((channels, len(self._row_edges), len(self._column_edges)), np.int64)

    def add(self, y: int, flags: Sequence[NDArray[np.bool_]]) -> None:
        """The next rows, from `y` on: one (rows, W) array per channel."""
        height = flags[0].shape[0]
        inside = np.flatnonzero((self._row_edges > y) & (self._row_edges <= y + height))
        for channel, flag in enumerate(flags):
            along = np.zeros((height, flag.shape[1] + 1), np.int64)
            np.cumsum(flag, axis=1, out=along[:, 1:])
            down = np.cumsum(along[:, self._column_edges], axis=0) + self._so_far[channel]
            self._table[channel, inside] = down[self._row_edges[inside] - y - 1]
            self._so_far[channel] = down[-1]

    def sums(self) -> NDArray[np.int64]:
        """(channels, Y, X)."""
        first_row, last_row = np.searchsorted(self._row_edges, self._rows).T
        first_column, last_column = np.searchsorted(self._column_edges, self._columns).T
        table = self._table
        total: NDArray[np.int64] = (
            table[:, last_row][:, :, last_column]
            - table[:, first_row][:, :, last_column]
            - table[:, last_row][:, :, first_column]
            + table[:, first_row][:, :, first_column]
        )
        return total


class Tally:
    """The counts of one image; changes with every `add`."""

    def __init__(self, size: Size, classes: int, *, block: int | None, windows: Windows | None, shrink: int) -> None:
        """`block`: side of the bootstrap's blocks (null: the image is one); every `shrink`-th pixel enters `mask`."""
        self._classes = classes
        self._block = max(size.width, size.height) if block is None else block
        self._across = -(-size.width // self._block)
        down = -(-size.height // self._block)
        self._windows = windows
        self._shrink = shrink
        self.confusion = np.zeros((down * self._across, classes, classes), np.int64)
        """(B, K, K): label, then prediction."""
        self.reliability = Reliability.empty()
        self.mask = np.full((-(-size.height // shrink), -(-size.width // shrink)), IGNORE, np.uint8)

    def add(self, strip: Strip, labels: NDArray[np.uint8]) -> None:
        """`labels` (rows, W): the class of each pixel as its index in the card, or IGNORE."""
        predicted = strip.scores.argmax(axis=0).astype(np.uint8)
        valid = labels != IGNORE
        for row in range(strip.y // self._block, (strip.y + len(labels) - 1) // self._block + 1):
            first, last = max(row * self._block, strip.y) - strip.y, (row + 1) * self._block - strip.y
            for column in range(self._across):
                part = slice(first, last), slice(column * self._block, (column + 1) * self._block)
                found = confusion(predicted[part], labels[part], self._classes, IGNORE)
                self.confusion[row * self._across + column] += found
        self.reliability += Reliability.of(strip.scores.max(axis=0)[valid], (predicted == labels)[valid])
        if self._windows is not None:
            self._windows.add(strip.y, self._flags(predicted, labels, valid))
        here = slice(-(-strip.y // self._shrink) * self._shrink - strip.y, None, self._shrink)
        small = predicted[here, :: self._shrink]
        first = -(-strip.y // self._shrink)
        self.mask[first : first + len(small)] = small

    def window_counts(self) -> WindowCounts | None:
        if self._windows is None:
            return None
        sums = self._windows.sums()
        return WindowCounts(sums[: self._classes], sums[self._classes :])

    def _flags(
        self, predicted: NDArray[np.uint8], labels: NDArray[np.uint8], valid: NDArray[np.bool_]
    ) -> list[NDArray[np.bool_]]:
        classes = range(self._classes)
        is_predicted = [(predicted == k) & valid for k in classes]
        is_labelled = [labels == k for k in classes]
        both = [a & b for a, b in zip(is_predicted, is_labelled, strict=True)]
        return both + [a | b for a, b in zip(is_predicted, is_labelled, strict=True)]
