"""What the loader cuts out: where it lies, how often, and that all of it is turned alike."""

from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from foveate.errors import OptionInvalid
from model.datasets.classes import IGNORE
from model.datasets.labelled import open_labelled
from model.datasets.layouts import find_pairs
from model.extract import extract_patches
from model.geometry import Geometry
from model.resample import low_resolution
from model.training.begin import survey
from model.training.config import TrainConfig
from model.training.locations import Locations, draw_tile
from model.training.samples import JointSamples, gather
from raster.geometry import Region, Size
from raster.grid import make_lattice
from tests.model.datasets.scenes import card, pairs_data, write_scene
from tests.model.training.recipes import PATCH, joint_recipe, write_pictures

MEAN = 128


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path)
    return tmp_path


def samples_of(folder: Path, augmentation: dict[str, Any] | None = None, **training: Any) -> JointSamples:
    entries = joint_recipe(folder, **training)
    if training.get("policy", "mean").startswith(("fixed", "average")):
        entries["bundle"] |= {"foveation": None, "policy": training["policy"]}
    entries["augmentation"] = augmentation or {"flip": False}
    config = TrainConfig.model_validate(entries)
    return JointSamples(find_pairs(config.data, "train"), survey(config).sizes, config)


@pytest.mark.parametrize(("step", "found"), [(16, 16), (None, PATCH // 8)])
def test_without_f_theta_the_recipe_says_how_far_locations_lie_apart(
    folder: Path, step: int | None, found: int
) -> None:
    samples = samples_of(folder, policy="average", location_step=step)
    assert {grid.step for grid in samples.grids} == {found}


def test_lattice_windows_lie_as_at_inference() -> None:
    """Where a location and a cell of the lattice share their centre, they share every window."""
    size, fovs = Size(300, 200), (32, 64, 128)
    grid, lattice = Locations("lattice", size, fovs, 8), make_lattice(size, 32, fovs, 0.25)
    for row, column in ((0, 0), (1, 2), (3, 4)):
        window = lattice.window(column, row)
        at = ((window.y + 16) // 8, (window.x + 16) // 8)
        centre = window.shifted(4, 4)  # a location's centre is that of its cell, half a step further
        assert grid.windows(at) == [centre.grown((fov - 32) // 2) for fov in fovs]


@given(
    shape=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    extent=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 99),
)
def test_a_tile_lies_in_what_is_seen_and_that_in_the_grid(
    shape: tuple[int, int], extent: tuple[int, int], seed: int
) -> None:
    extent = min(extent[0], shape[0]), min(extent[1], shape[1])
    tile = draw_tile(shape, extent, np.random.default_rng(seed))
    whole = Region(0, 0, shape[1], shape[0])
    assert whole.contains(tile.seen) and tile.seen.contains(tile.cells) and not tile.cells.empty
    assert tile.seen.size.shape == extent
    # F_theta sees three cells around every location, or the image's border.
    if min(extent) > 6:
        assert tile.seen.contains(tile.cells.grown(3).intersection(whole))
    around = (shape[0] // 2, shape[1] - 1)
    held = draw_tile(shape, extent, np.random.default_rng(seed), around)
    assert held.cells.contains(Region(around[1], around[0], 1, 1))


def test_every_location_is_as_likely_as_any_other() -> None:
    random = np.random.default_rng(0)
    counts: Counter[int] = Counter()
    for _ in range(20000):
        tile = draw_tile((1, 40), (1, 13), random)
        counts[tile.cells.x + int(random.integers(tile.cells.width))] += 1
    found = np.array([counts[k] for k in range(40)])
    assert abs(found - 500).max() < 5 * np.sqrt(500)


def test_patches_thumbnails_and_labels_are_turned_alike(folder: Path) -> None:
    """In pictures whose colours say where: the middle of every patch has the colour of its thumbnail's cell."""
    side = 160
    rows, columns = np.indices((side, side))
    places = np.stack([rows, columns, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    for k in range(3):
        Image.fromarray(places).save(folder / f"images/{k}.png")
    turned = samples_of(folder, {"flip": True, "right_angles": True}, locations=4)
    seen = set()
    half = slice(PATCH // 2 - 1, PATCH // 2 + 1)
    for update in range(12):
        sample = turned[(update, 0)]
        for b, (row, column) in enumerate(sample.cells.tolist()):
            shown = sample.patches[b].float()
            if (shown[..., 2] != 90).any():  # reaches outside the image
                continue
            for patch in shown:
                assert torch.allclose(
                    patch[half, half].mean(dim=(0, 1)), sample.thumbnail[row, column].float(), atol=1.1
                )
            down, across = shown[0, 1, 0] - shown[0, 0, 0], shown[0, 0, 1] - shown[0, 0, 0]
            seen.add((*down[:2].tolist(), *across[:2].tolist()))
    assert len(seen) > 4  # of 8 ways to lie


def test_labels_are_those_of_the_smallest_window_and_outside_is_the_mean_colour(folder: Path) -> None:
    samples = samples_of(folder, locations=60, images=1)
    sample = samples[(0, 0)]
    grid = samples.grids[0]
    labels = [np.asarray(Image.open(folder / f"labels/{k}.png")) for k in (0, 1)]
    truth = [np.where(found == 9, IGNORE, found) for found in labels]
    padded = [np.pad(found, 2 * PATCH, constant_values=IGNORE) for found in truth]
    hits = []
    for b, (row, column) in enumerate(sample.cells.tolist()):
        window = grid.windows((row, column))[0]
        cut = [found[window.slices(-2 * PATCH, -2 * PATCH)] for found in padded]
        hits.append([np.array_equal(sample.labels[b], one) for one in cut])
        outside = sample.labels[b] == IGNORE
        if window.x < 0:
            assert (sample.patches[b, 0][:, : -window.x] == MEAN).all() and outside[:, : -window.x].all()
    assert np.array(hits).all(axis=0).any()
    assert sorted(map(tuple, sample.cells.tolist())) == sorted(set(map(tuple, sample.cells.tolist())))


def test_a_fixed_network_is_read_its_own_field_of_view_alone(folder: Path) -> None:
    every, second = samples_of(folder, policy="average")[(3, 1)], samples_of(folder, policy="fixed:2")[(3, 1)]
    assert every.patches.shape[1] == 2 and second.patches.shape[1] == 1
    assert torch.equal(every.patches[:, 1:], second.patches) and torch.equal(every.labels, second.labels)
    assert torch.equal(second.insets, torch.full_like(second.insets, PATCH // 2))


def test_every_image_comes_once_an_epoch(folder: Path) -> None:
    samples = samples_of(folder, images=1)
    for epoch in range(6):
        assert {samples._image(2 * epoch + k, 0) for k in range(2)} == {0, 1}
    orders = {samples._image(2 * epoch, 0) for epoch in range(12)}
    assert orders == {0, 1}


def test_locations_near_rare_classes_may_be_asked_for(folder: Path) -> None:
    side = 160
    labels = np.zeros((side, side), np.uint8)
    labels[100:104, 60:64] = 1
    for k in range(3):
        Image.fromarray(labels).save(folder / f"labels/{k}.png")
    shares = {}
    for share in (0.0, 1.0):
        samples = samples_of(folder, class_centred=share, locations=1, images=1)
        found = [bool((samples[(update, 0)].labels == 1).any()) for update in range(30)]
        shares[share] = np.mean(found)
    assert shares[0.0] < 0.3 < shares[1.0]


@pytest.mark.parametrize("geometry", ["center", "parity"])
def test_the_papers_geometries_are_read_too(folder: Path, geometry: str) -> None:
    samples = samples_of(folder, geometry=geometry, images=2, update="parity", location_batches=2)
    gathered = gather([samples[(0, slot)] for slot in range(2)])
    assert gathered.thumbnail.shape == (2, 20, 20, 3) and gathered.patches.shape == (2, 4, 2, PATCH, PATCH, 3)
    # The authors' loop visits the same locations in all images.
    assert torch.equal(gathered.cells[0], gathered.cells[1])
    assert gathered.patches.dtype == gathered.thumbnail.dtype == torch.float32


def test_more_locations_than_there_are_is_refused(folder: Path) -> None:
    with pytest.raises(OptionInvalid, match="20 x 20 locations, 401"):
        samples_of(folder, locations=401)


@pytest.mark.parametrize("kind", ["center", "parity"])
def test_training_sees_what_inference_does(tmp_path: Path, kind: Literal["center", "parity"]) -> None:
    """Every field of view and the thumbnail, at ratios that are no whole numbers too."""
    write_scene(tmp_path, width=203, height=150)
    data, fovs = pairs_data(tmp_path), (32, 40, 48, 64)
    with closing(open_labelled(find_pairs(data, "train")[0], data, card())) as image:
        grid, paper = Locations(kind, image.size, fovs, 8), Geometry(fovs, 8, kind)
        pixels = image.pixels(Region.of(image.size), image.size)
        whole = torch.from_numpy(np.ascontiguousarray(pixels)).movedim(-1, 0)[None].float()
        inside = [(row, column) for row in range(5, 12) for column in range(5, 20, 4)]
        for location in inside:
            ours = grid.patches(image, grid.windows(location))
            theirs = extract_patches(whole, paper, location)[:, 0].movedim(1, -1).numpy()
            np.testing.assert_allclose(ours, theirs, atol=1e-3)
        rows, columns = grid.shape
        low = low_resolution(whole, 8, antialias=kind == "center")[0].movedim(0, -1).numpy()
        assert low.shape[:2] == (rows, columns)
        np.testing.assert_allclose(grid.thumbnail(image, Region(0, 0, columns, rows)), low, atol=1e-3)


def test_a_dice_term_is_no_reward(folder: Path) -> None:
    with pytest.raises(ValidationError, match=r"loss\.dice is of a whole batch"):
        samples_of(folder, policy="categorical", loss={"dice": 0.5})
