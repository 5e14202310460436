"""What happens around the network: folded normalisation, and memory that runs out."""

import numpy as np
import pytest
import torch
from torch import nn

from foveate.errors import MemoryTooSmall
from model.accumulator import BlockSums
from model.bundle import load_bundle, load_networks
from model.folding import folded
from model.predictor import FEW, PatchBatch, Predictor
from model.surgery import keep_in_half
from raster.geometry import Region, Size
from tests.bundles import make_bundle
from tests.model.test_shipped_bundles import ROOT

CPU = torch.device("cpu")
P = 64


@pytest.mark.parametrize("name", ["landcover", "glands"])
def test_shipped_networks_give_the_same_with_every_normalisation_folded(name):
    network, _ = load_networks(load_bundle(ROOT / "bundles" / name))
    card = load_bundle(ROOT / "bundles" / name).card
    channels = len(card.input.bands) + card.network.scale_channel
    patches = torch.rand(2, channels, 128, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1
    quick = folded(network, patches[:1])
    assert any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in quick.modules())
    with torch.inference_mode():
        before, after = network(patches), quick(patches)
    assert torch.allclose(before, after, atol=1e-4 * float(before.abs().max()))
    assert (before.argmax(1) != after.argmax(1)).float().mean() <= 1e-4


class Forked(nn.Module):
    """The convolution's output is read twice: folding would change the second reader."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.normalisation = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.normalisation.running_mean.fill_(0.7)

    def forward(self, x):
        y = self.convolution(x)
        return self.normalisation(y) - 2 * y


def test_a_network_that_folding_would_change_is_left_as_it_is():
    network = Forked().eval()
    assert folded(network, torch.rand(1, 3, 8, 8)) is network


OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory")


def batch_of(count: int) -> PatchBatch:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 1, P, P, 3), np.uint8)
    origins = np.array([[P * k, 0] for k in range(count)], np.int64)
    return PatchBatch(
        pixels, np.ones((count, 1), np.float32), np.zeros(count, np.int64), origins, np.ones(count, np.float32), count
    )


class Cramped(nn.Module):
    """A device on which only so many patches fit, by a fake of its own error."""

    def __init__(self, network: nn.Module, fits: int, error: Exception = OUT_OF_MEMORY) -> None:
        super().__init__()
        self.network, self.fits, self.error = network, fits, error
        self.seen: list[int] = []

    def forward(self, x):
        self.seen.append(len(x))
        if len(x) > self.fits:
            raise self.error
        return self.network(x)


@pytest.fixture
def predictor(tmp_path):
    bundle = make_bundle(tmp_path / "b", name="b", kind="any", spacing=None, mapping="explicit", policy="mode")
    return Predictor(load_bundle(bundle), CPU)


@pytest.mark.parametrize("error", [OUT_OF_MEMORY, RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")])
def test_a_batch_that_does_not_fit_is_halved_until_the_next_job_and_gives_the_same(predictor, error):
    wanted, got = (BlockSums(lambda _: predictor.open_block(Size(8 * P, P), 0)) for _ in range(2))

    def forwarded(sums):
        predictor.add(sums, batch_of(8), predictor.scores(batch_of(8)))

    forwarded(wanted)
    predictor.network = cramped = Cramped(predictor.network, 2, error)
    forwarded(got)
    forwarded(got)
    assert cramped.seen == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]
    predictor.begin_job()
    predictor.scores(batch_of(4))
    assert cramped.seen[10:] == [4, 2, 2]
    whole = Region(0, 0, 8 * P, P)
    assert np.allclose(got.at(1).part(whole), 2 * wanted.at(1).part(whole), atol=1e-5)


def test_memory_that_runs_out_behind_the_network_halves_as_well(predictor, monkeypatch):
    wanted = predictor.scores(batch_of(6))
    narrowed, seen = predictor._scores, []

    def cramped(patches, log_scale):
        seen.append(len(patches))
        if len(patches) > 3:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return narrowed(patches, log_scale)

    monkeypatch.setattr(predictor, "_scores", cramped)
    assert torch.allclose(predictor.scores(batch_of(6)), wanted, atol=1e-5)
    assert seen == [6, 3, 3]


def test_another_error_is_not_taken_for_a_lack_of_memory(predictor):
    predictor.network = Cramped(predictor.network, 0, RuntimeError("CUDA error: an illegal memory access"))
    with pytest.raises(RuntimeError, match="illegal"):
        predictor.scores(batch_of(2))


def test_weights_kept_in_half_precision_give_what_autocast_makes_of_them(tmp_path):
    bundle = load_bundle(make_bundle(tmp_path / "b", name="b", kind="any", spacing=None, policy="mode"))
    predictor = Predictor(bundle, CPU)
    predictor.network, _ = load_networks(bundle)
    predictor.half = torch.bfloat16
    wanted = predictor.scores(batch_of(3))
    keep_in_half(predictor.network, torch.bfloat16)
    assert torch.bfloat16 in {weight.dtype for weight in predictor.network.parameters()}
    assert torch.equal(predictor.scores(batch_of(3)), wanted)


def test_a_cpu_gets_a_few_patches_and_other_devices_what_fits(predictor):
    assert predictor.best_batch(64, 1) == FEW
    predictor.tries_batches = True
    predictor.network = cramped = Cramped(predictor.network, FEW)
    assert predictor.best_batch(64, 1) == FEW
    assert max(cramped.seen) == 2 * FEW
    tried = len(cramped.seen)
    assert predictor.best_batch(FEW, 1) == FEW
    assert len(cramped.seen) == tried, "what was timed is kept"


def test_a_patch_that_never_fits_is_an_error_with_a_remedy(predictor):
    predictor.network = Cramped(predictor.network, 0)
    with pytest.raises(MemoryTooSmall, match="one patch of b"):
        predictor.scores(batch_of(3))
