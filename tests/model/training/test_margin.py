"""The margin: none where what F_theta learns holds on images it never saw, a large one where it does not."""

from pathlib import Path
from typing import Any

import pytest
import torch

from foveate.errors import OptionInvalid
from model.training.config import TrainConfig, parse_config
from model.training.fit_foveation import fit_foveation, log_probabilities
from model.training.margin import MARGINS, choose, favour, parts_left_out
from model.training.measure import Measured
from tests.model.training.recipes import staged_recipe, write_pictures

_IMAGES, _PLACES = 4, 24


@pytest.fixture
def entries(tmp_path: Path) -> dict[str, Any]:
    write_pictures(tmp_path)
    return staged_recipe(tmp_path)


def _config(entries: dict[str, Any], **changes: Any) -> TrainConfig:
    entries["training"]["foveation"] |= {"steps": 60, "learning_rate": 2e-2, **changes}
    return parse_config(entries, "recipe.yaml")


def _measured(images: int = _IMAGES, *, holds: bool) -> Measured:
    """Places that are bright or dark. The wide view is the better one in the bright places of every image (`holds`), or
    of every other one, which no other image tells."""
    torch.manual_seed(7)
    image = torch.arange(images).repeat_interleave(_PLACES)
    bright = torch.arange(len(image)) % 2 == 1
    wide_is_better = bright if holds else bright & (image % 2 == 0)
    level = torch.where(bright, 1.0, -1.0)[:, None, None, None]
    losses = torch.where(wide_is_better[:, None], torch.tensor([0.6, 0.2]), torch.tensor([0.3, 0.9]))
    glimpses = level + 0.1 * torch.randn(len(image), 3, 15, 15)
    # What tells the images apart is what F_theta can learn by heart.
    glimpses += 0.5 * torch.randn(images, 3, 15, 15)[image]
    N = len(image)
    inside, confusions = torch.ones(N, 1, 15, 15, dtype=torch.bool), torch.zeros(N, 2, 2, 2, dtype=torch.int64)
    return Measured(glimpses, inside, losses, confusions, torch.ones(N), image)


@pytest.mark.slow
def test_there_is_no_margin_where_what_was_learnt_holds(entries: dict[str, Any]) -> None:
    found = favour(*_fitted(_measured(holds=True), _config(entries, margin="cross_validated")))
    assert found["margin"] == 0
    assert set(found["left_out"]) == {f"{m:g}" for m in MARGINS}  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_choice_that_harms_elsewhere_is_held_back(entries: dict[str, Any]) -> None:
    module, measured, config = _fitted(_measured(holds=False), _config(entries, margin="cross_validated"))
    before = log_probabilities(module, measured)
    assert (before.argmax(dim=1) == 1).any()
    found = favour(module, measured, config)
    margin, worth = found["margin"], found["left_out"]
    assert isinstance(margin, float) and isinstance(worth, dict)
    assert margin > 0 and worth[f"{margin:g}"] == max(worth.values()) > worth["0"]
    assert torch.equal(log_probabilities(module, measured).argmax(dim=1), choose(before, 0, margin))


def test_a_margin_can_be_given(entries: dict[str, Any]) -> None:
    module, measured, config = _fitted(_measured(holds=True), _config(entries, margin=1.5))
    before = log_probabilities(module, measured)
    assert favour(module, measured, config) == {"margin": 1.5}
    after = log_probabilities(module, measured)
    raised = (after - before)[:, 0] - (after - before)[:, 1]
    assert torch.allclose(raised, torch.tensor(1.5), atol=1e-4)


@pytest.mark.parametrize("images", [2, 8, 19])
def test_every_place_is_left_out_once_with_its_whole_image(images: int) -> None:
    measured = _measured(images, holds=True)
    parts = list(parts_left_out(measured))
    assert len(parts) == min(images, 8)
    assert torch.stack(parts).sum(dim=0).tolist() == [1] * len(measured.images)
    for part in parts:
        assert not set(measured.images[part].tolist()) & set(measured.images[~part].tolist())


def test_a_single_image_cannot_be_left_out() -> None:
    with pytest.raises(OptionInvalid, match="single image"):
        next(parts_left_out(_measured(1, holds=True)))


def test_a_margin_needs_a_norm_to_go_into(entries: dict[str, Any]) -> None:
    entries["bundle"]["foveation"]["norm"] = "bn1"
    with pytest.raises(OptionInvalid, match=r"bundle\.foveation\.norm"):
        _config(entries, margin=1)
    assert _config(entries, margin=0).bundle.foveation is not None


def _fitted(measured: Measured, config: TrainConfig) -> tuple[Any, Measured, TrainConfig]:
    return fit_foveation(measured, config), measured, config
