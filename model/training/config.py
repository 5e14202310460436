"""One frozen training recipe, read strictly from YAML; it travels inside the bundle that it made as `training.yaml`."""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from foveate.errors import OptionInvalid
from foveate.schema import BundleCard, Wire
from model.networks.weights import LITE0_ENCODER

__all__ = [
    "Augmentation",
    "Data",
    "FoveationSchedule",
    "Glass",
    "Holdout",
    "NetworkSchedule",
    "TrainConfig",
    "read_config",
]

Share = Annotated[float, Field(ge=0, le=1)]


class Scenes(Wire):
    """Images with their label images: two glob patterns below `Data.folder`, matched in sorted order."""

    images: str
    labels: str
    mosaic: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None = None
    """(columns, rows): the files are the row-major parts of one image; null: each file is an image."""


class LabelRange(Wire):
    """Label values from `low` to `high`, both included, mean class `value`; null: never learnt, never scored."""

    low: Annotated[int, Field(ge=0, le=255)]
    high: Annotated[int, Field(ge=0, le=255)]
    value: Annotated[int, Field(ge=0, le=254)] | None


class Glass(Wire):
    """Derives empty glass from colour: pixels labelled `within` that are bright and colourless become `value`."""

    within: int
    value: int
    brightness: Annotated[float, Field(ge=0, le=255)]
    """Least mean of the three bands, 0 to 255."""
    chroma: Annotated[float, Field(ge=0, le=255)]
    """Greatest difference between the bands, 0 to 255."""
    radius: Annotated[int, Field(ge=0)]
    """Both are judged on the mean over a square that reaches this many pixels each way."""


class Holdout(Wire):
    """What the network never learns from, so that F_theta is trained on honest losses.

    "corner": in every image a corner (turning from image to image) of 1/`part` of each side. "image": every `part`-th
    image as a whole.
    """

    kind: Literal["corner", "image"]
    part: Annotated[int, Field(ge=2)]


class Data(Wire):
    folder: Path
    train: Annotated[list[Scenes], Field(min_length=1)]
    test: Annotated[list[Scenes], Field(min_length=1)]
    labels: Annotated[list[LabelRange], Field(min_length=1)]
    glass: Glass | None = None
    holdout: Holdout


class GlassAugmentation(Wire):
    """Lays empty glass over one side of a random line; crops of tissue never show the edge of a section."""

    share: Share
    value: Annotated[int, Field(ge=0, le=254)]
    """The class of glass."""


class Augmentation(Wire):
    """Random changes of a training patch, beside flips and right angles, which are always made."""

    zoom: Annotated[float, Field(ge=0, le=1)]
    """Greatest magnification or shrinking, in octaves."""
    zoom_share: Share
    gain: Annotated[float, Field(ge=0, lt=1)]
    """Greatest relative change of brightness, and half of it for each band on its own."""
    contrast: Annotated[float, Field(ge=0, lt=1)]
    gamma: Annotated[float, Field(ge=0, lt=1)]
    glass: GlassAugmentation | None = None


class NetworkSchedule(Wire):
    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    fov_shares: list[Share]
    """Share of the patches of each field of view."""
    class_centred: Share
    """Share of the patches that contain a pixel of a class drawn uniformly; the others lie anywhere."""
    class_weight_power: Annotated[float, Field(ge=0, le=1)]
    """The loss weighs a class with (1 / its share of pixels) to this power."""
    encoder_weights: Literal["imagenet-lite0"] | None
    encoder_learning_rate: Annotated[float, Field(gt=0)]
    decoder_learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    poly_power: Annotated[float, Field(gt=0)]


class FoveationSchedule(Wire):
    steps: Annotated[int, Field(ge=1)]
    learning_rate: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    every: Annotated[int, Field(ge=1)]
    """Every how many thumbnail pixels, along both axes, a location is measured."""
    variants: Annotated[int, Field(ge=1, le=8)]
    """Into how many turned and mirrored versions each image is measured."""


class TrainConfig(Wire):
    bundle: BundleCard
    """The card to be; training completes `provenance`."""
    data: Data
    augmentation: Augmentation
    network: NetworkSchedule
    foveation: FoveationSchedule
    seed: Annotated[int, Field(ge=0)]
    threads: Annotated[int, Field(ge=1)]
    checkpoint_minutes: Annotated[float, Field(gt=0)]
    run: Path
    """Where checkpoints lie, so that the same command goes on where it stopped."""
    output: Path
    """The bundle's directory."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.network.fov_shares) != len(self.bundle.fovs):
            raise ValueError(f"network.fov_shares needs one share for each of the fovs {self.bundle.fovs}")
        if abs(sum(self.network.fov_shares) - 1) > 1e-6:
            raise ValueError(f"network.fov_shares add up to {sum(self.network.fov_shares):g}, not 1")
        if any(f % self.bundle.patch_size for f in self.bundle.fovs) or self.bundle.mapping != "explicit":
            raise ValueError("only explicit mapping over whole multiples of patch_size can be trained so far")
        if self.bundle.foveation is None:
            raise ValueError("bundle.foveation is null: there is no F_theta to train")
        if self.network.encoder_weights is not None and self.bundle.network.encoder != LITE0_ENCODER:
            raise ValueError(f"encoder_weights {self.network.encoder_weights} are for the encoder {LITE0_ENCODER}")
        values = {r.value for r in self.data.labels} | ({self.data.glass.value} if self.data.glass else set())
        if not values - {None} <= set(range(len(self.bundle.classes))):
            raise ValueError(f"labels map to {values}, but there are {len(self.bundle.classes)} classes")
        return self


def read_config(path: Path) -> TrainConfig:
    """The recipe in `path`; OptionInvalid names the field that is wrong."""
    try:
        return TrainConfig.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise OptionInvalid(f"{path} cannot be read: {error.strerror}", hint="Give the path of a recipe.") from error
    except yaml.YAMLError as error:
        raise OptionInvalid(
            f"{path} is no YAML: {error}", hint="Mend the file; see bundles/*/training.yaml."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "recipe"
        raise OptionInvalid(
            f"{path}: {field}: {first['msg']}", hint="Mend the file; see bundles/*/training.yaml for a whole one."
        ) from error
