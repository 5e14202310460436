"""GeoTIFF, COG, plain TIFF, JPEG, PNG and JPEG 2000 through rasterio, with one pinned GDAL driver and its own settings.

Every read runs under an explicit `rasterio.Env`: the settings of other code in the process never decide what is read.
"""

import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.windows import Window

from foveate.errors import ImageError, ImageUnreadable
from foveate.schema import ImageInfo, ImageKind, LevelInfo, SpacingInfo
from raster.cog import CACHE_BYTES
from raster.content import Content, content_of
from raster.geometry import Region, Size
from raster.image import Pixels, RasterImage, spelled
from raster.levels import is_reduction, trusted_levels
from raster.limits import Limits
from raster.orientation import upright
from raster.overviews import window_of
from raster.palette import Palette
from raster.picture import exif_orientation, png_chunks
from raster.sidecars import Sidecars, find_sidecars
from raster.spacing import ground_spacing, warn_of_uneven_ground
from raster.tiffheader import TiffHeader, read_tiff_header
from raster.verdicts import Verdicts

# GDAL's complaints reach the user in our errors; its log would only repeat them on stderr.
logging.getLogger("rasterio").setLevel(logging.CRITICAL + 1)

_DRIVERS = {Content.TIFF: "GTiff", Content.JPEG: "JPEG", Content.PNG: "PNG", Content.JP2: "JP2OpenJPEG"}
_COMMON = {"GTIFF_IGNORE_READ_ERRORS": "NO", "GDAL_ERROR_ON_LIBJPEG_WARNING": "YES", "GDAL_CACHEMAX": CACHE_BYTES}
_ALONE = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
_WITH_SIDECARS = {"GDAL_DISABLE_READDIR_ON_OPEN": "FALSE", "GDAL_PAM_ENABLED": "YES"}
_T = TypeVar("_T")
_BAND_NAMES = {"red", "green", "blue", "gray", "palette", "nir"}
_CHECKED_JPEG_PIXELS = 2**26
_RPC_ALONE = (
    "its place on Earth is told by RPCs alone, which results do not carry: orthorectify it first (`gdalwarp -rpc`) "
    "for a mask that lies on the map"
)
_levels: Verdicts[int] = Verdicts()
"""How many levels of a file show the same picture."""
_OPENING = threading.Lock()
"""Python's warning filters belong to the process; opening is the one moment when rasterio warns."""


def open_file(path: Path, *, sidecars: bool, limits: Limits) -> RasterImage:
    """The image at `path` as GDAL sees it, upright; its sidecars only if `sidecars`, and never one that is a VRT."""
    content = content_of(path)
    header = read_tiff_header(path) if content is Content.TIFF else None
    chunks = png_chunks(path) if content is Content.PNG else {}
    found = find_sidecars(path) if sidecars else Sidecars()
    image = RasterioImage(path, _DRIVERS[content], header, limits, sidecars=found.usable)
    try:
        if content is Content.JPEG:
            _check_jpeg_end(image)
        beside = [path.with_name(name) for name in found.names] if found.usable else []
        image = _without_false_levels(image, header, [path, *beside])
        notes = [*image.info.warnings, *found.warnings]
        if found.usable:
            with closing(RasterioImage(path, _DRIVERS[content], header, limits, sidecars=False)) as opened:
                alone = _without_false_levels(opened, header, [path]).info
            notes += _difference(image.info, alone, found)
        image.annotate(notes)
    except BaseException:
        image.close()
        raise
    if image.info.kind != "picture":
        return image
    if header is not None:
        return upright(image, header.orientation)
    return upright(image, exif_orientation(image.tags(), chunks.get("eXIf")))


class RasterioImage:
    """One GDAL dataset and a handle for each of its overviews."""

    def __init__(self, path: Path, driver: str, header: TiffHeader | None, limits: Limits, *, sidecars: bool) -> None:
        self._path, self._driver, self._header = path, driver, header
        self._info: ImageInfo
        self._options = _COMMON | (_WITH_SIDECARS if sidecars else _ALONE)
        self._datasets: list[Any] = []
        try:
            self._open(limits)
        except BaseException:
            self.close()
            raise

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        return self._guarded(lambda: self._read(self._datasets[level], region), spelled(level, region))

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        if self._info.validity == "none":
            return None
        if self._palette is not None or self._is_float:
            return self.read(level, region).valid
        return self._guarded(lambda: self._mask(self._datasets[level], window_of(region)), spelled(level, region))

    def close(self) -> None:
        datasets, self._datasets = self._datasets, []
        for dataset in datasets:
            self._guarded(dataset.close, "the file")

    def tags(self) -> dict[str, str]:
        """GDAL's metadata of the whole file, where EXIF and XMP are."""
        tags: dict[str, Any] = self._guarded(self._datasets[0].tags, "its metadata")
        return {str(key): str(value) for key, value in tags.items()}

    def keep_levels(self, count: int) -> None:
        """Forget the levels from `count` on: they show another picture."""
        for dataset in self._datasets[count:]:
            self._guarded(dataset.close, "the file")
        del self._datasets[count:]
        self._info = self._info.model_copy(update={"levels": self._info.levels[:count]})

    def annotate(self, notes: list[str]) -> None:
        self._info = self._info.model_copy(update={"warnings": notes})

    def _open(self, limits: Limits) -> None:
        main = self._guarded(self._dataset, "the file")
        self._datasets.append(main)
        limits.check_size(self._path, main.width, main.height, main.count)
        limits.check_claim(self._path, main.width, main.height)
        self._info = self._guarded(lambda: self._describe(main, limits), "its description")

    def _dataset(self, **options: int) -> Any:
        return open_quietly(self._path, self._driver, **options)

    def _describe(self, main: Any, limits: Limits) -> ImageInfo:
        dtype = str(main.dtypes[0])
        for one in main.dtypes:
            limits.check_dtype(self._path, str(one))
        colors = _again(lambda: main.colorinterp)
        self._alpha = next((k + 1 for k, color in enumerate(colors) if color == ColorInterp.alpha), None)
        self._colors = [k + 1 for k in range(main.count) if k + 1 != self._alpha]
        if not self._colors:
            self._colors, self._alpha = [1], None
        self._is_float = dtype.startswith("float")
        self._palette = Palette.of(main, self._colors, dtype)
        self._inverted = main.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES" and dtype.startswith("uint")
        self._largest = 2 ** int(main.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8 * np.dtype(dtype).itemsize)) - 1
        self._gain = self._gray_gain()
        self._flags = set(_again(lambda: main.mask_flag_enums)[self._colors[0] - 1])
        block_height, block_width = main.block_shapes[0]
        limits.check_block(self._path, block_width, block_height, main.count * np.dtype(dtype).itemsize)
        levels = self._open_levels(main)
        return self._make_info(main, dtype, levels, [colors[k - 1].name for k in self._colors])

    def _gray_gain(self) -> int:
        """A PNG of 1, 2 or 4 bits a pixel is black to white all the same; GDAL gives 0 to 1, 3 or 15."""
        return 255 // self._largest if self._driver == "PNG" and self._palette is None and self._largest < 255 else 1

    def _open_levels(self, main: Any) -> list[LevelInfo]:
        levels = [_level(main, main)]
        # JPEG's overviews are decoded from the whole file at every access: they save nothing.
        count = 0 if self._driver == "JPEG" else len(_again(lambda: main.overviews(self._colors[0])))
        for index in range(count):
            dataset = self._dataset(overview_level=index)
            shape, before = Size(dataset.width, dataset.height), Size(levels[-1].width, levels[-1].height)
            if is_reduction(Size(main.width, main.height), shape) and shape.area < before.area:
                self._datasets.append(dataset)
                levels.append(_level(main, dataset))
            else:
                dataset.close()
        return levels

    def _make_info(self, main: Any, dtype: str, levels: list[LevelInfo], colors: list[str]) -> ImageInfo:
        gcps, gcp_crs = _again(lambda: main.gcps)
        crs = _again(lambda: main.crs) or gcp_crs
        wkt = crs.to_wkt() if crs else None
        transform = None if main.transform.is_identity else main.transform
        if not np.isfinite([*(transform or ()), *(side for p in gcps for side in (p.col, p.row, p.x, p.y))]).all():
            raise ImageUnreadable(
                f"{self._path.name} has a georeference with numbers that are not finite",
                hint="Give it a place again (gdal_edit.py -a_ullr …), or take it away (-unsetgt).",
            )
        place = main.width, main.height, transform, gcps, wkt
        spacing = ground_spacing(*place)
        placed = bool(crs or transform or gcps)
        if not placed and self._header is not None:
            spacing = self._header.spacing
        nodata = main.nodata
        return ImageInfo(
            name=self._path.name,
            kind=_kind(placed, spacing),
            driver=self._driver,
            reader="rasterio",
            width=main.width,
            height=main.height,
            levels=levels,
            bands=self._palette.bands if self._palette else [c if c in _BAND_NAMES else "undefined" for c in colors],
            dtype=dtype if self._palette is None else "uint8",
            spacing=spacing,
            crs=wkt,
            transform=None if transform is None else tuple(transform)[:6],
            gcps=[(p.col, p.row, p.x, p.y, p.z or 0.0) for p in gcps],
            area_or_point=main.tags().get("AREA_OR_POINT") if placed else None,
            nodata=float(nodata) if nodata is not None and np.isfinite(nodata) else None,
            validity=self._validity(),
            warnings=[*self._warnings(main, placed), *warn_of_uneven_ground(*place)],
        )

    def _warnings(self, main: Any, placed: bool) -> Iterator[str]:
        if not placed and _again(lambda: main.rpcs) is not None:
            yield _RPC_ALONE
        if self._largest < 255 and self._palette is None and self._gain == 1:
            yield f"its pixels of few bits go from 0 to {self._largest}; --rescale 0,{self._largest} stretches them"

    def _validity(self) -> Any:
        if self._palette is not None and self._palette.transparent:
            return "nodata" if MaskFlags.nodata in self._flags else "alpha"
        if self._alpha is not None:
            return "alpha"
        if MaskFlags.per_dataset in self._flags:
            return "mask"
        return "nodata" if MaskFlags.nodata in self._flags or self._is_float else "none"

    def _read(self, dataset: Any, region: Region) -> Pixels:
        window = window_of(region)
        raw = dataset.read(self._colors, window=window)
        valid = self._mask(dataset, window)
        if self._palette is not None:
            values, opaque = self._palette.expand(raw[0])
            return Pixels(values, opaque if valid is None else _both(valid, opaque))
        if self._is_float:
            valid = _both(valid, np.isfinite(raw).all(axis=0))
        if self._inverted:
            raw = raw.dtype.type(self._largest) - raw
        if self._gain > 1:
            raw = raw * raw.dtype.type(self._gain)
        return Pixels(np.ascontiguousarray(np.moveaxis(raw, 0, 2)), valid)

    def _mask(self, dataset: Any, window: Window) -> NDArray[np.bool_] | None:
        """GDAL's dataset mask, over the colour bands; an alpha band wins over nodata, as in rasterio."""
        if self._alpha is not None:
            valid = dataset.read(self._alpha, window=window) > 0
        elif MaskFlags.per_dataset in self._flags:
            valid = dataset.read_masks(self._colors[0], window=window) > 0
        elif MaskFlags.nodata in self._flags:
            valid = (dataset.read_masks(self._colors, window=window) > 0).any(axis=0)
        else:
            return None
        return np.asarray(valid, np.bool_)

    def _guarded(self, call: Callable[[], _T], what: str) -> _T:
        """`call()` under this image's GDAL settings; whatever it raises leaves as an ImageError that names the file."""
        try:
            with rasterio.Env(**self._options):
                return call()
        except ImageError:
            raise
        except Exception as error:
            raise ImageUnreadable(
                f"{self._path.name}: {what} cannot be decoded: {reason(error, self._path)}",
                hint="The file is damaged, cut short or of an unusual kind; export or copy it again.",
            ) from error


def open_quietly(path: Path, driver: str, **options: int) -> Any:
    """The dataset through one pinned driver, without rasterio's warning that it has no place on Earth.

    Its own metadata may name another file, anywhere on the machine or the net, that GDAL would take for its overviews:
    such an image is refused (ImageUnreadable).
    """
    with _OPENING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = rasterio.open(path, driver=driver, **options)
    if any(name.upper() == "OVERVIEW_FILE" for name in dataset.tags(ns="OVERVIEWS")):
        dataset.close()
        raise ImageUnreadable(
            f"{path.name} has metadata that name another file as its overviews",
            hint="Copy it without them (rio edit-info, gdal_edit.py), and make overviews of its own with gdaladdo.",
        )
    return dataset


def reason(error: BaseException, path: Path) -> str:
    """The innermost message, which is the codec's; without the folder, which is nobody's business."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = getattr(error, "errmsg", None) or str(error) or type(error).__name__
    return text.replace(f"{path.parent}/", "").strip()


def _again(ask: Callable[[], Any]) -> Any:
    # A warning of PROJ or libtiff that was left over surfaces as an exception in the next harmless property, once.
    try:
        return ask()
    except Exception:
        return ask()


def _both(a: NDArray[np.bool_] | None, b: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    if a is None or b is None:
        return b if a is None else a
    return a & b


def _level(main: Any, dataset: Any) -> LevelInfo:
    height, width = dataset.block_shapes[0]
    return LevelInfo(
        width=dataset.width,
        height=dataset.height,
        downsample=(main.width / dataset.width, main.height / dataset.height),
        tile=(width, height),
    )


def _kind(placed: bool, spacing: SpacingInfo | None) -> ImageKind:
    """A place makes a scene, believable micrometres make a slide; the rest is a picture."""
    if placed:
        return "scene"
    return "picture" if spacing is None else "slide"


def _without_false_levels(image: RasterioImage, header: TiffHeader | None, files: list[Path]) -> RasterioImage:
    """`image` without levels that show another picture; `files` are all that it is read from."""
    info = image.info
    places = [(info.width // 2, info.height // 2), *(header.fullest if header else ())]
    try:
        count = _levels.about(files, len(info.levels), lambda: trusted_levels(image, places))
    except ImageUnreadable:
        # A damaged spot says nothing of the levels; the job will meet it and report it.
        return image
    if count < len(info.levels):
        image.keep_levels(count)
        lost = len(info.levels) - count
        image.annotate([*info.warnings, f"{lost} overviews do not show the same picture as level 0 and are not used"])
    return image


def _check_jpeg_end(image: RasterioImage) -> None:
    # A JPEG is decoded from its first byte on, so only its last row shows that it is whole; for a large one that is
    # left to the reading, which meets the end anyway.
    info = image.info
    if info.width * info.height <= _CHECKED_JPEG_PIXELS:
        image.read(0, Region(0, info.height - 1, info.width, 1))


def _difference(info: ImageInfo, alone: ImageInfo, found: Sidecars) -> list[str]:
    """What the sidecars changed, in words; a service, which never reads them, would give another result."""
    names = ("levels", "bands", "crs", "transform", "gcps", "nodata", "validity")
    changed = [name for name in names if getattr(info, name) != getattr(alone, name)]
    if not changed:
        return []
    return [f"{', '.join(changed)} come from {', '.join(found.names)} beside the image; the service ignores such files"]
