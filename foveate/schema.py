"""Everything that crosses a border as JSON: bundle cards, image descriptions, segmentation options, job views."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Rgb = tuple[
    Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)]
]
ImageKind = Literal["slide", "scene", "picture"]
SpacingUnit = Literal["um", "m"]

NODATA = 255
"""The mask's value for no data and not examined; never a class."""

DEVICES = "auto, cpu, cuda or cuda:N"
_DEVICE = re.compile(r"auto|cpu|cuda(:(0|[1-9]\d?))?")
_POLICY = re.compile(r"mean|mode|gumbel|average|ensemble|fixed:[1-9]\d*|random(:\d+)?")


class Wire(BaseModel):
    """Frozen, and strict about names: a field that we do not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# --- bundle.json (design 4.4) ---------------------------------------------------------------------------------------


class NetworkCard(Wire):
    """How to build the segmentation network."""

    library: Literal["smp", "foveate"]
    architecture: str
    encoder: str | None = None
    in_channels: Annotated[int, Field(ge=1, le=64)]
    scale_channel: bool = False
    """One more input channel that holds log2(f / P), constant over a patch."""
    options: dict[str, bool | int | float | str | list[int]] = Field(default_factory=dict)
    """Further keyword arguments of the architecture's constructor, such as `decoder_channels`."""


class FoveationCard(Wire):
    """F_theta (paper, section 3.2); `downsample` is its step r: working pixels per thumbnail pixel."""

    downsample: Annotated[int, Field(ge=1)]
    hidden: Annotated[int, Field(ge=1)]
    activation: Literal["relu6", "relu", "leaky_relu"] = "relu6"
    norm: Literal["bn", "bn1", "instance", "no_normalise"] = "bn"


class CurvePoint(Wire):
    """One measured place of an adaptive coverage: what it costs, and how good it is beside the best fixed scale."""

    coverage: Literal["planned", "refined"]
    detail: Annotated[float, Field(ge=0, le=1)]
    threshold: float | None
    """Of refined coverage: need beyond which a node is looked at closer; planned coverage finds its own."""
    share: Annotated[float, Field(ge=0)]
    """Forwards over those of dense coverage at the finest scale, inner nodes counted."""
    seconds: Annotated[float, Field(ge=0)]
    miou: float
    low: float
    """With `high`: the interval of `miou` less that of the best fixed scale."""
    high: float


class CoverageCard(Wire):
    """`curve`: points measured by `foveate evaluate`; empty until somebody measured them."""

    default: Literal["dense", "planned", "refined"] = "dense"
    detail: Annotated[float, Field(ge=0, le=1)] | None = None
    """Where nobody says --detail."""
    planning: Literal["gradient", "foveation"] = "gradient"
    """What plans: the thumbnail's gradient alone, or times F_theta's probability of finer scales."""
    curve: list[CurvePoint] = Field(default_factory=list)


class InputCard(Wire):
    """What the network expects; a value enters as (value / value_scale - mean) / std, band by band."""

    kind: Literal["slide", "scene", "any"]
    bands: Annotated[list[str], Field(min_length=1)]
    """Colour interpretations in order, such as ["red", "green", "blue"]."""
    dtype: Literal["uint8", "uint16", "float32"]
    value_scale: Annotated[float, Field(gt=0)]
    mean: list[float]
    std: list[Annotated[float, Field(gt=0)]]
    spacing: Annotated[float, Field(gt=0)] | None
    """Side of a working pixel in `spacing_unit`; null: trained on pixels whose scale nobody knows."""
    spacing_unit: SpacingUnit | None
    spacing_range: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None
    """Accepted spacing of level 0, both ends included."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise ValueError("bands, mean and std differ in length")
        if len({self.spacing is None, self.spacing_unit is None, self.spacing_range is None}) != 1:
            raise ValueError("spacing, spacing_unit and spacing_range are all given or all null")
        if self.spacing_range is not None and self.spacing_range[0] > self.spacing_range[1]:
            raise ValueError("spacing_range is upside down")
        return self


class ClassCard(Wire):
    value: Annotated[int, Field(ge=0, le=254)]
    name: Annotated[str, Field(min_length=1, max_length=64)]
    color: Rgb


class BundleCard(Wire):
    """The machine-readable half of a bundle; `classes[k]` is the network's output channel k."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
    version: Annotated[str, Field(min_length=1, max_length=32)]
    licence: Annotated[str, Field(min_length=1)]
    network: NetworkCard
    patch_size: Annotated[int, Field(ge=8, le=4096)]
    fovs: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1, max_length=16)]
    """Sides of the fields of view in working pixels, ascending; the first is `patch_size`."""
    foveation: FoveationCard | None
    mapping: Literal["implicit", "explicit"]
    policy: str
    coverage: CoverageCard = CoverageCard()
    input: InputCard
    classes: Annotated[list[ClassCard], Field(min_length=1, max_length=255)]
    provenance: dict[str, Any]

    @field_validator("policy")
    @classmethod
    def _policy(cls, value: str) -> str:
        return checked_policy(value)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fovs != sorted(set(self.fovs)) or self.fovs[0] != self.patch_size:
            raise ValueError(f"fovs must ascend from patch_size {self.patch_size}, got {self.fovs}")
        if self.network.in_channels != len(self.input.bands):
            raise ValueError("network.in_channels is not the number of input.bands")
        if len({c.value for c in self.classes}) != len(self.classes):
            raise ValueError("two classes share a value")
        if len({entry.name for entry in self.classes}) < len(self.classes):
            raise ValueError("two classes share a name")
        return self


def checked_policy(value: str) -> str:
    """`value` itself if it names a policy (design 4.1); ValueError otherwise."""
    if not _POLICY.fullmatch(value):
        raise ValueError(f"{value!r} is no policy: mean, mode, gumbel, fixed:K, average, random[:SEED] or ensemble")
    return value


def checked_device(value: str) -> str:
    """`value` itself if it names a device, there or not; ValueError otherwise."""
    if not _DEVICE.fullmatch(value):
        raise ValueError(f"{value!r} is no device: {DEVICES}")
    return value


# --- images -----------------------------------------------------------------------------------------------------------


class SpacingInfo(Wire):
    """Sides of a level-0 pixel along x and y in `unit`, and where the numbers come from."""

    x: float
    y: float
    unit: SpacingUnit
    origin: str


class LevelInfo(Wire):
    width: int
    height: int
    downsample: tuple[float, float]
    """Level-0 pixels per pixel of this level, along x and y."""
    tile: tuple[int, int]
    """Width and height of the file's own blocks."""


class ImageInfo(Wire):
    """What a file says of itself; level-0 pixels, origin top left, in the frame named by `frame`."""

    name: str
    kind: ImageKind
    driver: str
    """The format, in the reader's words: "aperio", "GTiff", "JPEG"…"""
    reader: str
    """The library that reads it: "openslide", "rasterio", "tifffile", "wsidicom", "pillow"; "direct": none."""
    width: int
    height: int
    levels: list[LevelInfo]
    bands: list[str]
    """One colour interpretation a band, alpha left out, a palette expanded: red, green, blue, gray, nir, undefined."""
    dtype: str
    spacing: SpacingInfo | None
    crs: str | None
    """WKT."""
    transform: tuple[float, float, float, float, float, float] | None
    """GDAL's affine in rasterio's order (a, b, c, d, e, f), carried exactly; null: none in the file."""
    gcps: list[tuple[float, float, float, float, float]] = Field(default_factory=list)
    """(column, row, x, y, z) in the system of `crs`."""
    area_or_point: Literal["Area", "Point"] | None = None
    nodata: float | None = None
    """The declared value; NaN is no data in any case and never stands here."""
    validity: Literal["none", "nodata", "alpha", "mask", "bounds"] = "none"
    """What may mark pixels as no data; "none": every pixel is data."""
    bounds: tuple[int, int, int, int] | None = None
    """Scanner bounds (x, y, width, height) inside OpenSlide's canvas."""
    frame: Literal["level-0", "openslide-canvas", "exif-oriented"] = "level-0"
    warnings: list[str] = Field(default_factory=list)


class StoredImage(Wire):
    """An image that a service holds."""

    id: str
    sha256: str
    """Of the bytes that were sent."""
    bytes: int
    created: datetime
    info: ImageInfo


# --- options of a segmentation (design 4.1 and 4.3) ------------------------------------------------------------------


_COARSEST_MASK = 1024
_FARTHEST = 2.0**40
"""Level-0 pixels."""


class SegmentOptions(Wire):
    """What the user may choose about one segmentation; the machine's own options are not here."""

    model_config = ConfigDict(allow_inf_nan=False)

    model: str | None = None
    policy: str | None = None
    coverage: Literal["dense", "planned", "refined"] | None = None
    detail: Annotated[float, Field(ge=0, le=1)] | None = None
    overlap: Annotated[float, Field(ge=0, le=0.75)] = 0.25
    roi: tuple[float, float, float, float] | None = None
    """(x, y, width, height) in level-0 pixels."""
    spacing: Annotated[float, Field(gt=0)] | None = None
    """Side of a level-0 pixel, in the bundle's unit; wins over the file's."""
    bands: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] | None = None
    rescale: tuple[float, float] | None = None
    """(low, high): these source values become 0 and the top of the model's range (255 for uint8)."""
    mask_downsample: int = 1
    tissue_mask: bool = True
    force: bool = False
    regions: bool = True
    """Whether the classes are written as polygons, too."""
    outputs: list[Literal["uncertainty", "probabilities"]] = Field(default_factory=list)

    @field_validator("policy")
    @classmethod
    def _policy(cls, value: str | None) -> str | None:
        return value if value is None else checked_policy(value)

    @field_validator("mask_downsample")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if not 1 <= value <= _COARSEST_MASK or value & (value - 1):
            raise ValueError(f"{value} is not 1, 2, 4, 8, … {_COARSEST_MASK}")
        return value

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.roi is not None and (self.roi[2] <= 0 or self.roi[3] <= 0):
            raise ValueError(f"roi {self.roi} has no area")
        if self.roi is not None and max(map(abs, self.roi)) > _FARTHEST:
            raise ValueError(f"roi {self.roi} is not a place in any image")
        if self.rescale is not None and self.rescale[0] >= self.rescale[1]:
            raise ValueError(f"rescale {self.rescale} is upside down")
        return self


# --- jobs ------------------------------------------------------------------------------------------------------------


class JobState(StrEnum):
    """OGC API - Processes, Part 1, 7.12: the five states of a job."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    SUCCESSFUL = "successful"
    FAILED = "failed"
    DISMISSED = "dismissed"

    @property
    def terminal(self) -> bool:
        return self in (JobState.SUCCESSFUL, JobState.FAILED, JobState.DISMISSED)


class Link(Wire):
    href: str
    rel: str
    type: str
    title: str | None = None


class Problem(Wire):
    """RFC 9457, with the hint of the error as an extension member."""

    type: str
    title: str
    status: int
    detail: str
    hint: str
    code: str
    instance: str | None = None


class StatusInfo(Wire):
    """OGC API - Processes, statusInfo. Absent fields are left out of the JSON, never null."""

    jobID: str  # noqa: N815
    processID: Literal["segment"] = "segment"  # noqa: N815
    type: Literal["process"] = "process"
    status: JobState
    message: str | None = None
    created: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    updated: datetime | None = None
    progress: Annotated[int, Field(ge=0, le=100)] | None = None
    image: str | None = None
    """Id of the image."""
    imageName: str | None = None  # noqa: N815
    """What its uploader called it, for as long as the image is there."""
    model: str | None = None
    """Name of the bundle."""
    links: list[Link] = Field(default_factory=list)


class ResultFile(Wire):
    """One file of a finished job: an OGC link, with what is needed to check the download."""

    href: str
    rel: Literal["result"] = "result"
    type: str
    title: str
    """The file's name."""
    length: int
    """Bytes."""
    sha256: str
