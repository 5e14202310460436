"""The border between numpy and torch at inference: uint8 patches and placements in, sums of probabilities out.

Letters: N patches of a batch, M fields of view mixed into one patch, C bands, P patch side, K classes, D bank.
"""

import math
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.errors import MemoryTooSmall
from foveate.schema import BundleCard
from model.accumulator import Accumulator
from model.bundle import Bundle, load_networks
from model.folding import folded
from model.mapping import map_exact
from raster.geometry import Region, Size


@dataclass(frozen=True)
class PatchBatch:
    """Patches of one block, padded to a fixed number so that every forward has one shape.

    `pixels` (N, M, P, P, C) in the bundle's dtype; `mix` (N, M) float32, rows sum to 1; `fov` (N,) the bank's index
    that a single patch shows (M = 1); `origins` (N, 2) x and y of the cell's window in the block's working pixels;
    `shares` (N,) as in `Accumulator.add`. Only the first `count` patches are real. `whole` (adaptive coverage): single
    patches label all that they show, and `origins` are those of what they show; `shares` are not read.
    """

    pixels: NDArray[Any]
    mix: NDArray[np.float32]
    fov: NDArray[np.int64]
    origins: NDArray[np.int64]
    shares: NDArray[np.float32]
    count: int
    whole: bool = False


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one, else the CPU; else the device of that name."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


class Predictor:
    """One bundle, warm on one device. Its methods are for one thread at a time.

    Pixels go to the device as they are, and labels come back; all between happens there. Evaluation mode; batch
    normalisation is folded into the convolutions; patches are channels-last, which suits oneDNN and cuDNN. On the CPU
    float32 throughout; on CUDA (not yet run on one) the network works in bfloat16 and everything after it in float32.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        card = bundle.card
        if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        network, self.foveation = load_networks(bundle, device)
        network = network.to(memory_format=torch.channels_last)
        self.network: nn.Module = folded(network, _example(card).to(device))
        self._at_once: int | None = None
        shape = (1, len(card.input.bands), 1, 1)
        self._mean = (torch.tensor(card.input.mean) * card.input.value_scale).reshape(shape).to(device)
        self._scale = (1 / (torch.tensor(card.input.std) * card.input.value_scale)).reshape(shape).to(device)
        self._log_fovs = torch.tensor([math.log2(fov / card.patch_size) for fov in card.fovs], device=device)

    @property
    def card(self) -> BundleCard:
        return self.bundle.card

    @torch.inference_mode()
    def distribution(self, thumbnail: NDArray[Any]) -> NDArray[np.float32]:
        """F_theta over a thumbnail (height, width, C) in the bundle's dtype: probabilities (D, height, width)."""
        if self.foveation is None:
            raise ValueError(f"bundle {self.card.name} has no F_theta")
        image_1CHW = self.normalised(thumbnail)
        probabilities: Tensor = self.foveation(image_1CHW)
        return probabilities[0].cpu().numpy()

    def open_block(self, size: Size, overlap_px: int) -> Accumulator:
        """Empty sums for a block of `size` working pixels."""
        return Accumulator(len(self.card.classes), size, self.card.patch_size, overlap_px, self.device)

    @torch.inference_mode()
    def add(self, sums: Accumulator, batch: PatchBatch) -> None:
        """Forward a batch and add its probabilities to `sums`."""
        scores = self.scores(batch)
        if not batch.whole:
            sums.add(scores, batch.origins[: batch.count], batch.shares[: batch.count])
            return
        for score, fov, (x, y) in zip(scores, batch.fov.tolist(), batch.origins.tolist(), strict=False):
            sums.add_enlarged(score, x, y, self.card.fovs[fov] // self.card.patch_size)

    @torch.inference_mode()
    def scores(self, batch: PatchBatch) -> Tensor:
        """(count, K, P, P) probabilities of a batch: over all that a patch shows if `whole`, else over its cell."""
        patches_NMCPP = self._sent(batch.pixels).movedim(-1, 2)
        mix_NM = torch.from_numpy(batch.mix).to(self.device)
        fov_N = torch.from_numpy(batch.fov).to(self.device)
        scores_NKPP = self._scores(self._mixed(patches_NMCPP, mix_NM), self._log_scale(mix_NM, fov_N))
        if self.card.mapping == "explicit" and not batch.whole:
            scores_NKPP = self._narrowed(scores_NKPP, fov_N)
        return scores_NKPP[: batch.count]

    def _sent(self, pixels: NDArray[Any]) -> Tensor:
        """On the device; to CUDA from pinned memory, so that the copy runs beside the network."""
        here = torch.from_numpy(pixels)
        if self.device.type == "cuda":
            return here.pin_memory().to(self.device, non_blocking=True)
        return here.to(self.device)

    def normalised(self, pixels: NDArray[Any]) -> Tensor:
        """(1, C, height, width) on the device, as the networks take it, of (height, width, C) in the bundle's dtype."""
        return self._normalised(torch.from_numpy(pixels).to(self.device)[None].movedim(-1, 1))

    def _normalised(self, values: Tensor) -> Tensor:
        return (values.float() - self._mean) * self._scale

    def _mixed(self, patches_NMCPP: Tensor, mix_NM: Tensor) -> Tensor:
        """(N, C, P, P), normalised: the weighted sum of each cell's patches (paper, eq. 2)."""
        if patches_NMCPP.shape[1] == 1:
            return self._normalised(patches_NMCPP[:, 0])
        mixed = torch.einsum("nmcij,nm->ncij", patches_NMCPP.float(), mix_NM)
        return self._normalised(mixed)

    def _log_scale(self, mix_NM: Tensor, fov_N: Tensor) -> Tensor:
        """(N,) log2 of field of view over patch side, for networks with a scale channel; mixed like the patches."""
        return self._log_fovs[fov_N] if mix_NM.shape[1] == 1 else mix_NM @ self._log_fovs

    def _scores(self, patches_NCPP: Tensor, log_scale_N: Tensor) -> Tensor:
        """(N, K, P, P) probabilities as the network gives them."""
        if self.card.network.scale_channel:
            plane = log_scale_N[:, None, None, None].expand(-1, 1, *patches_NCPP.shape[2:])
            patches_NCPP = torch.cat([patches_NCPP, plane], dim=1)
        logits = self._logits(patches_NCPP.contiguous(memory_format=torch.channels_last))
        return torch.softmax(logits.float(), dim=1)

    def _logits(self, patches_NCPP: Tensor) -> Tensor:
        """The network's answer, in as many goes as the device's memory asks for: each failure halves them for good."""
        while True:
            at_once = self._at_once or len(patches_NCPP)
            try:
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                    return torch.cat([self.network(part) for part in torch.split(patches_NCPP, at_once)])
            except torch.OutOfMemoryError as error:
                if at_once == 1:
                    raise MemoryTooSmall(
                        f"one patch of {self.card.name} does not fit into the memory of {self.device}",
                        hint="free memory on the device, or use --device cpu",
                    ) from error
                self._at_once = at_once // 2

    def _narrowed(self, scores_NKPP: Tensor, fov_N: Tensor) -> Tensor:
        """Explicit mapping: the part that shows the smallest field of view, enlarged; fields of view are concentric."""
        P = self.card.patch_size
        for fov in set(fov_N.tolist()) - {0}:
            # Twice the sides, so that the corner is whole even where sides are odd.
            side = self.card.fovs[fov]
            seen, smallest = Region(0, 0, 2 * side, 2 * side), Region(side - P, side - P, 2 * P, 2 * P)
            same = fov_N == fov
            scores_NKPP[same] = map_exact(scores_NKPP[same], seen, smallest)
        return scores_NKPP


def _example(card: BundleCard) -> Tensor:
    """A patch as the network takes it, the same every time."""
    channels = len(card.input.bands) + card.network.scale_channel
    noise = torch.rand((1, channels, card.patch_size, card.patch_size), generator=torch.Generator().manual_seed(0))
    return (2 * noise - 1).contiguous(memory_format=torch.channels_last)
