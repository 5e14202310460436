"""What staged F_theta learns from is what it will see."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from model.foveation import FoveationModule
from model.inputs import Normalise
from model.training.begin import survey
from model.training.config import TrainConfig
from model.training.devices import Place
from model.training.locations import Locations
from model.training.measure import REACH, HeldOut, measure
from raster.geometry import Region
from tests.model.training.recipes import staged_recipe, write_pictures


class Sees(nn.Module):
    """Keeps the types that it works in."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 2, 1)
        self.types: set[torch.dtype] = set()

    def forward(self, patches: Tensor) -> Tensor:
        logits: Tensor = self.head(patches)
        self.types.add(logits.dtype)
        return logits


@pytest.mark.parametrize(
    ("half", "seen"),
    [(None, torch.float32), (torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)],
)
def test_losses_are_measured_as_precisely_as_inference_computes(
    tmp_path: Path, half: torch.dtype | None, seen: torch.dtype
) -> None:
    """A CPU stands for the GPUs: with bfloat16 inference takes it, without it float32, whatever training takes."""
    write_pictures(tmp_path)
    entries = staged_recipe(tmp_path)
    entries["training"]["foveation"] |= {"variants": 1, "every": 4}
    config = TrainConfig.model_validate(entries)
    network, place = Sees().eval(), Place(torch.device("cpu"), half=half)
    config.run.mkdir()
    measured = measure(network, survey(config), config, torch.ones(2), place)
    assert network.types == {seen}
    assert measured.losses.dtype == torch.float32 and bool(measured.losses.isfinite().all())


@pytest.mark.parametrize("held", ["corner", "image"])
def test_a_glimpse_shows_f_theta_what_the_whole_thumbnail_does(tmp_path: Path, held: str) -> None:
    write_pictures(tmp_path)
    entries = staged_recipe(tmp_path)
    entries["augmentation"] = {}
    entries["data"]["holdout"] = {"kind": held, "part": 2}
    entries["training"]["foveation"] |= {"variants": 1, "every": 1}
    config = TrainConfig.model_validate(entries)
    card, found = config.bundle, survey(config)
    assert card.foveation is not None
    places = HeldOut(found, config)
    torch.manual_seed(0)
    module = FoveationModule.from_card(card.foveation, 3, len(card.fovs)).eval()
    normalise = Normalise(card, torch.device("cpu"))
    on_the_border = 0
    for view, batch in places.keys:
        index = places._views[view][0]
        grid = Locations("lattice", found.sizes[index], tuple(card.fovs), card.foveation.downsample)
        rows, columns = grid.shape
        thumbnail = torch.from_numpy(grid.thumbnail(places._images[index], Region(0, 0, columns, rows)))
        whole = module(normalise(thumbnail[None]))[0]
        read = places[view, batch]
        seen = module(normalise(read.glimpses), read.inside)[:, :, REACH, REACH]
        # Which cells were read: those whose windows are labelled, found again by what they show.
        cells = places._cells(view)[batch * 8 : (batch + 1) * 8]
        if len(read.glimpses) < len(cells):
            continue
        for distribution, (row, column) in zip(seen, cells, strict=True):
            assert torch.allclose(distribution, whole[:, row, column], atol=1e-6)
            on_the_border += row in (0, rows - 1) or column in (0, columns - 1)
    assert on_the_border > 5
