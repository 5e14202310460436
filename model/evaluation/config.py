"""What `foveate evaluate` measures; part of an experiment (`model.experiment`) or a file of its own."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from foveate.schema import Wire
from model.datasets.config import Data

__all__ = ["Bootstrap", "BundlesFile", "EvaluateConfig"]


class Bootstrap(Wire):
    """Percentile intervals by resampling blocks of each image, or whole images (`block` null), with replacement."""

    draws: Annotated[int, Field(ge=10)] = 300
    block: Annotated[int, Field(ge=16)] | None = None
    """Side in working pixels."""
    level: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: int = 304


class EvaluateConfig(Wire):
    split: Literal["train", "validation", "test"] = "test"
    geometry: Literal["lattice", "center", "parity"] | None = None
    """Null: the one that each network was trained in; `lattice` for bundles."""
    overlap: Annotated[float, Field(ge=0, le=0.75)] = 0.25
    """Of the lattice."""
    step: Annotated[int, Field(ge=1)] | None = None
    """R of `center` and `parity`: pixels from one location to the next; null: the smallest field of view."""
    policies: list[str] | None = None
    """For bundles; null: the bundle's own and every fixed one. A net trained jointly is scored by its own policy."""
    mean_over: list[str] | None = None
    """Classes in the class average; null: all (Gleason2019 leaves grade 5 out)."""
    ensembles: dict[str, list[str]] = Field(default_factory=dict)
    """Name of an ensemble: the models whose scores are averaged."""
    reference: str | None = None
    """The model that the others are compared with, paired; null: the best fixed one."""
    bootstrap: Bootstrap | None = Bootstrap()
    resolutions: list[Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=list)
    """Inference steps to sweep (Table B.5.1), as shares of the smallest field of view."""
    gold: bool = False
    """Both gold standards from the fixed models, and the maps' distances to them and to controls (Table 3)."""
    coverage: bool | list[str] = False
    """Adaptive coverage's curves, of all networks that can have it or those named, beside fixed scales and controls."""
    calibration: bool = True
    """Expected calibration error over 15 bins, and a reliability diagram."""
    objects: bool = False
    """Object Dice and F1 where the data number their objects."""
    maps: Annotated[int, Field(ge=0)] = 4
    """Images of which maps and predictions are drawn."""
    paper: Literal["deepglobe", "cityscapes", "gleason2019"] | None = None
    """Whose published numbers stand beside ours."""
    curve: bool = False
    """Which part of Figure 2a this experiment is: fixed networks over fields of view and rates."""


class BundlesFile(Wire):
    """A file that scores bundles on labelled images."""

    bundles: Annotated[dict[str, Path], Field(min_length=1)]
    """Directories by the name that the tables give them."""
    data: Data
    evaluate: EvaluateConfig = EvaluateConfig()
