"""The tiles of a plain tiled TIFF, found once by their offsets and decoded one by one, bit for bit as they are stored.

Plain is what needs no knowledge of a vendor: 8 or 16 bits, one to four samples, JPEG (with shared tables, RGB or
YCbCr), deflate, LZW, zstd or nothing, with or without horizontal differencing (TIFF 6.0 sections 13 to 15, TIFF
Technical Note 2 for JPEG). Decoding holds no lock of Python's, so threads decode side by side.

Halved chroma may be brought to full size in two ways, and both are decoders' defaults: libjpeg-turbo interpolates, and
the IJG's libjpeg, since its version 7, transforms its 8 x 8 coefficients back at twice the size (`raster.chroma`). GDAL
comes with the one or the other.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
import tifffile
from numpy.typing import NDArray

from raster.chroma import coloured
from raster.geometry import Region, Size

_JPEG = 7
_MASK_SUBFILE = 4
_EXPAND: dict[int, Callable[..., bytes | bytearray]] = {
    1: lambda data, out: data[:out],
    5: imagecodecs.lzw_decode,
    8: imagecodecs.deflate_decode,
    32946: imagecodecs.deflate_decode,
    50000: imagecodecs.zstd_decode,
}
"""Decoders by TIFF's number of the compression; none writes more than the `out` bytes that a tile has."""
_PREDICTORS = (1, 2)
_PHOTOMETRIC_BLACK, _PHOTOMETRIC_RGB, _PHOTOMETRIC_YCBCR = 1, 2, 6
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""Adobe's APP14 marker but its last byte, which says what the samples are (ITU-T T.872, 6.5.3)."""
_ADOBE_RGB, _ADOBE_YCBCR = b"\x00", b"\x01"


@dataclass(frozen=True)
class TiledPage:
    """One level's tiles: `offsets` and `counts` (tiles,) int64 in bytes, planes after one another, row by row."""

    size: Size
    tile: Size
    samples: int
    planes: int
    """1: a tile holds all samples of its pixels; else as many as samples, and each of its tiles holds one."""
    dtype: np.dtype[Any]
    """With the file's byte order."""
    compression: int
    differenced: bool
    jpeg_head: bytes
    """What stands before a JPEG tile's own data: its colours and the tables that tiles share."""
    halved: tuple[bool, bool]
    """Whether there is one sample of chroma for two rows, and one for two columns."""
    transformed: bool
    """Whether halved chroma comes to full size by a transform; else by interpolation."""
    offsets: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def tile_bytes(self) -> int:
        """Of a decoded tile, all samples."""
        return self.tile.area * self.samples * self.dtype.itemsize

    @property
    def across(self) -> int:
        return -(-self.size.width // self.tile.width)

    @property
    def down(self) -> int:
        return -(-self.size.height // self.tile.height)

    @property
    def tiles(self) -> int:
        """Of a plane."""
        return self.across * self.down

    def place(self, index: int) -> Region:
        """The pixels of a tile that lie inside the level; tiles count from 0, row by row."""
        row, column = divmod(index, self.across)
        width, height = self.tile.width, self.tile.height
        return Region(column * width, row * height, width, height).intersection(Region.of(self.size))

    def under(self, region: Region) -> Iterator[int]:
        """The tiles that meet `region`, which lies inside the level, row by row."""
        for row in range(region.y // self.tile.height, -(-region.y1 // self.tile.height)):
            for column in range(region.x // self.tile.width, -(-region.x1 // self.tile.width)):
                yield row * self.across + column

    def stored(self, index: int) -> NDArray[np.int64]:
        """(planes,) bytes that the file stores of a tile; 0: none, in a sparse file."""
        return self.counts[index :: self.tiles]

    def decode(self, data: bytes) -> NDArray[Any]:
        """One stored tile as (height, width, samples), or (height, width, 1) of a plane; any exception: damaged."""
        depth = self.samples if self.planes == 1 else 1
        shape = (self.tile.height, self.tile.width, depth)
        if self.compression == _JPEG:
            pixels = self._decoded_jpeg(data, depth)
            if pixels.shape != shape:
                raise ValueError(f"a tile of shape {pixels.shape} where {shape} is declared")
            return coloured(pixels, self.halved) if self.transformed else pixels
        wanted = self.dtype.itemsize * self.tile.area * depth
        stored = _EXPAND[self.compression](data, out=wanted)
        if len(stored) < wanted:
            raise ValueError(f"a tile of {len(stored)} bytes where {wanted} are declared")
        values = np.frombuffer(stored, self.dtype).reshape(shape)
        values = values.astype(self.dtype.newbyteorder("="), copy=False)
        return np.asarray(imagecodecs.delta_decode(values, axis=1)) if self.differenced else values

    def _decoded_jpeg(self, data: bytes, depth: int) -> NDArray[np.uint8]:
        """As it is; or, if chroma is to be transformed, (height, width, YCbCr) with every sample of it repeated."""
        head, start = self.jpeg_head, 2
        if self.transformed:
            # Under the name of RGB nothing is converted, and fast upsampling repeats. JFIF would mean YCbCr.
            head = head.replace(_ADOBE + _ADOBE_YCBCR, _ADOBE + _ADOBE_RGB, 1)
            start = _after_applications(data)
        colours = "GRAY" if depth == 1 else "RGB"
        # Strict: libjpeg would make up the rest of a damaged tile and only warn.
        return np.asarray(
            simplejpeg.decode_jpeg(head + data[start:], colours, fastupsample=self.transformed, strict=True)
        )


def with_transformed_chroma(pages: tuple[TiledPage, ...]) -> tuple[TiledPage, ...] | None:
    """The pages as a decoder reads them that transforms halved chroma; None: it would read them no otherwise."""
    if not any(any(page.halved) for page in pages):
        return None
    return tuple(dataclasses.replace(page, transformed=any(page.halved)) for page in pages)


def tiled_pages(path: Path, sizes: Iterable[Size], samples: int) -> tuple[TiledPage, ...] | None:
    """The page of each level, by its size; None if one is missing, stands there twice, or is not plain.

    `samples` is the number that a pixel has. What the file holds is kept, for the handles of other threads.
    """
    stat = path.stat()
    pages = _pages(path, stat.st_mtime_ns, stat.st_size)
    found = []
    for size in sizes:
        fitting = [page for page in pages if page is not None and page.size == size]
        if len(fitting) != 1 or fitting[0].samples != samples:
            return None
        found.append(fitting[0])
    same = len({(page.samples, page.dtype) for page in found}) == 1
    return tuple(found) if same else None


@functools.lru_cache(maxsize=2)
def _pages(path: Path, modified_ns: int, length: int) -> tuple[TiledPage | None, ...]:
    try:
        with tifffile.TiffFile(path, _multifile=False) as file:
            keys: list[Any] = [page.keyframe for page in file.pages]
            return tuple(
                _plain(page, key)
                for page, key in zip(file.pages, keys, strict=True)
                if not key.subfiletype & _MASK_SUBFILE
            )
    except Exception:
        # Whatever is odd about the file, its reference reader will say so in its own words.
        return ()


def _plain(page: Any, key: Any) -> TiledPage | None:
    """`page`, described by its key frame, if it is plain."""
    separate = key.planarconfig == tifffile.PLANARCONFIG.SEPARATE
    compression, samples = int(key.compression), int(key.samplesperpixel)
    photometric, predictor = int(key.photometric), int(key.predictor)
    jpeg, ycbcr = compression == _JPEG, photometric == _PHOTOMETRIC_YCBCR
    colours = (_PHOTOMETRIC_BLACK, _PHOTOMETRIC_RGB, *([_PHOTOMETRIC_YCBCR] if jpeg else []))
    holds = (
        key.is_tiled,
        key.bitspersample in ((8,) if jpeg else (8, 16)),
        key.dtype is not None and key.dtype.kind == "u",
        key.imagedepth == 1 and key.tiledepth == 1 and key.fillorder == 1,
        photometric in colours and predictor in _PREDICTORS,
        jpeg or compression in _EXPAND,
        not jpeg or (samples in (1, 3) and not separate and predictor == 1),
    )
    if not all(holds):
        return None
    tables = key.jpegtables or b"\xff\xd8\xff\xd9"
    return TiledPage(
        size=Size(int(key.imagewidth), int(key.imagelength)),
        tile=Size(int(key.tilewidth), int(key.tilelength)),
        samples=samples,
        planes=samples if separate else 1,
        dtype=np.dtype(f"{page.parent.byteorder}u{key.bitspersample // 8}"),
        compression=compression,
        differenced=predictor == 2,
        jpeg_head=tables[:2] + _ADOBE + (_ADOBE_YCBCR if ycbcr else _ADOBE_RGB) + tables[2:-2],
        halved=_halved(key) if ycbcr else (False, False),
        transformed=False,
        offsets=np.asarray(page.dataoffsets, np.int64),
        counts=np.asarray(page.databytecounts, np.int64),
    )


def _halved(key: Any) -> tuple[bool, bool]:
    """Of a page in YCbCr; 4:2:0 where it does not say (TIFF 6.0, YCbCrSubSampling). Other ratios: neither."""
    across, down = key.tags.valueof("YCbCrSubSampling", default=(2, 2))
    return (down == 2, across == 2) if {across, down} <= {1, 2} else (False, False)


def _after_applications(data: bytes) -> int:
    """Where the first segment of a JPEG begins that no application put there for itself (APP0 to APP15)."""
    start = 2
    while len(data) > start + 3 and data[start] == 0xFF and 0xE0 <= data[start + 1] <= 0xEF:
        start += 2 + int.from_bytes(data[start + 2 : start + 4], "big")
    return start
