"""The preview of refined coverage: the mask that the coarse pass alone would give, at its resolution."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foveate.schema import NODATA
from model.tree import Node, Tree
from raster.geometry import Region
from raster.georeference import Georeference
from raster.source import Plane
from raster.write import MaskWriter
from worker.canvas import Canvas
from worker.job import Job
from worker.plan import EXAMINED, Plan
from worker.trees import stretches


def write_preview(job: Job, tree: Tree, plan: Plan, canvas: Canvas, tick: Callable[[], None]) -> None:
    """Write the job's preview, a small COG of the roots' classes over their squares.

    It covers the roots' squares under the region of interest, inside the image; a pixel is the largest scale's. `tick`
    is called with every row of roots, and may raise to stop: all their scores are read again.
    """
    path = job.spec.preview
    rows, columns = job.placement.cells
    scale = tree.scales[-1]
    covered = Region.between(columns.start * tree.stride, rows.start * tree.stride, *_end(tree, columns, rows))
    x, y = (scale * start * ratio for start, ratio in zip((covered.x, covered.y), job.grid.ratio, strict=True))
    place = Georeference.of(job.info, job.fit.spacing)
    grid = place.regridded(x, y, scale * job.grid.ratio[0], scale * job.grid.ratio[1])
    plane, has_gaps = Plane((scale * job.grid.ratio[0], scale * job.grid.ratio[1])), job.info.validity != "none"
    with MaskWriter(path.parent, covered.size, job.card.classes, grid) as writer:
        for row in rows:
            tick()
            labels = _row_labels(job, tree, plan, canvas, row)
            area = Region(0, row * tree.stride - covered.y, labels.shape[1], labels.shape[0])
            inside = area.intersection(Region.of(covered.size))
            shown = labels[: inside.height, : inside.width]
            valid = job.source.read(plane, inside.shifted(covered.x, covered.y)).valid if has_gaps else None
            writer.write(inside, shown if valid is None else np.where(valid > 0, shown, NODATA).astype(np.uint8))
        writer.finish(path)


def _end(tree: Tree, columns: range, rows: range) -> tuple[int, int]:
    """One beyond the last pixel of the preview along x and y, counted from the image's corner."""
    scale = tree.scales[-1]
    return (
        min(columns.stop * tree.stride, -(-tree.size.width // scale)),
        min(rows.stop * tree.stride, -(-tree.size.height // scale)),
    )


def _row_labels(job: Job, tree: Tree, plan: Plan, canvas: Canvas, row: int) -> NDArray[np.uint8]:
    """(stride, stride a root) class values of one row of roots."""
    S, m, scale = tree.stride, tree.margin, tree.scales[-1]
    values = np.array([card.value for card in job.card.classes], np.uint8)
    _, columns = job.placement.cells
    labels = np.full((S, S * len(columns)), NODATA, np.uint8)
    for part in stretches(columns, job.batch):
        found = canvas.roots(Node(tree.top, row, part.start))
        assert found is not None, "the coarse pass has committed every stretch"
        for column, scores_KPP in zip(found.columns.tolist(), found.scores, strict=True):
            own = scores_KPP[:, m : m + S, m : m + S].argmax(axis=0)
            labels[:, (column - columns.start) * S : (column - columns.start + 1) * S] = values[own]
    # The cell under every pixel: what is not examined stays no data.
    cell_rows = np.minimum((row * S + np.arange(S)) * scale // S, plan.reason.shape[0] - 1)
    cell_columns = np.minimum((columns.start * S + np.arange(labels.shape[1])) * scale // S, plan.reason.shape[1] - 1)
    labels[plan.reason[np.ix_(cell_rows, cell_columns)] != EXAMINED] = NODATA
    return labels
