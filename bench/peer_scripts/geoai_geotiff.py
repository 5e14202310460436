"""geoai's inference on a GeoTIFF; it divides pixels by 255 and takes the softmax itself."""

import torch
from geoai.train import semantic_inference_on_geotiff
from network import Network, job
from torch import nn


class Logits(nn.Module):
    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network.logits(pixels * 255)


def main() -> None:
    work = job()
    network = work.load()
    with work.timed():
        semantic_inference_on_geotiff(
            Logits(network),
            str(work.image),
            str(work.out),
            window_size=work.patch,
            overlap=work.patch - work.stride,
            batch_size=work.batch,
            num_channels=3,
            num_classes=network.classes,
            device=torch.device("cpu"),
            quiet=True,
        )


if __name__ == "__main__":
    main()
