"""The border between numpy and torch at inference: uint8 patches and placements in, sums of probabilities out.

Letters: N patches of a batch, M fields of view mixed into one patch, C bands, P patch side, K classes, D bank.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveate.errors import MemoryTooSmall
from foveate.schema import BundleCard
from model.accumulator import Accumulator, BlockSums
from model.bundle import Bundle, load_networks
from model.device import Ferry, give_back_memory, grown_batch, has_bfloat16, is_out_of_memory
from model.folding import folded
from model.fusing import fused
from model.inputs import Normalise, log_scales, with_scale
from model.lanes import threads_of_a_lane
from model.mapping import map_concentric
from model.recording import recorded
from model.surgery import keep_in_half
from raster.geometry import Size

FEW = 4
"""Patches at once that trials begin with, and the most that a CPU is given."""
_FEW_PIXELS = 1 << 18
"""Of a CPU's batch: what a layer makes of more is too large for its caches, and for memory that is used again."""
_TRIALS = 3


Scores = Tensor
"""(count, K, P, P) probabilities of a batch."""


@dataclass(frozen=True)
class PatchBatch:
    """Patches of one block, padded to a fixed number so that every forward on a GPU has one shape.

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


class Predictor:
    """One bundle, warm on one device. Its methods are for one thread at a time, but for `scores`, and those that make
    open sums and add to them: any thread may, to sums of its own.

    Pixels go to the device as they are, and labels come back; all between happens there. Evaluation mode; batch
    normalisation is folded into the convolutions; on a CPU they are fused with what follows, and the network is a
    recording. Patches are channels-last, which suits oneDNN and cuDNN. float32 throughout; on CUDA (not yet run on one)
    the network works in bfloat16 where the GPU does, everything around it in float32 and nothing in TF32. Nothing that
    `add` does makes the host wait for the device, but for a device that is far behind.
    """

    def __init__(self, bundle: Bundle, device: torch.device) -> None:
        self.bundle = bundle
        self.device = device
        self.ferry = Ferry(device)
        self.half = torch.bfloat16 if has_bfloat16(device) else None
        self.tries_batches = device.type != "cpu"
        card = bundle.card
        if device.type == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        if device.type == "cuda":
            torch.backends.cudnn.allow_tf32 = False
        # On the CPU, whatever the device: whether folding was exact is judged by float32's rounding.
        network, foveation = load_networks(bundle, torch.device("cpu"))
        example = _example(card)
        # Each gives up the weights of the one before.
        network = folded(network.to(memory_format=torch.channels_last), example)
        if device.type == "cpu":
            with threads_of_a_lane():
                network = fused(network, example.repeat(self.few, 1, 1, 1))
            network = recorded(network, torch.cat([example, -example]))
        if self.half is not None:
            keep_in_half(network, self.half)
        self.network: nn.Module = network.to(device)
        self.foveation = None if foveation is None else foveation.to(device)
        self._at_once: int | None = None
        self._trials: dict[tuple[int, int], float] = {}
        self._normalise = Normalise(card, device)
        self._log_fovs = log_scales(card.fovs, card.patch_size, device)

    @property
    def few(self) -> int:
        """Patches at once that a CPU is happy with."""
        return max(1, min(FEW, _FEW_PIXELS // self.card.patch_size**2))

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
        """Empty sums for a block of `size` pixels of a scale."""
        return Accumulator(len(self.card.classes), size, self.card.patch_size, overlap_px, self.device)

    @torch.inference_mode()
    def add(self, sums: BlockSums, batch: PatchBatch, scores: Scores) -> None:
        """Add the scores of a batch to `sums`."""
        if not batch.whole:
            sums.at(1).add(scores, batch.origins[: batch.count], batch.shares[: batch.count])
            return
        for score, fov, (x, y) in zip(scores, batch.fov.tolist(), batch.origins.tolist(), strict=False):
            self.add_whole(sums, score, x, y, fov)

    @torch.inference_mode()
    def add_whole(self, sums: BlockSums, scores_KPP: Tensor, x: int, y: int, level: int) -> None:
        """Add scores whose first working pixel in the block is (x, y), and whose pixels are as large as those of the
        bank's field of view `level`: over all of one, or over a part whose side is a whole share of a patch's."""
        scale = self.card.fovs[level] // self.card.patch_size
        sums.at(scale).add_patch(scores_KPP, x // scale, y // scale)

    @torch.inference_mode()
    def scores(self, batch: PatchBatch) -> Scores:
        """(count, K, P, P) probabilities of a batch: over all that a patch shows if `whole`, else over its cell.

        In as many goes as the device's memory asks for: each failure halves them, until `begin_job`. Raises
        MemoryTooSmall. On a CPU several threads may ask at once.
        """
        self.ferry.next_batch()
        while True:
            at_once = min(self._at_once or len(batch.pixels), len(batch.pixels))
            try:
                # Only where shapes cost nothing are patches left out that merely fill up the batch.
                end = len(batch.pixels) if self.tries_batches else batch.count
                starts = range(0, batch.count, at_once)
                goes = [self._go(batch, slice(start, min(start + at_once, end))) for start in starts]
                # Most often there is one, and joining would take as much memory again.
                return goes[0][: batch.count] if len(goes) == 1 else torch.cat(goes)[: batch.count]
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if at_once == 1:
                    raise MemoryTooSmall(
                        f"one patch of {self.card.name} does not fit into the memory of {self.device}",
                        hint="free memory on the device, lower --batch, or use --device cpu",
                    ) from error
            goes = []
            give_back_memory(self.device)
            self._at_once = (at_once + 1) // 2

    def begin_job(self) -> None:
        """What an earlier job found no memory for is tried again."""
        self._at_once = None

    def best_batch(self, most: int, mixed: int) -> int:
        """How many patches to forward at once, each mixed of so many fields of view: on a CPU a few, elsewhere tried.

        At most `most` where it is tried. Timings are kept, so the same predictor gives the same answer again.
        """
        if not self.tries_batches:
            return self.few
        try:
            return grown_batch(lambda count: self._trial(count, mixed), FEW, most)
        finally:
            give_back_memory(self.device)  # of the largest that was tried

    @torch.inference_mode()
    def _trial(self, count: int, mixed: int) -> float:
        """Seconds that a batch takes, from the host and back to it, the best of some; or runs out of memory, each
        time."""
        key = count, mixed
        if key not in self._trials:
            P, fovs = self.card.patch_size, np.zeros(count, np.int64)
            pixels = np.zeros((count, mixed, P, P, len(self.card.input.bands)), self.card.input.dtype)
            mix, shares = np.full((count, mixed), 1 / mixed, np.float32), np.ones(count, np.float32)
            batch = PatchBatch(pixels, mix, fovs, np.zeros((count, 2), np.int64), shares, count, whole=True)
            seconds = []
            for _ in range(1 + _TRIALS):
                start = time.perf_counter()
                self._go(batch, slice(0, count))
                self.ferry.synchronize()
                seconds.append(time.perf_counter() - start)
            self._trials[key] = min(seconds[1:])  # the first one also chose how to compute
        return self._trials[key]

    def _go(self, batch: PatchBatch, part: slice) -> Tensor:
        """(n, K, P, P): the scores of a part of the batch."""
        fov = batch.fov[part]
        narrowed = {} if batch.whole or self.card.mapping == "implicit" else _by_fov(fov)
        sent = self.ferry.up(batch.pixels[part], batch.mix[part], fov, *narrowed.values())
        pixels_NMPPC, mix_NM, fov_N, *places = sent
        mixed_NCPP = self._mixed(pixels_NMPPC.movedim(-1, 2), mix_NM)
        scores_NKPP = self._scores(mixed_NCPP, self._log_scale(mix_NM, fov_N))
        for seen, place in zip(narrowed, places, strict=True):
            scores_NKPP[place] = self._narrowed(scores_NKPP[place], seen)
        return scores_NKPP

    def normalised(self, pixels: NDArray[Any]) -> Tensor:
        """(1, C, height, width) on the device, as the networks take it, of (height, width, C) in the bundle's dtype."""
        return self._normalise(torch.from_numpy(pixels).to(self.device)[None])

    def _mixed(self, patches_NMCPP: Tensor, mix_NM: Tensor) -> Tensor:
        """(N, C, P, P), normalised: the weighted sum of each cell's patches (paper, eq. 2)."""
        if patches_NMCPP.shape[1] == 1:
            return self._normalise.planes(patches_NMCPP[:, 0])
        mixed = torch.einsum("nmcij,nm->ncij", patches_NMCPP.float(), mix_NM)
        return self._normalise.planes(mixed)

    def _log_scale(self, mix_NM: Tensor, fov_N: Tensor) -> Tensor:
        """(N,) log2 of field of view over patch side, for networks with a scale channel; mixed like the patches."""
        return self._log_fovs[fov_N] if mix_NM.shape[1] == 1 else mix_NM @ self._log_fovs

    def _scores(self, patches_NCPP: Tensor, log_scale_N: Tensor) -> Tensor:
        """(N, K, P, P) probabilities as the network gives them."""
        patches = with_scale(patches_NCPP, log_scale_N, self.card.network.scale_channel)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            logits = self.network(patches)
        return torch.softmax(logits.float(), dim=1)

    def _narrowed(self, scores_NKPP: Tensor, fov: int) -> Tensor:
        """Explicit mapping: the part that shows the smallest field of view, enlarged; fields of view are concentric."""
        return map_concentric(scores_NKPP, self.card.fovs[fov], self.card.patch_size)


def _by_fov(fov: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The patches that show each field of view but the smallest."""
    return {int(seen): np.flatnonzero(fov == seen) for seen in np.unique(fov) if seen}


def _example(card: BundleCard) -> Tensor:
    """A patch as the network takes it, the same every time."""
    channels = len(card.input.bands) + card.network.scale_channel
    noise = torch.rand((1, channels, card.patch_size, card.patch_size), generator=torch.Generator().manual_seed(0))
    return (2 * noise - 1).contiguous(memory_format=torch.channels_last)
