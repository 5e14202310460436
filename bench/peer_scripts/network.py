"""What every peer's script shares: its arguments, the network, and the mask that it writes.

Runs in the peer's own environment: nothing of Foveate is imported. The network takes pixels 0..255 as float32, which it
normalises itself, and gives probabilities.
"""

import argparse
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rasterio
import torch
from safetensors.torch import load_file
from torch import nn


@dataclass
class Job:
    """What to run: the image, the folder of the network, the mask to write, and the windows.

    `seconds` grows with each `timed` block: opening the image to writing the mask, without imports and loading.
    """

    image: Path
    network: Path
    out: Path
    patch: int
    stride: int
    batch: int
    seconds: float = field(default=0.0)

    @property
    def overlap(self) -> float:
        return 1 - self.stride / self.patch

    @contextmanager
    def timed(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start
        Path(f"{self.out}.json").write_text(json.dumps({"seconds": self.seconds}))

    def load(self) -> "Network":
        return Network(json.loads((self.network / "network.json").read_text()), self.network).eval()

    def write(self, mask: np.ndarray) -> None:
        height, width = mask.shape
        layout = {"driver": "GTiff", "tiled": True, "compress": "deflate", "dtype": "uint8", "count": 1}
        with rasterio.open(self.out, "w", width=width, height=height, **layout) as file:
            file.write(mask, 1)


def job() -> Job:
    parser = argparse.ArgumentParser()
    for name, kind in (("image", Path), ("network", Path), ("out", Path), ("patch", int), ("stride", int)):
        parser.add_argument(name, type=kind)
    parser.add_argument("--batch", type=int, default=4)
    return Job(**vars(parser.parse_args()))


class Network(nn.Module):
    """(N, 3, P, P) float32, 0..255, to probabilities (N, K, P, P), at the bundle's smallest field of view."""

    def __init__(self, card: dict, folder: Path) -> None:
        super().__init__()
        channels = 3 + int(card["scale_channel"])
        self.classes, self.scaled = card["classes"], card["scale_channel"]
        if card["library"] == "foveate":
            self.network = Fcn(channels, card["classes"])
        else:
            # Takes seconds, which the FCN need not pay.
            import segmentation_models_pytorch as smp  # noqa: PLC0415

            self.network = smp.create_model(
                card["architecture"],
                card["encoder"],
                encoder_weights=None,
                in_channels=channels,
                classes=card["classes"],
                **card["options"],
            )
        self.network.load_state_dict(load_file(folder / "network.safetensors"))
        self.register_buffer("mean", torch.tensor(card["mean"]).reshape(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(card["std"]).reshape(1, 3, 1, 1) * 255)

    @torch.inference_mode()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.logits(pixels), dim=1)

    def logits(self, pixels: torch.Tensor) -> torch.Tensor:
        x = (pixels - self.mean) / self.std
        if self.scaled:
            x = torch.cat([x, torch.zeros_like(x[:, :1])], dim=1)
        return self.network(x)


class Fcn(nn.Module):
    """The same layers, by the same names, as `model.networks.small.Fcn`."""

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        first, second = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.body = nn.Sequential(first, nn.ReLU(inplace=True), second, nn.ReLU(inplace=True))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))
