"""What a user writes first: windows with rasterio, one batch after the other, and probabilities summed in memory."""

import numpy as np
import rasterio
import torch
from network import job
from rasterio.windows import Window


def starts(length: int, patch: int, stride: int) -> list[int]:
    """The last window is moved into the image."""
    return [min(k, length - patch) for k in range(0, max(1, length - patch + stride), stride)]


def main() -> None:
    work = job()
    network = work.load()
    with work.timed(), rasterio.open(work.image) as image:
        sums = weights = None
        rows, columns = (starts(length, work.patch, work.stride) for length in (image.height, image.width))
        places = [(y, x) for y in rows for x in columns]
        for k in range(0, len(places), work.batch):
            batch = places[k : k + work.batch]
            pixels = [image.read((1, 2, 3), window=Window(x, y, work.patch, work.patch)) for y, x in batch]
            scores = network(torch.from_numpy(np.stack(pixels)).float()).numpy()
            if sums is None:
                sums = np.zeros((scores.shape[1], image.height, image.width), np.float32)
                weights = np.zeros((image.height, image.width), np.float32)
            for (y, x), score in zip(batch, scores, strict=True):
                sums[:, y : y + work.patch, x : x + work.patch] += score
                weights[y : y + work.patch, x : x + work.patch] += 1
        work.write((sums / weights).argmax(0).astype(np.uint8))


if __name__ == "__main__":
    main()
