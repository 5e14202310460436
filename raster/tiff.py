"""OME-TIFFs and odd TIFFs through tifffile and imagecodecs, tile by tile: only the blocks touched are ever decoded."""

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from foveate.errors import ImageError, ImageUnreadable, ImageUnsupported
from foveate.schema import ImageInfo, LevelInfo, SpacingInfo
from raster.geometry import Region, Size
from raster.image import Pixels, RasterImage, spelled
from raster.levels import is_reduction
from raster.limits import Limits
from raster.orientation import upright
from raster.spacing import slide_spacing
from raster.tiffheader import TiffHeader, read_tiff_header

_OME_PIXELS = re.compile(r"<(?:\w+:)?Pixels\b[^>]*>")
_XML_ATTRIBUTE = re.compile(r"([\w:]+)\s*=\s*[\"']([^\"']*)[\"']")
_MICROMETRES = {"µm": 1.0, "um": 1.0, "\u03bcm": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6}


def open_file(path: Path, *, sidecars: bool, limits: Limits) -> RasterImage:
    """The first image of the file at `path`, with its SubIFD levels; never another file that its XML names."""
    header = read_tiff_header(path)
    image = TiffImage(path, header, limits)
    return upright(image, header.orientation) if image.info.kind == "picture" else image


@dataclass(frozen=True)
class _Level:
    """Pages of one level, one a channel; or a single page with all samples."""

    pages: tuple[Any, ...]

    @property
    def key(self) -> Any:
        return self.pages[0].keyframe

    @property
    def size(self) -> Size:
        return Size(self.key.imagewidth, self.key.imagelength)

    @property
    def block(self) -> Size:
        key = self.key
        if key.is_tiled:
            return Size(key.tilewidth, key.tilelength)
        return Size(key.imagewidth, min(key.rowsperstrip, key.imagelength))


class TiffImage:
    """One open TIFF series; a handle of its own, block by block."""

    def __init__(self, path: Path, header: TiffHeader, limits: Limits) -> None:
        self._path, self._header = path, header
        self._file: Any = None
        try:
            self._file = tifffile.TiffFile(path, _multifile=False)
            self._info = self._describe(limits)
        except BaseException as error:
            self.close()
            if isinstance(error, ImageError) or not isinstance(error, Exception):
                raise
            raise self._unreadable("the file", error) from error

    @property
    def info(self) -> ImageInfo:
        return self._info

    def read(self, level: int, region: Region) -> Pixels:
        try:
            return Pixels(self._values(self._levels[level], region), None)
        except Exception as error:
            raise self._unreadable(spelled(level, region), error) from error

    def read_valid(self, level: int, region: Region) -> NDArray[np.bool_] | None:
        return None

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()

    def _values(self, level: _Level, region: Region) -> NDArray[Any]:
        values = np.zeros((region.height, region.width, len(self._info.bands)), self._info.dtype)
        channel = 0
        for page in level.pages:
            for plane in range(_planes(level.key)):
                samples = level.key.samplesperpixel // _planes(level.key)
                for place, block in self._blocks(level, page, plane, region):
                    rows, columns = place.slices(region.x, region.y)
                    stop = min(channel + samples, values.shape[2])
                    values[rows, columns, channel:stop] = block[..., : stop - channel]
                channel += samples
        if level.key.photometric == tifffile.PHOTOMETRIC.MINISWHITE and values.dtype.kind == "u":
            values = np.iinfo(values.dtype).max - values
        return values

    def _blocks(self, level: _Level, page: Any, plane: int, region: Region) -> Iterator[tuple[Region, NDArray[Any]]]:
        """The parts of `region` that each stored block covers, with the block's pixels there."""
        block, key = level.block, level.key
        across = -(-level.size.width // block.width)
        down = -(-level.size.height // block.height)
        for row in range(region.y // block.height, -(-region.y1 // block.height)):
            for column in range(region.x // block.width, -(-region.x1 // block.width)):
                place = Region(column * block.width, row * block.height, block.width, block.height)
                wanted = place.intersection(region)
                index = (plane * down + row) * across + column
                decoded = self._decoded(key, page, index)
                if decoded is not None:
                    yield wanted, decoded[wanted.slices(place.x, place.y)]

    def _decoded(self, key: Any, page: Any, index: int) -> NDArray[Any] | None:
        """Block `index`, (height, width, samples); None where a sparse file stores none."""
        offset, count = page.dataoffsets[index], page.databytecounts[index]
        if not count:
            return None
        handle = self._file.filehandle
        handle.seek(offset)
        data = handle.read(count)
        if len(data) < count:
            raise EOFError(f"the file ends {count - len(data)} bytes before its block {index} does")
        decoded = key.decode(data, index, jpegtables=key.jpegtables, jpegheader=key.jpegheader)[0]
        assert decoded is not None
        samples: NDArray[Any] = np.asarray(decoded)[0]
        return samples

    def _describe(self, limits: Limits) -> ImageInfo:
        series = self._file.series[0]
        self._levels = _levels(series)
        full = self._levels[0]
        key = full.key
        dtype = str(np.dtype(key.dtype))
        limits.check_dtype(self._path, dtype)
        bands, notes = _bands(full, series)
        limits.check_size(self._path, full.size.width, full.size.height, len(bands))
        for level in self._levels:
            limits.check_block(self._path, level.block.width, level.block.height, len(bands) * key.dtype.itemsize)
        if key.photometric == tifffile.PHOTOMETRIC.PALETTE:
            raise ImageUnsupported(
                f"{self._path.name} is a palette image of an unusual kind",
                hint="Convert it to RGB: gdal_translate -expand rgb in.tif out.tif",
            )
        spacing = _ome_spacing(self._file) or self._header.spacing
        return ImageInfo(
            name=self._path.name,
            kind="picture" if spacing is None else "slide",
            driver="OME-TIFF" if self._header.ome else "TIFF",
            reader="tifffile",
            width=full.size.width,
            height=full.size.height,
            levels=[
                LevelInfo(
                    width=level.size.width,
                    height=level.size.height,
                    downsample=(full.size.width / level.size.width, full.size.height / level.size.height),
                    tile=(level.block.width, level.block.height),
                )
                for level in self._levels
            ],
            bands=bands,
            dtype=dtype,
            spacing=spacing,
            crs=None,
            transform=None,
            warnings=notes,
        )

    def _unreadable(self, what: str, error: Exception) -> ImageUnreadable:
        return ImageUnreadable(
            f"{self._path.name}: {what} cannot be decoded: {str(error) or type(error).__name__}",
            hint="The file is damaged, cut short or of an unusual kind; export or copy it again.",
        )


def _planes(key: Any) -> int:
    separate = key.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    return int(key.samplesperpixel) if separate else 1


def _levels(series: Any) -> list[_Level]:
    """The pages of each level at the first focal plane and moment, channels in order."""
    levels = [_Level(_channel_pages(one)) for one in series.levels]
    kept = [levels[0]]
    for level in levels[1:]:
        smaller = level.size.area < kept[-1].size.area and is_reduction(levels[0].size, level.size)
        if smaller and len(level.pages) == len(levels[0].pages) and level.key.dtype == levels[0].key.dtype:
            kept.append(level)
    return kept


def _channel_pages(series: Any) -> tuple[Any, ...]:
    """`series.pages` counts over all axes but rows, columns and samples, the last one fastest."""
    outer = [(axis, size) for axis, size in zip(series.axes, series.shape, strict=True) if axis not in "YXS"]
    sizes = [size for _, size in outer]
    channels = [range(size) if axis == "C" else range(1) for axis, size in outer]
    places = np.array(np.meshgrid(*channels, indexing="ij")).reshape(len(outer), -1).T if outer else [()]
    numbers = [int(np.ravel_multi_index(tuple(place), sizes)) if outer else 0 for place in places]
    pages = [series.pages[number] for number in numbers]
    if any(page is None for page in pages):
        raise ValueError("pages of the image are in another file or missing")
    return tuple(pages)


def _bands(level: _Level, series: Any) -> tuple[list[str], list[str]]:
    """Names of the bands, alpha left out, and what of the file is not used."""
    key = level.key
    notes = [
        f"only the first of {size} along axis {axis} is used"
        for axis, size in zip(series.axes, series.shape, strict=True)
        if axis not in "YXSC" and size > 1
    ]
    colour = key.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR) and key.samplesperpixel >= 3
    if colour and len(level.pages) == 1:
        return ["red", "green", "blue"], notes
    return ["gray", *["undefined"] * (len(level.pages) * key.samplesperpixel - 1)], notes


def _ome_spacing(file: Any) -> SpacingInfo | None:
    """PhysicalSizeX and PhysicalSizeY of the first image (OME schema 2016-06; the default unit is the micrometre)."""
    if not file.ome_metadata:
        return None
    # One element's attributes are all that is wanted; a parser would also expand whatever entities the file declares.
    pixels = _OME_PIXELS.search(file.ome_metadata)
    found = {name: html.unescape(value) for name, value in _XML_ATTRIBUTE.findall(pixels.group() if pixels else "")}
    try:
        sides = [
            float(found[f"PhysicalSize{axis}"]) * _MICROMETRES[found.get(f"PhysicalSize{axis}Unit", "µm")]
            for axis in "XY"
        ]
    except (KeyError, ValueError):
        return None
    return slide_spacing(sides[0], sides[1], "OME PhysicalSizeX, PhysicalSizeY")
