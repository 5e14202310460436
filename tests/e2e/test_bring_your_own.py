"""A network that somebody trained elsewhere, through `models add` and `segment`: its mask is the network's own."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import segmentation_models_pytorch as smp
import torch

from foveate.cli import run
from foveate.schema import NODATA
from tests.shared import DATA

SCENE = DATA / "geotiff" / "rgb_deflate.tif"
SIDE = 128
MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)


@pytest.mark.slow
def test_the_mask_is_what_the_network_says_tile_by_tile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FOVEATE_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("FOVEATE_BUNDLES", str(tmp_path / "none"))
    torch.manual_seed(2)
    network = smp.Unet("resnet18", encoder_weights=None, classes=3, decoder_channels=(16, 8, 8, 8, 8)).eval()
    network.save_pretrained(tmp_path / "unet")
    card = {
        "name": "mine",
        "licence": "CC-BY-NC-4.0",
        "patch_size": SIDE,
        "classes": ["a", "b", "c"],
        "input": {"kind": "scene", "mean": MEAN, "std": STD},
    }
    (tmp_path / "card.json").write_text(json.dumps(card))
    assert run(["models", "add", str(tmp_path / "unet"), "--card", str(tmp_path / "card.json")]) == 0
    assert run(["segment", str(SCENE), "--model", "mine", "--overlap", "0", "--out", str(tmp_path / "out")]) == 0
    assert "not free for every use; its licence: CC-BY-NC-4.0" in capsys.readouterr().out
    with rasterio.open(SCENE) as scene, rasterio.open(tmp_path / "out" / "mask.tif") as written:
        pixels, mask = scene.read([1, 2, 3]), written.read(1)
    seen, compared = set(), 0
    for row in range(0, pixels.shape[1] - SIDE + 1, SIDE):
        for column in range(0, pixels.shape[2] - SIDE + 1, SIDE):
            found = mask[row : row + SIDE, column : column + SIDE]
            if (found == NODATA).any():
                continue
            tile = torch.from_numpy(pixels[None, :, row : row + SIDE, column : column + SIDE].astype(np.float32))
            tile = (tile / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
            with torch.inference_mode():
                expected = network(tile).argmax(dim=1)[0].numpy()
            # Two logits a rounding error apart may change places: channels-last and batches sum in another order.
            assert (found == expected).mean() > 0.9999
            seen |= set(np.unique(found).tolist())
            compared += 1
    assert compared > 3
    assert len(seen) > 1, "a network that says one thing everywhere proves nothing"
