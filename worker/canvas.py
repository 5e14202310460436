"""The canvas on disk: what a job has committed, block by block, so that no crash costs more than the block at hand.

    canvas/
      configuration.json     what was asked; another configuration never shares the directory
      plan.npz               the plan, complete before any patch is read
      blocks/R-C.sums.npz    open sums of the seams that block (R, C) shares; gone when all of them are closed
      blocks/R-C.labels.npz  labels of the block's interior, damage and counts; its existence is the commit
      seams/Y-X.npz          labels of a closed seam

Every file is written under a temporary name, flushed and renamed; zip members carry checksums that reading verifies,
and a file that fails them counts as not committed. Files are immutable, so two attempts that race write the same bytes.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveate.durable import committed
from foveate.errors import CanvasMismatch
from raster.geometry import Region
from raster.grid import Block
from worker.placement import Piece

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class BlockRecord:
    """What a committed block left: labels (rows, columns) of its own pieces by name, and level-0 regions of damage."""

    labels: dict[str, NDArray[np.uint8]]
    damaged: frozenset[Region]


class Canvas:
    """Committed work under `directory`; changes only by whole files appearing, and by spent sums disappearing."""

    def __init__(self, directory: Path, configuration: Mapping[str, Any]) -> None:
        """Open or start the canvas. Raises CanvasMismatch if it holds work of another configuration."""
        self.directory = directory
        for part in ("blocks", "seams"):
            (directory / part).mkdir(parents=True, exist_ok=True)
        path = directory / "configuration.json"
        if path.exists():
            _check_same(json.loads(path.read_text()), dict(configuration), directory)
        else:
            with committed(path) as file:
                file.write(json.dumps(configuration, indent=1, sort_keys=True).encode())

    def save_plan(self, arrays: Arrays) -> None:
        with committed(self.directory / "plan.npz") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    def load_plan(self) -> Arrays | None:
        return _load(self.directory / "plan.npz")

    def commit_block(self, block: Block, record: BlockRecord, sums: dict[str, NDArray[np.float32]]) -> None:
        """Make the block's work durable: first the sums, then the labels that say it is done."""
        if sums:
            with committed(self._sums(block)) as file:
                np.savez(file, **sums)  # type: ignore[arg-type]
        damaged = np.array([[r.x, r.y, r.width, r.height] for r in sorted(record.damaged)], np.int64).reshape(-1, 4)
        with committed(self._labels(block)) as file:
            np.savez_compressed(file, damaged=damaged, **record.labels)  # type: ignore[arg-type]

    def block(self, block: Block) -> BlockRecord | None:
        """What the block committed; None: nothing yet, or nothing that still passes its checksums."""
        arrays = _load(self._labels(block))
        if arrays is None:
            return None
        damaged = frozenset(Region(*map(int, row)) for row in arrays.pop("damaged"))
        return BlockRecord(arrays, damaged)

    def sums(self, block: Block) -> dict[str, NDArray[np.float32]] | None:
        """Open sums by seam name; None: none, or spent."""
        return _load(self._sums(block))

    def drop_sums(self, block: Block) -> None:
        with suppress(FileNotFoundError):
            self._sums(block).unlink()

    def commit_seam(self, piece: Piece, labels: NDArray[np.uint8]) -> None:
        with committed(self._seam(piece)) as file:
            np.savez_compressed(file, labels=labels)

    def seam(self, piece: Piece) -> NDArray[np.uint8] | None:
        arrays = _load(self._seam(piece))
        return None if arrays is None else arrays["labels"]

    def _sums(self, block: Block) -> Path:
        return self.directory / "blocks" / f"{block.name}.sums.npz"

    def _labels(self, block: Block) -> Path:
        return self.directory / "blocks" / f"{block.name}.labels.npz"

    def _seam(self, piece: Piece) -> Path:
        return self.directory / "seams" / f"{piece.name}.npz"


def _load(path: Path) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error, EOFError):
        return None


def _check_same(found: dict[str, Any], wanted: dict[str, Any], directory: Path) -> None:
    differing = [key for key in sorted(found.keys() | wanted.keys()) if found.get(key) != wanted.get(key)]
    if differing:
        changes = "; ".join(f"{key}: {found.get(key)} there, {wanted.get(key)} asked" for key in differing)
        raise CanvasMismatch(
            f"{directory} holds work of another configuration ({changes})",
            hint="Ask for the same again to continue it, choose another --out, or delete that directory.",
        )
