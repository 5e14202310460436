"""The vectors of the authors' code: cases by kind, and the tolerances of foveation-method.md, section 14.

They lie in the folder that FOVEATE_PARITY_DIR names, else in shared/parity. A named folder without a manifest
fails the tests; where none is named and the default is not there, each test is skipped and says so.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.shared import SHARED

FOLDER = Path(os.environ.get("FOVEATE_PARITY_DIR", SHARED / "parity"))
MANIFEST = FOLDER / "manifest.json"


class Case:
    """One entry of the manifest, its arrays as tensors."""

    def __init__(self, entry: dict[str, Any]) -> None:
        self.name: str = entry["name"]
        self.kind: str = entry["kind"]
        self.settings: dict[str, Any] = entry["settings"]
        self.file: str = entry["file"]

    def arrays(self) -> dict[str, Tensor]:
        with np.load(FOLDER / self.file, allow_pickle=False) as archive:
            return {name: torch.from_numpy(np.array(archive[name])) for name in archive.files}

    def group(self) -> "Case":
        """The case that holds the shared inputs."""
        return next(case for case in all_cases() if case.name == self.settings["group"])

    def __repr__(self) -> str:
        return self.name


def all_cases() -> list[Case]:
    return [Case(entry) for entry in json.loads(MANIFEST.read_text())["cases"]]


def cases(kind: str) -> pytest.MarkDecorator:
    """Parametrise `case` over the manifest's cases of a kind."""
    if not MANIFEST.exists():
        if "FOVEATE_PARITY_DIR" in os.environ:
            raise FileNotFoundError(f"FOVEATE_PARITY_DIR: there is no {MANIFEST}")
        return pytest.mark.skip(f"the authors' vectors are not here: no {MANIFEST}; set FOVEATE_PARITY_DIR")
    return pytest.mark.parametrize("case", [case for case in all_cases() if case.kind == kind], ids=repr)


def part(arrays: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The arrays under `prefix.`, without it."""
    return {name.removeprefix(prefix + "."): array for name, array in arrays.items() if name.startswith(prefix + ".")}


def assert_forward(actual: Tensor, reference: Tensor, what: str = "") -> None:
    assert actual.shape == reference.shape, what
    limit = 1e-5 * max(1.0, float(reference.abs().max()))
    assert float((actual - reference).abs().max()) <= limit, what


def assert_gradient(actual: Tensor | None, reference: Tensor, what: str = "") -> None:
    assert actual is not None, what
    assert actual.shape == reference.shape, what
    limit = 1e-4 * float(reference.abs().max()) + 1e-6
    assert float((actual - reference).abs().max()) <= limit, what


def assert_mask(actual: NDArray[np.integer], reference: NDArray[np.integer], scores_KHW: Tensor) -> None:
    """Equal wherever the two best reference scores differ by 1e-4 or more, and where no window lies."""
    best = scores_KHW.topk(2, dim=0).values.numpy()
    clear = (best[0] - best[1] >= 1e-4) | (best[0] == 0)
    assert actual.shape == reference.shape
    assert np.array_equal(actual[clear], reference[clear])


class Segmenter(torch.nn.Module):
    """The little network of the vectors: logits at stride 1 or 4, according to its kernel."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        width, bands, side, _ = state["conv.weight"].shape
        stride, padding = (1, 1) if side == 3 else (side, 0)
        self.conv = torch.nn.Conv2d(bands, width, side, stride=stride, padding=padding)
        self.head = torch.nn.Conv2d(width, len(state["head.weight"]), 1)
        self.load_state_dict(state)

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.conv(patches)))
        return logits
