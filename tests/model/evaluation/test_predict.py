"""Prediction by strips: every row once, whatever the bands, and the same as inference gives."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from foveate.errors import OptionInvalid
from model.accumulator import Accumulator
from model.aggregate import infer, policy_weights
from model.bundle import load_bundle
from model.datasets.labelled import LabelledImage
from model.evaluation import predict
from model.evaluation.predict import Effort, Member, Sampling, Strip, location_windows, predict_strips
from model.geometry import Geometry
from model.predictor import Predictor
from raster.geometry import Region, Size
from tests.model.evaluation.scenes import PATCH, make_rgb_bundle, opened, stripes, write_pair

CPU = torch.device("cpu")


def predictor(directory: Path, **changes: object) -> Predictor:
    return Predictor(load_bundle(make_rgb_bundle(directory, **changes)), CPU)  # type: ignore[arg-type]


def scores(
    image: LabelledImage, members: list[Member], sampling: Sampling, effort: Effort | None = None
) -> NDArray[np.float32]:
    strips: list[Strip] = []
    for strip in predict_strips(members, image, sampling, effort or Effort()):
        assert strip.y == sum(done.scores.shape[1] for done in strips)
        strips.append(strip)
    whole = np.concatenate([strip.scores for strip in strips], axis=1)
    assert whole.shape[1:] == image.size.shape
    return whole


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    _, labels = stripes(150, 170)
    write_pair(tmp_path / "noisy", "a", random.integers(0, 256, (170, 150, 3), np.uint8), labels)
    return tmp_path / "noisy"


@pytest.mark.parametrize("size", [(1, 1), (32, 32), (33, 31), (101, 67), (40, 600)])
def test_a_network_that_knows_labels_every_pixel_at_every_size(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels, labels = stripes(*size)
    write_pair(tmp_path, "a", pixels, labels)
    knows = predictor(tmp_path / "bundle")
    image = opened(tmp_path, knows)
    found = scores(image, [Member(knows, "fixed:1")], Sampling())
    assert np.array_equal(found.argmax(axis=0), labels)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)
    image.close()


@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_bands_change_nothing(tmp_path: Path, noisy: Path, overlap: float, monkeypatch: pytest.MonkeyPatch) -> None:
    member = Member(predictor(tmp_path / "bundle"), "mode")
    image = opened(noisy, member.predictor)
    whole = scores(image, [member], Sampling(overlap=overlap))
    monkeypatch.setattr(predict, "_BAND_BYTES", 1)
    monkeypatch.setattr(predict, "_STRIP", 7)
    heights: list[int] = []
    open_block = member.predictor.open_block

    def recorded(size: Size, overlap_px: int) -> Accumulator:
        heights.append(size.height)
        return open_block(size, overlap_px)

    monkeypatch.setattr(member.predictor, "open_block", recorded)
    assert np.allclose(scores(image, [member], Sampling(overlap=overlap)), whole, atol=1e-6)
    assert len(heights) > 4 and max(heights) == PATCH, "open sums do not grow with the image's height"
    image.close()


@pytest.mark.parametrize(
    ("policy", "each", "seen"),
    [
        ("mean", 1, [1, 1]),
        ("average", 1, [1, 1]),
        ("gumbel", 1, [1, 1]),
        ("fixed:2", 1, [0, 1]),
        ("ensemble", 2, [1, 1]),
    ],
)
def test_forwards_and_patches_are_counted(tmp_path: Path, noisy: Path, policy: str, each: int, seen: list[int]) -> None:
    member = Member(predictor(tmp_path / "bundle"), policy)
    effort = Effort()
    image = opened(noisy, member.predictor)
    scores(image, [member], Sampling(overlap=0), effort)
    cells = 5 * 6
    assert effort.forwards == each * cells
    assert effort.patches_by_fov == [count * cells for count in seen]
    assert effort.seconds > 0
    image.close()


def test_an_ensemble_is_the_mean_of_its_networks(tmp_path: Path, noisy: Path) -> None:
    members = [
        Member(predictor(tmp_path / "sure"), "fixed:1"),
        Member(predictor(tmp_path / "unsure", gain=1.0, patch_size=16, fovs=[16, 64]), "fixed:2"),
    ]
    image = opened(noisy, members[0].predictor)
    each = [scores(image, [member], Sampling()) for member in members]
    assert np.allclose(scores(image, members, Sampling()), (each[0] + each[1]) / 2, atol=1e-6)
    image.close()


@pytest.mark.parametrize("kind", ["center", "parity"])
def test_the_papers_geometries_are_those_of_aggregate(tmp_path: Path, noisy: Path, kind: str) -> None:
    member = Member(predictor(tmp_path / "bundle"), "mean")
    image = opened(noisy, member.predictor)
    effort = Effort()
    found = scores(image, [member], Sampling(kind, step=20), effort)  # type: ignore[arg-type]
    pixels = member.predictor.normalised(image.pixels(Region.of(image.size), image.size))[0]
    assert member.predictor.foveation is not None
    wanted = infer(
        pixels,
        member.predictor.foveation,
        member.predictor.network,
        Geometry((PATCH, 2 * PATCH), 8, kind),  # type: ignore[arg-type]
        policy_weights("mean", 2),
        coarse_step=20,
    )
    assert np.allclose(found, (wanted.scores / wanted.votes.clamp(min=1)).numpy(), atol=1e-5)
    assert effort.forwards == (9 * 8 if kind == "center" else round(170 / 20) * round(150 / 20))
    image.close()


def test_a_grid_with_holes_is_refused(tmp_path: Path, noisy: Path) -> None:
    member = Member(predictor(tmp_path / "bundle"), "fixed:1")
    image = opened(noisy, member.predictor)
    with pytest.raises(OptionInvalid, match="cannot cover"):
        scores(image, [member], Sampling("center", step=40))
    image.close()


@pytest.mark.parametrize("geometry", ["lattice", "center", "parity"])
def test_windows_lie_around_their_locations(tmp_path: Path, geometry: str) -> None:
    card = predictor(tmp_path / "bundle").card
    rows, columns = location_windows(card, Size(64, 40), geometry, 8)  # type: ignore[arg-type]
    assert (len(rows), len(columns)) == (5, 8)
    # Location 2 is centred at pixel 20; in parity its window starts at pixel 16.
    assert rows[2] == ((16, 40) if geometry == "parity" else (4, 36))
    assert columns[0] == ((0, 32) if geometry == "parity" else (0, 20))
