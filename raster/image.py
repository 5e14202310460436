"""The interface that every reader answers, and the opener that chooses one."""

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foveate.errors import ImageError, ImageLimits, ImageMissing, ImageUnreadable, ImageUnsupported
from foveate.schema import ImageInfo
from raster.content import FORMATS_HINT, Content, content_of, local_path
from raster.geometry import Region
from raster.limits import Limits
from raster.verdicts import Verdicts


@dataclass(frozen=True)
class Pixels:
    """A rectangle of pixels.

    `values`: (height, width, bands), the file's dtype, bands in the file's order (alpha not among them).
    `valid`: (height, width) bool, True where the pixel is data; None: every pixel is.
    `decoded`: how many of them a codec had to deliver; None: all.
    """

    values: NDArray[Any]
    valid: NDArray[np.bool_] | None
    decoded: int | None = None


class RasterImage(Protocol):
    """One open image; used by one thread at a time, and opened again (not shared) in another thread or process.

    `info` never changes. `read` gives the pixels of `region` (in pixels of `level`, wholly inside it) or raises
    ImageUnreadable if any of them cannot be decoded; the handle stays usable afterwards. `read_valid` gives what `read`
    gives as `valid` without decoding colours where the format allows it. `close` may be called twice.
    """

    @property
    def info(self) -> ImageInfo: ...

    def read(self, level: int, region: Region) -> Pixels: ...

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class ImageRef:
    """How to open an image again in another thread or process; picklable."""

    path: Path
    sidecars: bool = True
    """Whether .ovr, .msk and .aux.xml beside the file may be read: a local user's yes, an uploader's no."""
    reader: str | None = None
    """The reader that was chosen, so that one job uses one reader; None: choose. "direct" stands for the file's own
    reader with tiles decoded past it, where that can be done (`raster.direct`)."""


def spelled(level: int, region: Region) -> str:
    """A region in the words of an error message."""
    return f"{region.width} x {region.height} px at ({region.x}, {region.y}) of level {level}"


_MODULES = {
    "openslide": "raster.slide",
    "rasterio": "raster.geotiff",
    "tifffile": "raster.tiff",
    "wsidicom": "raster.dicom",
    "pillow": "raster.picture",
}
"""Readers are imported when they are tried: each brings a library of its own."""
_DIRECT = "direct"
_PLAIN_DRIVERS = frozenset({"aperio", "GTiff"})
"""What `raster.direct` may take over."""
_PROOF_SIDE = 64
_proofs: Verdicts[bool] = Verdicts()
"""Files of which a reader has decoded a tile."""


def open_image(ref: ImageRef, limits: Limits = Limits()) -> RasterImage:  # noqa: B008
    """The image behind `ref`, through the first reader that opens it and decodes a tile of it.

    ImageMissing, ImageUnsupported (no reader takes it), ImageLimits (refused before a pixel is read) or
    ImageUnreadable (names the file and, reader by reader, the reason).
    """
    path = local_path(ref.path)
    failures: list[tuple[str, ImageError]] = []
    faster = ref.reader in (None, _DIRECT)
    for reader in _candidates(path, limits) if ref.reader is None or faster else [ref.reader]:
        try:
            image = _proven(path, _reader(reader)(path, sidecars=ref.sidecars, limits=limits))
            return _directly(path, image, limits, faster)
        except (ImageLimits, ImageMissing):
            raise
        except ImageError as error:
            failures.append((reader, error))
    if len(failures) == 1:
        raise failures[0][1]
    if failures and all(isinstance(error, ImageUnsupported) for _, error in failures):
        raise failures[0][1]
    reasons = "; ".join(f"{reader}: {error.message.removeprefix(f'{path.name}: ')}" for reader, error in failures)
    raise ImageUnreadable(f"no reader can decode {path.name}: {reasons}", hint=failures[0][1].hint)


def _candidates(path: Path, limits: Limits) -> list[str]:
    """The readers to try, best first, by content."""
    content = content_of(path)
    if content is Content.TIFF:
        return _tiff_candidates(path, limits)
    if content in (Content.FOLDER, Content.DICOM):
        return ["openslide", "wsidicom"]
    if content is not Content.PNG and _slide_vendor(path) is not None:
        return ["openslide"]
    readers = {
        Content.JPEG: ["rasterio", "pillow"],
        Content.PNG: ["rasterio"],
        Content.JP2: ["rasterio"],
        Content.PICTURE: ["pillow"],
    }
    if content not in readers:
        raise ImageUnsupported(f"{path.name} is no image: its content is of no format known here", hint=FORMATS_HINT)
    return readers[content]


def _tiff_candidates(path: Path, limits: Limits) -> list[str]:
    """OpenSlide opens any tiled TIFF, losing place, nodata and palette: it gets only what carries a scanner's name.

    Generic pyramids go to rasterio, which sees the same levels, on exact pixel grids, and all types.
    """
    header = importlib.import_module("raster.tiffheader").read_tiff_header(path)
    limits.check_size(path, header.width, header.height, header.bands)
    limits.check_claim(path, header.width, header.height)
    if header.georeferenced:
        return ["rasterio"]
    if header.ome:
        return ["tifffile", "rasterio"]
    if _slide_vendor(path) is not None:
        # No other reader after it: the first page of an SCN or BIF is a photograph of the glass.
        return ["openslide"]
    return ["rasterio", "tifffile"]


def _slide_vendor(path: Path) -> str | None:
    vendor: str | None = importlib.import_module("raster.slide").vendor_of(path)
    return vendor


def _reader(name: str) -> Callable[..., RasterImage]:
    if name not in _MODULES:
        raise ImageUnsupported(f"{name!r} is no reader", hint=f"Choose one of {', '.join(_MODULES)}, or none.")
    opener: Callable[..., RasterImage] = importlib.import_module(_MODULES[name]).open_file
    return opener


def _directly(path: Path, image: RasterImage, limits: Limits, wanted: bool) -> RasterImage:
    """`image`, or its tiles read past its library; only TIFFs have a page or two to look at."""
    if image.info.driver not in _PLAIN_DRIVERS:
        return image
    faster: RasterImage = importlib.import_module("raster.direct").direct_or_reference(
        path, image, limits, wanted=wanted
    )
    return faster


def _proven(path: Path, image: RasterImage) -> RasterImage:
    """`image` itself once a tile of it was decoded, at its corner or in its middle: a good open proves nothing.

    One handle proves it for all: what a codec keeps of a tile takes megabytes, in every thread that reads.
    """
    try:
        _proofs.about([path], image.info.reader, lambda: _decodes(image))
    except BaseException:
        image.close()
        raise
    return image


def _decodes(image: RasterImage) -> bool:
    """True; raises the first ImageError where nothing can be decoded."""
    failure: ImageError | None = None
    for place in _proof(image.info):
        try:
            image.read(0, place)
            return True
        except ImageError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _proof(info: ImageInfo) -> Iterator[Region]:
    width, height = min(_PROOF_SIDE, info.width), min(_PROOF_SIDE, info.height)
    yield Region(0, 0, width, height)
    yield Region((info.width - width) // 2, (info.height - height) // 2, width, height)
