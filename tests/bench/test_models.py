"""The bundles that benches make."""

from pathlib import Path

import numpy as np
import torch

from bench.models import pixelwise, tiny_fcn
from model.bundle import load_bundle, load_networks


def test_the_tiny_network_tells_four_levels_of_brightness(tmp_path: Path) -> None:
    bundle = load_bundle(tiny_fcn(tmp_path))
    levels = (np.array([-1.5, -0.4, 0.4, 1.5]) * 0.25 + 0.5).repeat(16)
    image = torch.tensor((levels - 0.5) / 0.25, dtype=torch.float32).expand(1, 3, 16, 64)
    labels = load_networks(bundle)[0].eval()(image)[0].argmax(0)
    assert labels[8, 8::16].tolist() == [0, 1, 2, 3]


def test_a_bank_doubles_from_view_to_view(tmp_path: Path) -> None:
    assert load_bundle(pixelwise(tmp_path, 5)).card.fovs == [256, 512, 1024, 2048, 4096]
