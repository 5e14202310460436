"""MONAI's way with slides: a splitter that reads patches from the file, and a merger on disk."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import zarr
from monai.inferers import PatchInferer, WSISlidingWindowSplitter, ZarrAvgMerger
from network import job

BAND = 1024


def main() -> None:
    work = job()
    network = work.load()
    splitter = WSISlidingWindowSplitter(
        patch_size=(work.patch, work.patch), overlap=work.overlap, reader="OpenSlide", pad_mode="constant"
    )
    with work.timed(), tempfile.TemporaryDirectory(dir=work.out.parent) as scratch:
        names = {"store": "merged", "value_store": "values", "count_store": "counts"}
        inferer = PatchInferer(
            splitter=splitter,
            merger_cls=ZarrAvgMerger,
            batch_size=work.batch,
            preprocessing=lambda patches: torch.as_tensor(patches).float(),
            # Left alone, both temporary stores share one attribute under zarr 3, and the first is deleted in use.
            **{key: zarr.storage.LocalStore(Path(scratch) / name) for key, name in names.items()},
            chunks=(1, 1, work.patch, work.patch),
        )
        with torch.inference_mode():
            merged = inferer(str(work.image), network)
        mask = np.empty(merged.shape[2:], np.uint8)
        for y in range(0, mask.shape[0], BAND):
            mask[y : y + BAND] = np.asarray(merged[0, :, y : y + BAND]).argmax(0)
        work.write(mask)


if __name__ == "__main__":
    main()
