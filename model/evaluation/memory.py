"""Scores of single images on disk, so that an evaluation that was interrupted goes on where it stopped.

One .npz file per image and entry, without pickles; its name is a digest of all that the score depends on.
"""

import hashlib
import json
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.datasets.config import Data
from model.datasets.pair import Pair
from model.evaluation.objects import ObjectCounts
from model.evaluation.predict import Member, Sampling
from model.evaluation.scores import ImageScore, Wanted
from model.evaluation.tally import WindowCounts
from model.metrics import Reliability
from model.predictor import Predictor
from raster.geometry import Size

__all__ = ["ScoreMemory", "arithmetic", "dates_of", "score_key"]


def score_key(members: list[Member], pair: Pair, data: Data, sampling: Sampling, wanted: Wanted) -> str:
    """A digest of networks, policies, files (by size and time of change), what labels mean, and what is counted; and of
    the kind of device and its precision, whose scores are other ones."""
    described = {
        "arithmetic": [arithmetic(member.predictor) for member in members],
        "networks": [(member.predictor.bundle.sha256, member.policy, member.tau) for member in members],
        "files": dates_of(pair),
        "pair": str(pair),
        "data": data.model_dump(mode="json"),
        "sampling": asdict(sampling),
        "wanted": asdict(wanted),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def arithmetic(predictor: Predictor) -> str:
    """The kind of device that a predictor computes on, and at which precision."""
    return f"{predictor.device.type} {predictor.half or torch.float32}"


def dates_of(pair: Pair) -> list[tuple[str, int, int]]:
    """The pair's files with size and time of change."""
    files = [path for path in (*pair.images, *pair.labels) if path.is_file()]
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]


class ScoreMemory:
    """The scores that lie in `directory`, which is made for the first one."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, key: str, score: ImageScore) -> None:
        arrays: dict[str, NDArray[Any]] = {"confusion": score.confusion, "mask": score.mask}
        arrays |= dict(zip(("pixels", "confidence", "correct"), astuple(score.reliability), strict=True))
        if score.windows is not None:
            arrays |= {"intersection": score.windows.intersection, "union": score.windows.union}
        if score.distribution is not None:
            arrays["distribution"] = score.distribution
        plain = {
            "name": score.name,
            "size": (score.size.width, score.size.height),
            "forwards": score.forwards,
            "seconds": score.seconds,
            "patches_by_fov": score.patches_by_fov,
            "objects": None if score.objects is None else asdict(score.objects),
        }
        self._directory.mkdir(parents=True, exist_ok=True)
        draft = self._directory / f"{key}.draft.npz"
        arrays["plain"] = np.array(json.dumps(plain))
        np.savez_compressed(draft, allow_pickle=False, **arrays)
        # A file is there whole or not at all.
        draft.rename(self._path(key))

    def get(self, key: str) -> ImageScore | None:
        """The score of that key; None: nobody has put it."""
        if not self._path(key).is_file():
            return None
        with np.load(self._path(key), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        plain = json.loads(str(arrays["plain"]))
        return ImageScore(
            name=plain["name"],
            size=Size(*plain["size"]),
            confusion=arrays["confusion"],
            reliability=Reliability(arrays["pixels"], arrays["confidence"], arrays["correct"]),
            forwards=plain["forwards"],
            seconds=plain["seconds"],
            patches_by_fov=plain["patches_by_fov"],
            mask=arrays["mask"],
            windows=WindowCounts(arrays["intersection"], arrays["union"]) if "union" in arrays else None,
            distribution=arrays.get("distribution"),
            objects=None if plain["objects"] is None else _objects(plain["objects"]),
        )

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.npz"


def _objects(fields: dict[str, Any]) -> ObjectCounts:
    areas, dice = tuple(fields["areas"]), tuple(fields["weighted_dice"])
    return ObjectCounts(fields["found"], fields["spurious"], fields["missed"], areas, dice)
