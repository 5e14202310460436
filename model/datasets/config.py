"""What a recipe says about its data: where they lie, how labels become classes, what is held out, what is varied."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from foveate.schema import Rgb, Wire

__all__ = [
    "Augmentation",
    "CityscapesData",
    "Data",
    "DeepGlobeData",
    "GlasData",
    "Glass",
    "GlassAugmentation",
    "GleasonData",
    "Holdout",
    "LabelRule",
    "PairsData",
    "Scenes",
]

ClassValue = Annotated[int, Field(ge=0, le=254)]
Share = Annotated[float, Field(ge=0, le=1)]


class Scenes(Wire):
    """Images with their labels: two glob patterns below `folder`, or a CSV file of both.

    An image belongs to the label file whose wildcards stand for the same text. Numbers in names sort by value.
    The CSV file has the columns `image` and `label`: paths below `folder`, or absolute.
    """

    images: str | None = None
    labels: str | None = None
    csv: Path | None = None
    mosaic: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """(columns, rows): the files are the row-major parts of one image; null: each file is an image."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.csv is None) == (self.images is None) or (self.images is None) != (self.labels is None):
            raise ValueError("give both images and labels (patterns), or csv")
        if self.csv is not None and self.mosaic is not None:
            raise ValueError("a mosaic is given by patterns, not by a csv file")
        return self


class LabelRule(Wire):
    """Which class `value` some labels mean; null: never learnt, never scored.

    Exactly one of: index values from `low` to `high`, both included; a `color` of an RGB mask; the `name` of a
    polygon's class in GeoJSON (QuPath's `classification.name`, else a property `class` or `name`).
    """

    low: Annotated[int, Field(ge=0, le=65535)] | None = None
    high: Annotated[int, Field(ge=0, le=65535)] | None = None
    color: Rgb | None = None
    name: str | None = None
    value: ClassValue | None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("low and high belong together")
        if sum(field is not None for field in (self.low, self.color, self.name)) != 1:
            raise ValueError("give low and high, or color, or name")
        return self


class Glass(Wire):
    """Derives empty glass from colour: pixels labelled `within` that are bright and colourless become `value`."""

    within: ClassValue
    value: ClassValue
    brightness: Annotated[float, Field(ge=0, le=255)]
    """Least mean of the three bands, 0 to 255."""
    chroma: Annotated[float, Field(ge=0, le=255)]
    """Greatest difference between the bands, 0 to 255."""
    radius: Annotated[int, Field(ge=0)]
    """Both are judged on the mean over a square that reaches this many pixels each way."""


class Holdout(Wire):
    """What the network never learns from, so that F_theta is trained on honest losses (`staged` training alone).

    "corner": in every image a corner (turning from image to image) of 1/`part` of each side. "image": every `part`-th
    image as a whole.
    """

    kind: Literal["corner", "image"]
    part: Annotated[int, Field(ge=2)]


class _Gap(Wire):
    gap: Annotated[int, Field(ge=0)] = 0
    """Pixels of an object at most this far, along rows and columns, from another object become `gap_value` where they
    are learnt, so that touching objects are kept apart; they are scored as they are."""
    gap_value: ClassValue | None = None

    @model_validator(mode="after")
    def _gap_has_a_class(self) -> Self:
        if self.gap and self.gap_value is None:
            raise ValueError("gap needs gap_value, the class that the gap becomes")
        return self


class _Folder(Wire):
    folder: Path
    """Paths are below it; a relative one is relative to the working directory."""
    spacing: Annotated[float, Field(gt=0)] | None = None
    """Side of a level-0 pixel in the bundle's unit, over what the files say; null: what they say."""
    bands: list[Annotated[int, Field(ge=1)]] | None = None
    """The file's bands, counted from 1, in the bundle's order; null: by their colour interpretation."""
    rescale: tuple[float, float] | None = None
    """(low, high): the values that become 0 and the top of the bundle's range; null: taken as they are."""


class PairsData(_Folder, _Gap):
    """The general layout: pairs of image and labels, listed or matched."""

    layout: Literal["pairs"]
    train: Annotated[list[Scenes], Field(min_length=1)]
    validation: list[Scenes] = Field(default_factory=list)
    test: list[Scenes] = Field(default_factory=list)
    labels: Annotated[list[LabelRule], Field(min_length=1)]
    background: ClassValue | None = None
    """The class of what no polygon covers in GeoJSON labels; null: never learnt, never scored."""
    glass: Glass | None = None
    objects: ClassValue | None = None
    """The class whose index labels number single objects (glands), for object measures; null: none."""
    holdout: Holdout | None = None

    @model_validator(mode="after")
    def _gap_has_objects(self) -> Self:
        if self.gap and self.objects is None:
            raise ValueError("gap needs objects, the class whose labels number single objects")
        return self


class DeepGlobeData(_Folder):
    """DeepGlobe land cover: `land-train/ID_sat.jpg` with `land-train/ID_mask.png` in the data set's colours.

    `lists`: a folder with the authors' lists of their split; null: a permutation by `seed` cut 455 / 207 / 141.
    """

    layout: Literal["deepglobe"]
    lists: Path | None = None
    seed: int = 304
    share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Of the training and validation images, from the start of their lists (0.1 in the authors' scripts)."""


class CityscapesData(_Folder):
    """Cityscapes (fine): `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png` and `gtFine/SPLIT/CITY/*_gtFine_labelIds.png`."""

    layout: Literal["cityscapes"]
    share: Annotated[float, Field(gt=0, le=1)] = 1.0


class GleasonData(_Folder):
    """Gleason2019: `Train Imgs/slideNNN_coreNNN.jpg`, up to six `MapsK_T/slideNNN_coreNNN_classimg_nonconvex.png`.

    The annotators' maps are fused by STAPLE once and kept in `fused`.
    """

    layout: Literal["gleason2019"]
    fused: Path
    """Folder for the fused maps, made if need be."""
    grades: Literal[0, 3, 4, 5, 6, 30] = 0
    """Which grades become which class: the authors' mapping of that number (foveation-method.md, section 9)."""
    crop: Annotated[int, Field(ge=1)] = 4400
    lists: Path | None = None
    seed: int = 304


class GlasData(_Folder, _Gap):
    """GlaS as it was published: `train_N.bmp`, `testA_N.bmp`, `testB_N.bmp`, with `…_anno.bmp` of gland numbers.

    Class 0 is other, 1 gland; with `glass`, what is no gland is `within`, and glands are the next free class.
    """

    layout: Literal["glas"]
    spacing: Annotated[float, Field(gt=0)] | None = 0.62
    """Micrometres, as the challenge states; the files say nothing."""
    glass: Glass | None = None
    holdout: Holdout | None = None


Data = Annotated[PairsData | DeepGlobeData | CityscapesData | GleasonData | GlasData, Field(discriminator="layout")]


class GlassAugmentation(Wire):
    """Lays empty glass over one side of a random line; crops of tissue never show the edge of a section."""

    share: Share
    value: Annotated[int, Field(ge=0, le=254)]
    """The class of glass."""


class Augmentation(Wire):
    """Random changes of what training sees; the same for a thumbnail and all patches cut from one image."""

    flip: bool = True
    """Left to right, with probability 1/2 (the paper's only augmentation)."""
    right_angles: bool = False
    """Turns by right angles, each as likely as the others."""
    zoom: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Greatest magnification or shrinking, in octaves (`staged` training alone)."""
    zoom_share: Share = 0.0
    gain: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Greatest relative change of brightness, and half of it for each band on its own."""
    contrast: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gamma: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Greatest exponent, in octaves."""
    saturation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Greatest relative change of the distance from grey (three bands alone)."""
    hue: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Greatest turn about the grey axis, in radians (three bands alone)."""
    glass: GlassAugmentation | None = None
