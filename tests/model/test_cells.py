"""F_theta over a thumbnail in bands: what it says of a row does not depend on which rows are asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch

import raster.rows
from model.bundle import load_bundle
from model.cells import Distribution, cell_distribution
from model.predictor import Predictor
from raster.geometry import Size
from raster.grid import make_lattice
from tests.bundles import make_bundle

HEIGHT, WIDTH, STEP = 40, 23, 32


def predictor_of(folder: Path, norm: str) -> Predictor:
    bundle = make_bundle(folder / norm, name=norm, foveation={"downsample": STEP, "hidden": 8, "norm": norm})
    return Predictor(load_bundle(bundle), torch.device("cpu"))


@pytest.mark.parametrize("norm", ["bn", "instance"])
def test_bands_of_the_thumbnail_say_what_the_whole_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, norm: str
) -> None:
    predictor = predictor_of(tmp_path, norm)
    thumbnail = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    whole = predictor.distribution(thumbnail)
    found = Distribution(predictor, thumbnail)
    for first, last in ((0, 1), (0, 9), (9, 10), (17, 31), (31, HEIGHT), (0, HEIGHT)):
        np.testing.assert_allclose(found[first:last], whole[:, first:last], atol=1e-6)
    lattice = make_lattice(Size(WIDTH * STEP, HEIGHT * STEP), 64, tuple(predictor.card.fovs), 0.25)
    at_once = cell_distribution(predictor, thumbnail, STEP, lattice)
    monkeypatch.setattr(raster.rows, "_BAND", 7)
    np.testing.assert_allclose(cell_distribution(predictor, thumbnail, STEP, lattice), at_once, atol=1e-6)
    np.testing.assert_allclose(Distribution(predictor, thumbnail).everywhere(), whole, atol=1e-6)
