"""The paper's own numbers, in percent, by the names of its tables (Jin et al., arXiv 2007.15124).

A role is a policy as in `model.evaluation.entries.Entry.role`; `fixed:K` is the paper's "Patch K".
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["PAPER", "DataSet", "PaperTable"]

Row = tuple[float | None, ...]
_FIVE = tuple(f"fixed:{k}" for k in range(1, 6))
_ROLES = (*_FIVE, "random", "average", "ensemble", "mean", "mode", "gumbel")


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables: a row per role or name."""

    title: str
    columns: tuple[str, ...]
    rows: Mapping[str, Row]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """What the paper says about one data set; `classes` in the order of its training labels."""

    classes: tuple[str, ...]
    iou: PaperTable
    mse: Mapping[str, tuple[float, float]]
    """Table 3: mean and standard deviation by role."""
    recall: PaperTable | None = None
    resolutions: PaperTable | None = None
    """Inference steps as shares of the smallest field of view, by role."""
    cautions: tuple[str, ...] = field(default_factory=tuple)


def _rows(*values: Row) -> dict[str, Row]:
    return dict(zip(_ROLES, values, strict=False))


_DEEPGLOBE = ("urban", "agriculture", "rangeland", "forest", "water", "barren")
_GLEASON = ("benign", "grade 3", "grade 4")
_CITYSCAPES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)

_CITYSCAPES_ROWS: dict[str, Row] = {
    "fixed:5": (
        *(67.7, 97.6, 80.8, 89.8, 49.7, 51.4, 53.9, 39.0, 63.3, 89.6),
        *(59.4, 90.4, 73.9, 51.6, 91.9, 54.9, 74.0, 61.3, 45.3, 69.1),
    ),
    "fixed:4": (
        *(68.0, 97.3, 81.0, 89.5, 41.9, 52.2, 51.5, 32.9, 66.0, 89.2),
        *(55.9, 90.1, 75.3, 55.4, 92.0, 54.1, 80.2, 74.8, 43.7, 69.8),
    ),
    "fixed:3": (
        *(69.8, 97.5, 81.2, 90.3, 47.0, 55.8, 54.2, 46.8, 68.6, 90.0),
        *(57.4, 88.8, 77.1, 56.9, 92.8, 57.4, 76.8, 63.6, 51.5, 72.5),
    ),
    "fixed:2": (
        *(70.6, 97.0, 82.1, 89.8, 47.3, 53.4, 57.6, 56.9, 72.1, 90.3),
        *(56.7, 85.6, 79.0, 60.0, 92.8, 54.0, 78.2, 58.1, 56.8, 74.2),
    ),
    "fixed:1": (
        *(70.2, 95.0, 84.4, 90.3, 45.6, 56.2, 63.4, 61.4, 76.5, 91.4),
        *(59.9, 68.9, 81.2, 58.0, 93.2, 53.0, 69.6, 50.6, 59.3, 76.8),
    ),
    "random": (
        *(50.3, 94.1, 68.1, 80.7, 36.5, 40.2, 18.8, 13.3, 31.8, 79.6),
        *(50.7, 58.4, 53.8, 34.4, 79.1, 49.3, 46.3, 37.8, 31.2, 51.6),
    ),
    "average": (
        *(56.6, 96.3, 73.6, 85.7, 31.6, 40.4, 39.0, 19.8, 49.8, 86.5),
        *(47.5, 89.3, 65.7, 43.6, 89.0, 47.6, 45.7, 38.6, 23.2, 61.6),
    ),
    "ensemble": (
        *(72.5, 97.7, 83.8, 91.1, 51.7, 58.2, 58.9, 50.9, 72.6, 90.9),
        *(60.9, 90.9, 79.4, 60.1, 93.2, 57.1, 79.6, 69.0, 56.4, 74.8),
    ),
    "mean": (
        *(76.1, 98.2, 84.9, 92.3, 55.2, 61.4, 64.5, 71.4, 80.1, 92.5),
        *(64.2, 94.1, 82.8, 64.0, 94.5, 63.6, 81.0, 63.3, 59.2, 78.2),
    ),
    "mode": (
        *(71.4, 97.5, 80.8, 90.8, 45.4, 55.3, 55.6, 56.5, 67.7, 90.7),
        *(60.8, 92.1, 75.5, 55.8, 93.1, 66.0, 76.4, 69.9, 54.5, 71.6),
    ),
    "gumbel": (
        *(70.5, 97.7, 82.2, 89.1, 44.8, 55.4, 64.5, 66.1, 76.2, 91.8),
        *(62.1, 75.1, 80.8, 60.8, 92.8, 53.4, 74.8, 42.6, 52.9, 76.6),
    ),
}

PAPER: dict[Literal["deepglobe", "cityscapes", "gleason2019"], DataSet] = {
    "deepglobe": DataSet(
        classes=_DEEPGLOBE,
        iou=PaperTable(
            "Table 2, DeepGlobe",
            ("all", *_DEEPGLOBE),
            _rows(
                (73.8, 79.4, 88.2, 45.1, 77.2, 87.4, 65.4),
                (73.4, 79.0, 88.4, 43.6, 77.7, 85.6, 66.2),
                (56.4, 57.0, 81.4, 27.8, 62.3, 69.1, 40.7),
                (72.3, 77.2, 87.8, 41.8, 78.5, 84.2, 64.2),
                (71.3, 76.9, 87.0, 39.6, 79.1, 83.0, 62.2),
                (46.4, 56.3, 77.0, 20.1, 41.0, 45.8, 38.5),
                (73.5, 78.4, 88.1, 45.0, 80.8, 82.3, 66.7),
                (74.3, 79.4, 88.7, 44.5, 80.0, 86.3, 66.8),
                (74.0, 79.5, 88.7, 45.2, 77.6, 86.4, 66.6),
                (73.2, 77.5, 88.2, 43.4, 79.9, 84.4, 65.5),
                (73.8, 78.4, 88.5, 44.7, 80.1, 84.4, 66.8),
            )
            | {"GLNet": (71.6, None, None, None, None, None, None)},
        ),
        mse={"mean": (0.171, 0.076), "gumbel": (0.146, 0.063), "mode": (0.149, 0.055)},
        cautions=("The paper's largest field of view is 2500 px; the authors' code used 2448.",),
    ),
    "gleason2019": DataSet(
        classes=_GLEASON,
        iou=PaperTable(
            "Table 2, Gleason2019",
            ("all", *_GLEASON),
            _rows(
                (69.3, 81.0, 61.8, 65.0),
                (70.1, 80.5, 64.4, 65.3),
                (70.7, 81.0, 64.9, 66.1),
                (67.3, 76.4, 61.4, 64.0),
                (61.4, 67.5, 55.6, 61.0),
                (64.9, 72.2, 58.6, 63.8),
                (65.7, 78.8, 52.2, 66.0),
                (71.0, 80.8, 65.4, 66.9),
                (71.1, 82.4, 63.0, 67.8),
                (69.5, 81.6, 61.3, 65.6),
                (67.4, 79.4, 58.3, 64.4),
            )
            | {"clinical experts": (66.9, 83.9, 56.4, 60.3)},
            ("Grade 5 is left out of the paper's average (about 2 % of the pixels).",),
        ),
        mse={"mean": (0.129, 0.043), "gumbel": (0.083, 0.031), "mode": (0.086, 0.027)},
        recall=PaperTable(
            "Table B.2.3, Gleason2019, class recall",
            _GLEASON,
            {
                "mean": (88.3, 83.8, 78.1),
                "gumbel": (87.6, 78.9, 81.3),
                "mode": (85.2, 71.5, 86.3),
                "challenge rank 1": (95.9, 2.24, 16.5),
                "challenge rank 2": (83.0, 52.7, 54.0),
                "best per class": (95.9, 70.7, 70.6),
            },
        ),
        cautions=(
            "Grade 3 beats the experts by 6.6 points in Table 2; the paper's text says 6.5.",
            "The gain for grade 4 is 15.7 in the text to Table B.2.3 (mode) and 7.5 in the abstract (mean).",
            "The paper speaks of a central crop of 2448 px; its bank (to 4400 px) and step imply 4400.",
        ),
    ),
    "cityscapes": DataSet(
        classes=_CITYSCAPES,
        iou=PaperTable("Tables B.2.1 and B.2.2, Cityscapes", ("all", *_CITYSCAPES), _CITYSCAPES_ROWS),
        mse={"mean": (0.084, 0.043), "gumbel": (0.082, 0.038), "mode": (0.184, 0.048)},
        resolutions=PaperTable(
            "Table B.5.1, Cityscapes, mIoU by inference step (512, 256, 128, 64, 16 px; the smallest patch is 512)",
            ("1", "0.5", "0.25", "0.125", "0.03125"),
            {
                "fixed:1": (65.9, 68.5, 69.7, 70.0, 70.2),
                "fixed:2": (66.5, 69.0, 70.0, 70.4, 70.6),
                "fixed:3": (66.7, 68.9, 69.4, 69.6, 69.8),
                "fixed:4": (64.9, 66.9, 67.7, 67.9, 68.0),
                "fixed:5": (64.2, 66.3, 67.0, 67.2, 67.7),
                "mean": (70.7, 75.0, 76.1, 76.0, 76.1),
                "gumbel": (62.6, 69.1, 69.9, 70.3, 70.5),
                "mode": (67.1, 69.9, 71.2, 71.2, 71.4),
            },
        ),
        cautions=(
            "Tables B.2.1 and B.2.2 number the patches from the largest (1024 px) down, Tables 2 and B.5.1 from the "
            "smallest (512 px) up; here fixed:1 is the smallest throughout.",
            "Mode and Gumbel are 70.5 and 71.4 in Table 2, but 71.4 and 70.5 in Tables B.2.1 and B.5.1, which are "
            "shown here: Table 2 has them exchanged.",
        ),
    ),
}
