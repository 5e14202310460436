"""The canvas on disk: what a job has committed, block by block, so that no crash costs more than the block at hand.

    canvas/
      configuration.json     what was asked; another configuration never shares the directory
      plan.zip               the plan, complete before any patch is read
      sums/R-C.Y-X.S.npy     open sums of block (R, C) at scale S over a seam that stays open, where its windows of that
                             scale reach; gone when all of its seams are closed
      blocks/R-C.labels.zip  labels of the block's interior, damage, counts, and checksums of its open sums; its
                             existence is the commit
      seams/Y-X.zip          labels of a closed seam
      roots/R-C.zip          refined coverage: the coarse pass's scores of row R from root C on
      converted*.tif, .json  a tiled copy, or the levels that the file lacks, where it needs them (`raster.convert`)

What the first look saw lies here too, in files without names. All else is written under a temporary name and renamed.
Zips hold arrays as numpy writes them, packed by Zstandard, with checksums that reading verifies. Open sums, which are
most of what is written, lie as they are in memory, and are verified once, when a job is taken up again. What fails
(after a power failure, since nothing waits for the disk here) counts as not committed. Files are immutable, so two
attempts that race write the same bytes.
"""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.errors import CanvasMismatch
from model.finishing import Layers
from model.tree import Node
from raster.geometry import Region
from raster.grid import Block
from raster.packing import crc32, packed, unpacked
from raster.whole_file import whole_file
from worker.placement import Piece

Arrays = dict[str, NDArray[Any]]

_SHAPE = "="
"""Between the name and the shape of an array that is the same everywhere."""
_PACKED = ".npy.zst"
_SLAB_ROWS = 64
"""Of open sums that are written at once: what is copied, summed up and written fits a processor's cache."""
_MADE_BY = {"foveate", "format"}
"""In a configuration: whose work it is; asking for anything else does not help."""
_PART_BYTES = 1 << 20
"""Of a file of sums that are read at once."""


@dataclass(frozen=True)
class SeamShare:
    """Where the open sums of a block over a seam lie that are not all 0: of its share of the seam, the row and column
    of the first. With the checksum (CRC-32) of the file that holds them."""

    y: int
    x: int
    checksum: int


CLOSED = SeamShare(0, 0, 0)
"""The block's sums went straight into the seam, which closed; there is no file."""


@dataclass(frozen=True)
class BlockRecord:
    """What a committed block left: the layers of its own pieces by name, and level-0 regions of damage."""

    pieces: dict[str, Layers]
    damaged: frozenset[Region]
    tally: "Tally"
    pixels_decoded: int
    leaf: NDArray[np.int8] | None = None
    """Refined coverage: the level of the node that owns each cell of the block."""
    sums: Mapping[str, SeamShare] = field(default_factory=dict)
    """By seam and scale, "Y-X.S"; none where it had nothing to add."""


@dataclass(frozen=True)
class RootScores:
    """Scores (n, K, P, P) float16 of roots of one row, at `columns` (n,), and what reading them came to."""

    columns: NDArray[np.int64]
    scores: NDArray[np.float16]
    damaged: frozenset[Region]
    pixels_decoded: int


@dataclass(frozen=True)
class Tally:
    """Mask pixels of a piece, or of many: with data, and of these skipped as background."""

    valid: int = 0
    background: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.valid + other.valid, self.background + other.background)

    @property
    def array(self) -> NDArray[np.int64]:
        return np.array([self.valid, self.background], np.int64)


class Canvas:
    """Committed work under `directory`; changes only by whole files appearing, and by spent sums disappearing."""

    def __init__(self, directory: Path, configuration: Mapping[str, Any]) -> None:
        """Open or start the canvas. Raises CanvasMismatch if it holds work of another configuration."""
        self.directory = directory
        for part in ("blocks", "sums", "seams"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        path = directory / "configuration.json"
        if path.exists():
            _check_same(json.loads(path.read_text()), dict(configuration), directory)
        else:
            with whole_file(path) as partial:
                partial.write_text(json.dumps(configuration, indent=1, sort_keys=True))

    def save_plan(self, arrays: Arrays) -> None:
        _save(self._plan, arrays)

    def load_plan(self) -> Arrays | None:
        return _load(self._plan)

    def commit_sums(self, block: Block, name: str, sums: NDArray[np.float32]) -> SeamShare | None:
        """Keep the block's open sums (K + 1, height, width) of one scale over one seam, where its windows (the last
        channel) reach.

        None: nowhere. Under a tree a seam is as wide as the coarsest windows reach, most of which are fine ones.
        """
        rows, columns = (np.flatnonzero(sums[-1].any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return None
        sums = sums[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(sums))
        checksum = crc32(head.getvalue())
        with whole_file(self._sums(block, name), durable=False) as partial, partial.open("wb") as file:
            file.write(head.getvalue())
            for channel in sums:
                for start in range(0, len(channel), _SLAB_ROWS):
                    slab = np.ascontiguousarray(channel[start : start + _SLAB_ROWS])
                    checksum = crc32(slab.data, checksum)
                    file.write(slab.data)
        return SeamShare(int(rows[0]), int(columns[0]), checksum)

    def sums(self, block: Block, name: str) -> NDArray[np.float32]:
        """What `commit_sums` kept, as it lies on the disk; nobody looks at its checksum (`holds_sums`)."""
        kept: NDArray[np.float32] = np.load(self._sums(block, name), mmap_mode="r", allow_pickle=False)
        return kept

    def holds_sums(self, block: Block, name: str, checksum: int) -> bool:
        """Whether the block's open sums of that name are there, and whole."""
        found = 0
        try:
            with self._sums(block, name).open("rb") as file:
                while part := file.read(_PART_BYTES):
                    found = crc32(part, found)
        except OSError:
            return False
        return found == checksum

    def drop_sums(self, block: Block, names: Iterable[str]) -> None:
        for name in names:
            self._sums(block, name).unlink(missing_ok=True)

    def commit_block(self, block: Block, record: BlockRecord) -> None:
        """Say that the block is done; its open sums were committed before."""
        arrays: Arrays = {"damaged": _rows(record.damaged), "tally": record.tally.array}
        arrays["decoded"] = np.array(record.pixels_decoded)
        arrays["summed"] = np.array(list(record.sums), np.str_)
        arrays["sums"] = np.array([astuple(sums) for sums in record.sums.values()], np.int64).reshape(-1, 3)
        if record.leaf is not None:
            arrays["leaf"] = record.leaf
        arrays |= {
            f"{piece}/{name}": layer for piece, layers in record.pieces.items() for name, layer in layers.items()
        }
        _save(self._labels(block), arrays)

    def block(self, block: Block) -> BlockRecord | None:
        """What the block committed; None: nothing yet, or nothing that still passes its checksums."""
        arrays = _load(self._labels(block))
        if arrays is None:
            return None
        damaged = _regions(arrays.pop("damaged"))
        tally, decoded = Tally(*map(int, arrays.pop("tally"))), int(arrays.pop("decoded"))
        leaf = arrays.pop("leaf", None)
        found = zip(arrays.pop("summed").tolist(), arrays.pop("sums").tolist(), strict=True)
        sums = {seam: SeamShare(*values) for seam, values in found}
        pieces: dict[str, Layers] = {}
        for key, layer in arrays.items():
            piece, name = key.split("/")
            pieces.setdefault(piece, {})[name] = layer
        return BlockRecord(pieces, damaged, tally, decoded, leaf, sums)

    def layers(self, block: Block, piece: Piece) -> Layers | None:
        """What the block committed of one of its own pieces; None as in `block`."""
        arrays = _load(self._labels(block), f"{piece.name}/")
        return (
            None if arrays is None else {name.removeprefix(f"{piece.name}/"): layer for name, layer in arrays.items()}
        )

    def commit_roots(self, first: Node, found: RootScores) -> None:
        """Keep those of a stretch of a row from the root `first` on."""
        self._roots(first).parent.mkdir(exist_ok=True)
        kept: Arrays = {"columns": found.columns, "scores": found.scores, "damaged": _rows(found.damaged)}
        _save(self._roots(first), kept | {"decoded": np.array(found.pixels_decoded)})

    def roots(self, first: Node) -> RootScores | None:
        """What was kept of the coarse pass from a root on; None: not yet, or not whole."""
        arrays = _load(self._roots(first))
        if arrays is None:
            return None
        return RootScores(arrays["columns"], arrays["scores"], _regions(arrays["damaged"]), int(arrays["decoded"]))

    def commit_seam(self, piece: Piece, layers: Layers, tally: Tally) -> None:
        _save(self._seam(piece), {"tally": tally.array, **layers})

    def seam(self, piece: Piece) -> tuple[Layers, Tally] | None:
        """A closed seam's layers and tally; None: still open."""
        arrays = _load(self._seam(piece))
        if arrays is None:
            return None
        tally = Tally(*map(int, arrays.pop("tally")))
        return arrays, tally

    @property
    def _plan(self) -> Path:
        return self.directory / "plan.zip"

    def _roots(self, first: Node) -> Path:
        return self.directory / "roots" / f"{first.row:05d}-{first.column:05d}.zip"

    def _sums(self, block: Block, name: str) -> Path:
        return self.directory / "sums" / f"{block.name}.{name}.npy"

    def _labels(self, block: Block) -> Path:
        return self.directory / "blocks" / f"{block.name}.labels.zip"

    def _seam(self, piece: Piece) -> Path:
        return self.directory / "seams" / f"{piece.name}.zip"


def _rows(regions: frozenset[Region]) -> NDArray[np.int64]:
    return np.array([[r.x, r.y, r.width, r.height] for r in sorted(regions)], np.int64).reshape(-1, 4)


def _regions(rows: NDArray[np.int64]) -> frozenset[Region]:
    return frozenset(Region(*map(int, row)) for row in rows)


def _save(path: Path, arrays: Arrays) -> None:
    """One member each; numpy's own compression takes four times as long, and leaves half as much again.

    Of an array that is the same everywhere, as of a piece without data, its one value is kept, and its shape in its
    name.
    """
    with whole_file(path, durable=False) as partial, zipfile.ZipFile(partial, "w") as archive:
        for name, array in arrays.items():
            if array.ndim > 1 and array.size and array.flat[0] == array.flat[-1] and (array == array.flat[0]).all():
                name, array = f"{name}{_SHAPE}{'x'.join(map(str, array.shape))}", array.flat[0]  # noqa: PLW2901
            content = io.BytesIO()
            np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
            archive.writestr(f"{name}{_PACKED}", packed(content.getbuffer()))


def _load(path: Path, prefix: str = "") -> Arrays | None:
    """The arrays whose names begin with `prefix`; None: the file is not there, or they fail their checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.startswith(prefix)]
            return dict(_named(name, _array(archive.read(name))) for name in names)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile, EOFError):
        return None


def _array(content: bytes) -> NDArray[Any]:
    return np.lib.format.read_array(io.BytesIO(unpacked(content)), allow_pickle=False)


def _named(name: str, array: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    """An array of a file as `_save` was given it."""
    name, _, shape = name.removesuffix(_PACKED).partition(_SHAPE)
    return name, np.full([int(side) for side in shape.split("x")], array) if shape else array


def _check_same(found: dict[str, Any], wanted: dict[str, Any], directory: Path) -> None:
    differing = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
    if differing:
        changes = "; ".join(f"{key}: {found.get(key)} there, {wanted.get(key)} asked" for key in differing)
        raise CanvasMismatch(
            f"{directory} holds work of another configuration ({changes})",
            hint="Another version of Foveate began it: choose another --out, or delete that directory."
            if _MADE_BY & set(differing)
            else "Ask for the same again to continue it (memory and overlap decide on blocks), choose another --out, "
            "or delete that directory.",
        )
