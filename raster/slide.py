"""Whole-slide images through OpenSlide: Aperio, Hamamatsu, MIRAX, Leica, Ventana, DICOM and the others of its list.

MIRAX, SCN and BIF have no sample here: what this module does with them is tested through a faked handle that answers
as OpenSlide documents (openslide.org/properties).
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import openslide
from numpy.typing import NDArray

from foveate.errors import ImageUnreadable
from foveate.schema import ImageInfo, LevelInfo, SpacingInfo
from raster.content import Content, content_of, unsupported
from raster.geometry import Region
from raster.image import Pixels, RasterImage, spelled
from raster.limits import Limits
from raster.spacing import slide_spacing

VENDORS = frozenset(
    {
        "aperio",
        "dicom",
        "hamamatsu",
        "huron",
        "leica",
        "mirax",
        "philips-tiff",
        "sakura",
        "trestle",
        "ventana",
        "zeiss",
    }
)
"""OpenSlide's formats but "generic-tiff", which is no scanner's: any tiled TIFF is one."""
_OPAQUE = frozenset({"aperio", "hamamatsu", "huron", "philips-tiff"})
"""Vendors whose every pixel is data; others leave parts of the canvas unscanned, which OpenSlide shows see-through."""
_FALLBACK_TILE = 256
_PIXEL_BYTES = 4
_LARGEST_INDEX = 1 << 20
_T = TypeVar("_T")


def vendor_of(path: Path) -> str | None:
    """OpenSlide's name for the format of a file; None for what is no slide of the formats allowed here."""
    try:
        vendor = openslide.OpenSlide.detect_format(str(path))
    except openslide.OpenSlideError:
        return None
    return vendor if vendor in VENDORS else None


def open_file(path: Path, *, sidecars: bool, limits: Limits) -> RasterImage:
    """The slide at `path`: a file, any instance of a DICOM series, or the folder of a slide of several files.

    `sidecars` changes nothing: the files that a MIRAX or DICOM slide consists of are the slide.
    """
    main = _main_file(path)
    _check_index(path, main)
    image = SlideImage(path, lambda: openslide.OpenSlide(str(main)))
    try:
        limits.check_size(path, image.info.width, image.info.height, len(image.info.bands))
        for level in image.info.levels:
            limits.check_block(path, *level.tile, _PIXEL_BYTES)
    except BaseException:
        image.close()
        raise
    return image


class SlideImage:
    """An OpenSlide handle behind `open_handle`, opened again after every error: OpenSlide's handles latch the first.

    The frame is OpenSlide's canvas, scanner bounds included. See-through pixels are not data, and white, never black.
    """

    def __init__(self, path: Path, open_handle: Callable[[], Any]) -> None:
        self._path, self._open_handle = path, open_handle
        self._handle: Any = None
        self._info: ImageInfo = self._guarded(self._describe, "the file")

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        rgba = self._guarded(lambda handle: self._rgba(handle, level, region), spelled(level, region))
        alpha = rgba[..., 3]
        values = np.ascontiguousarray(rgba[..., :3])
        if not (alpha == 255).all():
            values = _on_white(values, alpha)
        if self._info.validity == "none":
            return Pixels(values, None)
        return Pixels(values, (alpha > 0) & self._inside(level, region))

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None if self._info.validity == "none" else self.read(level, region).valid

    def close(self) -> None:
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def _rgba(self, handle: Any, level: int, region: Region) -> NDArray[np.uint8]:
        downsample = handle.level_downsamples[level]
        place = round(region.x * downsample), round(region.y * downsample)
        return np.asarray(handle.read_region(place, level, (region.width, region.height)), np.uint8)

    def _inside(self, level: int, region: Region) -> NDArray[np.bool_]:
        """Which pixels of `region` have their centre within the scanner's bounds."""
        if self._info.bounds is None:
            return np.ones((region.height, region.width), np.bool_)
        x, y, width, height = self._info.bounds
        across, down = self._info.levels[level].downsample
        columns = (np.arange(region.x, region.x1) + 0.5) * across
        rows = (np.arange(region.y, region.y1) + 0.5) * down
        return np.outer((rows >= y) & (rows < y + height), (columns >= x) & (columns < x + width))

    def _describe(self, handle: Any) -> ImageInfo:
        properties = dict(handle.properties)
        vendor = properties.get("openslide.vendor", "openslide")
        width, height = handle.dimensions
        bounds = _bounds(properties, width, height)
        return ImageInfo(
            name=self._path.name,
            kind="slide",
            driver=vendor,
            reader="openslide",
            width=width,
            height=height,
            levels=_levels(handle, properties),
            bands=["red", "green", "blue"],
            dtype="uint8",
            spacing=_spacing(properties),
            crs=None,
            transform=None,
            validity="none" if bounds is None and vendor in _OPAQUE else "bounds",
            bounds=bounds,
            frame="level-0" if bounds is None else "openslide-canvas",
        )

    def _guarded(self, call: Callable[[Any], _T], what: str) -> _T:
        """`call(handle)` on a handle without a past; whatever it raises leaves as ImageUnreadable."""
        try:
            if self._handle is None:
                self._handle = self._open_handle()
            return call(self._handle)
        except Exception as error:
            self.close()
            raise ImageUnreadable(
                f"{self._path.name}: {what} cannot be decoded: {_reason(error, self._path)}",
                hint="The slide is damaged or cut short, or files of it are missing; copy or export it again.",
            ) from error


def _main_file(path: Path) -> Path:
    """The file that OpenSlide is given: `path` itself, or the one in the folder that stands for the whole slide."""
    if not path.is_dir():
        return path
    files = [one for one in sorted(path.iterdir()) if one.is_file() and not one.name.startswith(".")]
    folders = [one for one in sorted(path.iterdir()) if one.is_dir()]
    if not files and len(folders) == 1:
        return _main_file(folders[0])
    instances = [one for one in files if one.stat().st_size and content_of(one) is Content.DICOM]
    if instances:
        return instances[0]
    slides = [one for one in files if vendor_of(one) is not None]
    if len(slides) != 1:
        raise unsupported(path, f"the folder holds {len(slides)} slides of several files, where one is wanted")
    return slides[0]


def _check_index(path: Path, main: Path) -> None:
    """Refuse a slide whose index (VMS, VMU, MIRAX) names files outside its own folder: OpenSlide would open them."""
    vendor = vendor_of(main)
    if vendor == "mirax":
        index = main.with_suffix("") / "Slidedat.ini"
    elif vendor == "hamamatsu" and main.stat().st_size <= _LARGEST_INDEX:
        index = main  # or a small NDPI
    else:
        return
    if content_of(index) is Content.TIFF:
        return
    for line in index.read_bytes().decode("latin-1").splitlines():
        name = line.partition("=")[2].strip()
        if name.startswith("/") or ".." in name.split("/"):
            raise ImageUnreadable(
                f"{path.name} names a file outside its own folder: {name}",
                hint="Keep all files of the slide in one folder, and name them without a path.",
            )


def _reason(error: BaseException, path: Path) -> str:
    text = str(error) or type(error).__name__
    return text.replace(f"{path.parent}/", "")


def _on_white(values: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # OpenSlide's PIL images hold colours that are not premultiplied.
    share = alpha[..., None].astype(np.float32) / 255
    return np.rint(values * share + 255 * (1 - share)).astype(np.uint8)


def _levels(handle: Any, properties: dict[str, str]) -> list[LevelInfo]:
    full_width, full_height = handle.dimensions
    return [
        LevelInfo(
            width=width,
            height=height,
            downsample=(full_width / width, full_height / height),
            tile=(
                int(properties.get(f"openslide.level[{index}].tile-width", _FALLBACK_TILE)),
                int(properties.get(f"openslide.level[{index}].tile-height", _FALLBACK_TILE)),
            ),
        )
        for index, (width, height) in enumerate(handle.level_dimensions)
    ]


def _bounds(properties: dict[str, str], width: int, height: int) -> tuple[int, int, int, int] | None:
    names = ("bounds-x", "bounds-y", "bounds-width", "bounds-height")
    values = [properties.get(f"openslide.{name}") for name in names]
    if any(value is None for value in values):
        return None
    x, y, wide, high = (int(float(value)) for value in values if value is not None)
    region = Region(x, y, wide, high).intersection(Region(0, 0, width, height))
    return None if region.empty else (region.x, region.y, region.width, region.height)


def _spacing(properties: dict[str, str]) -> SpacingInfo | None:
    x, y = (_positive(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    return slide_spacing(x, y, "openslide.mpp-x, openslide.mpp-y")


def _positive(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value > 0 else None
