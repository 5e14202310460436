"""DICOM whole-slide series that OpenSlide does not take, through wsidicom: grey, 16-bit, JPEG-LS, several channels."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pydicom
from numpy.typing import NDArray
from wsidicom import WsiDicom

from foveate.errors import ImageUnreadable
from foveate.schema import ImageInfo, LevelInfo
from raster.content import Content, content_of, unsupported
from raster.geometry import Region
from raster.image import Pixels, RasterImage, spelled
from raster.limits import Limits
from raster.spacing import slide_spacing

# Real files break DICOM's rules on lengths and characters everywhere; pydicom would warn at each.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_T = TypeVar("_T")
_FILES = 10_000


def open_file(path: Path, *, sidecars: bool, limits: Limits) -> RasterImage:
    """The series that `path` (an instance, or a folder of instances) belongs to; `sidecars` changes nothing."""
    image = DicomImage(path, series_files(path))
    try:
        limits.check_size(path, image.info.width, image.info.height, len(image.info.bands))
        for level in image.info.levels:
            limits.check_block(path, *level.tile, len(image.info.bands) * np.dtype(image.info.dtype).itemsize)
    except BaseException:
        image.close()
        raise
    return image


def series_files(path: Path) -> list[Path]:
    """All instances of one series, in name order: that of `path` itself, or of the first instance in the folder."""
    folder = path if path.is_dir() else path.parent
    names = sorted(folder.iterdir())[:_FILES]
    files = [one for one in names if one.is_file() and one.stat().st_size and content_of(one) is Content.DICOM]
    if not files:
        inner = [one for one in names if one.is_dir()]
        if path.is_dir() and len(inner) == 1:
            return series_files(inner[0])
        raise unsupported(path, "the folder holds no slide")
    wanted = _series(files[0] if path.is_dir() else path)
    return [one for one in files if _series(one) == wanted]


def _series(path: Path) -> str:
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"])
        return str(header.SeriesInstanceUID)
    except Exception as error:
        raise ImageUnreadable(
            f"{path.name} has no DICOM series: {error}", hint="The file is damaged; export it again."
        ) from error


class DicomImage:
    """One series; the optical paths of grey images are its bands, in file order. No colour management."""

    def __init__(self, path: Path, files: list[Path]) -> None:
        self._path = path
        self._slide: Any = None
        self._slide = self._guarded(lambda: WsiDicom.open(files), "the series")
        try:
            self._info: ImageInfo = self._guarded(self._describe, "its description")
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        return Pixels(self._guarded(lambda: self._values(level, region), spelled(level, region)), None)

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        slide, self._slide = self._slide, None
        if slide is not None:
            slide.close()

    def _values(self, level: int, region: Region) -> NDArray[Any]:
        number = self._slide.levels[level].level
        parts = [
            np.asarray(self._slide.read_region((region.x, region.y), number, (region.width, region.height), path=one))
            for one in self._paths
        ]
        planes = [part[..., None] if part.ndim == 2 else part[..., :3] for part in parts]
        return np.ascontiguousarray(np.concatenate(planes, axis=2).astype(self._info.dtype, copy=False))

    def _describe(self) -> ImageInfo:
        levels = list(self._slide.levels)
        first = levels[0]
        dataset = first.datasets[0]
        colour = dataset.samples_per_pixel == 3
        shared = [one for one in first.optical_paths if all(one in level.optical_paths for level in levels)]
        self._paths = shared[:1] if colour else shared
        notes = [f"only the first of {len(shared)} optical paths is used"] if colour and len(shared) > 1 else []
        if len(first.focal_planes) > 1:
            notes.append(f"only the first of {len(first.focal_planes)} focal planes is used")
        spacing = first.pixel_spacing
        return ImageInfo(
            name=self._path.name,
            kind="slide",
            driver="dicom",
            reader="wsidicom",
            width=first.size.width,
            height=first.size.height,
            levels=[_level(first, level) for level in levels],
            bands=["red", "green", "blue"] if colour else ["gray", *["undefined"] * (len(self._paths) - 1)],
            dtype="uint8" if dataset.bits <= 8 else "uint16",
            spacing=spacing
            and slide_spacing(float(spacing.width) * 1000, float(spacing.height) * 1000, "DICOM pixel spacing"),
            crs=None,
            transform=None,
            warnings=notes,
        )

    def _guarded(self, call: Callable[[], _T], what: str) -> _T:
        try:
            return call()
        except Exception as error:
            text = str(error) or type(error).__name__
            raise ImageUnreadable(
                f"{self._path.name}: {what} cannot be decoded: {text}",
                hint="Give the whole series, with a VOLUME image in it, or export it again.",
            ) from error


def _level(first: Any, level: Any) -> LevelInfo:
    return LevelInfo(
        width=level.size.width,
        height=level.size.height,
        downsample=(first.size.width / level.size.width, first.size.height / level.size.height),
        tile=(level.tile_size.width, level.tile_size.height),
    )
