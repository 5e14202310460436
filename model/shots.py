"""Forwards of the network: what a policy's choice makes of a cell, and the batches that they are forwarded in.

Letters: N patches of a batch, M fields of view mixed into one patch, C bands, P patch side, D bank.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.predictor import PatchBatch

__all__ = ["Shot", "batch_of", "cell_shots"]


@dataclass(frozen=True)
class Shot:
    """One forward of the network: a cell, the fields of view mixed into its patch and their weights."""

    row: int
    column: int
    fovs: tuple[int, ...]
    mix: tuple[float, ...]
    share: float
    """Weight against the other forwards of the same cell."""


def cell_shots(row: int, column: int, fovs: tuple[int, ...], weights_D: NDArray[np.float32] | None) -> Iterator[Shot]:
    """The forwards of a cell that reads `fovs`: one of their sum where there are `weights_D`, else one of each."""
    if weights_D is not None:
        yield Shot(row, column, fovs, tuple(weights_D.tolist()), 1.0)
    else:
        yield from (Shot(row, column, (fov,), (1.0,), 1 / len(fovs)) for fov in fovs)


def batch_of(
    group: Sequence[Shot],
    patches: Sequence[Sequence[NDArray[Any]]],
    origins: Sequence[tuple[int, int]],
    length: int | None = None,
    *,
    whole: bool = False,
) -> PatchBatch:
    """The group with its patches, M of (P, P, C) a shot, and its origins as in `PatchBatch`; padded to `length`."""
    length = length or len(group)
    return PatchBatch(
        _padded(np.stack([np.stack(several) for several in patches]), length),
        _padded(np.array([shot.mix for shot in group], np.float32), length),
        _padded(np.array([shot.fovs[0] for shot in group], np.int64), length),
        _padded(np.array(origins, np.int64), length),
        _padded(np.array([shot.share for shot in group], np.float32), length),
        len(group),
        whole,
    )


def _padded(values: NDArray[Any], length: int) -> NDArray[Any]:
    """The array with its last row repeated up to `length` rows."""
    return (
        values if len(values) == length else np.concatenate([values, np.repeat(values[-1:], length - len(values), 0)])
    )
