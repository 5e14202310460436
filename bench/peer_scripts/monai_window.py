"""MONAI's SlidingWindowInferer over the whole image in memory."""

import numpy as np
import rasterio
import torch
from monai.inferers import SlidingWindowInferer
from network import job


def main() -> None:
    work = job()
    network = work.load()
    inferer = SlidingWindowInferer(
        roi_size=(work.patch, work.patch), sw_batch_size=work.batch, overlap=work.overlap, mode="constant"
    )
    with work.timed():
        with rasterio.open(work.image) as file:
            image = torch.from_numpy(file.read((1, 2, 3))).float()[None]
        with torch.inference_mode():
            scores = inferer(image, network)
        work.write(scores[0].argmax(0).numpy().astype(np.uint8))


if __name__ == "__main__":
    main()
