"""What `foveate info` tells: the image, whether it must be copied first, and how each bundle fits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foveate.errors import FitError
from foveate.schema import BundleCard, ImageInfo, SegmentOptions
from raster.convert import needs_conversion
from raster.fit import Fit, fit
from raster.image import ImageRef
from raster.probe import probe


@dataclass(frozen=True)
class BundleFit:
    """Either `fit`, or the `refusal` that says what would help."""

    name: str
    fit: Fit | None
    refusal: FitError | None


@dataclass(frozen=True)
class Description:
    """`conversion`: what is made before segmentation, and why; None: the file is read as it is."""

    info: ImageInfo
    conversion: str | None
    bundles: tuple[BundleFit, ...]


def describe(path: Path, cards: Mapping[str, BundleCard], options: SegmentOptions) -> Description:
    """The local image at `path`, with its sidecars, as `foveate segment` would see it; ImageError as there."""
    info = probe(ImageRef(path))
    fits = tuple(_tried(name, cards[name], info, options) for name in sorted(cards))
    return Description(info, needs_conversion(info), fits)


def _tried(name: str, card: BundleCard, info: ImageInfo, options: SegmentOptions) -> BundleFit:
    try:
        return BundleFit(name, fit(info, card, options), None)
    except FitError as error:
        return BundleFit(name, None, error)
