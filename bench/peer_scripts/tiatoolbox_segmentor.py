"""TIAToolbox's SemanticSegmentor over a whole image, without a tissue mask, its result in its own zarr store."""

import tempfile
from pathlib import Path

import numpy as np
import torch
import zarr
from network import Network, job
from tiatoolbox.models.engine.io_config import IOSegmentorConfig
from tiatoolbox.models.engine.semantic_segmentor import SemanticSegmentor
from tiatoolbox.models.models_abc import ModelABC


class Model(ModelABC):
    """The network as the toolbox wants it: channels last on both sides."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.network(pixels)

    @staticmethod
    def infer_batch(model: torch.nn.Module, batch_data: torch.Tensor, *, device: str) -> np.ndarray:
        scores = model(batch_data.to(device).float().permute(0, 3, 1, 2))
        return scores.permute(0, 2, 3, 1).contiguous().numpy()

    @staticmethod
    def postproc(image: np.ndarray) -> np.ndarray:
        return image.argmax(-1).astype(np.uint8)


def main() -> None:
    work = job()
    segmentor = SemanticSegmentor(model=Model(work.load()), batch_size=work.batch, device="cpu", verbose=False)
    level = [{"units": "baseline", "resolution": 1.0}]
    windows = IOSegmentorConfig(
        input_resolutions=level,
        output_resolutions=level,
        patch_input_shape=(work.patch, work.patch),
        patch_output_shape=(work.patch, work.patch),
        stride_shape=(work.stride, work.stride),
        save_resolution=level[0],
    )
    with work.timed(), tempfile.TemporaryDirectory(dir=work.out.parent) as scratch:
        made = segmentor.run(
            images=[work.image],
            patch_mode=False,
            ioconfig=windows,
            auto_get_mask=False,
            save_dir=Path(scratch) / "out",
            output_type="zarr",
            wsireader_kwargs={"mpp": (0.5, 0.5), "power": 20},
        )
        work.write(np.asarray(zarr.open(str(made[work.image]), mode="r")["predictions"]))


if __name__ == "__main__":
    main()
