"""Convolutions in oneDNN's own layout, with their activations: the same network, sooner."""

import ctypes

import numpy as np
import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from model.bundle import load_bundle, load_networks
from model.folding import folded
from model.fusing import fused
from model.lanes import Lanes
from model.predictor import FEW, Predictor
from tests.bundles import make_bundle
from tests.model.test_shipped_bundles import ROOT

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")


def patches(count: int, channels: int, height: int, width: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    noise = torch.rand((count, channels, height, width or height), generator=generator) * 2 - 1
    return noise.contiguous(memory_format=torch.channels_last)


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def assert_same(network: nn.Module, quick: nn.Module, x: torch.Tensor) -> None:
    with torch.inference_mode():
        wanted, got = network(x), quick(x)
    assert got.shape == wanted.shape
    assert torch.allclose(wanted, got, rtol=0, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["landcover", "glands"])
@pytest.mark.parametrize("count", [1, FEW - 1, FEW])
def test_every_convolution_of_the_shipped_networks_is_fused_and_gives_the_same(name, count):
    bundle = load_bundle(ROOT / "bundles" / name)
    channels = len(bundle.card.input.bands) + bundle.card.network.scale_channel
    network = folded(load_networks(bundle)[0], patches(1, channels, 128))
    quick = fused(network, patches(FEW, channels, 128))
    assert convolutions(network)
    assert not convolutions(quick)
    assert not any(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in quick.modules())
    assert_same(network, quick, patches(count, channels, 128))


@pytest.mark.parametrize("cores", [1, 2])
def test_no_number_of_patches_has_weights_arranged_anew_in_a_lane(cores, capfd, monkeypatch):
    """oneDNN likes another layout for another number of patches or threads, and tells when it has to make one."""
    bundle, threads = load_bundle(ROOT / "bundles" / "landcover"), torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", str(cores))  # of which a predictor leaves alone what torch has
    torch.set_num_threads(cores)
    try:
        predictor = Predictor(bundle, torch.device("cpu"))
        with Lanes(predictor.device) as lanes, torch.inference_mode():
            batches = [patches(count, 3, predictor.card.patch_size) for count in range(1, FEW + 1)]
            with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
                assert len(list(lanes.map(predictor.network, batches))) == FEW
    finally:
        torch.set_num_threads(threads)
    ctypes.CDLL(None).fflush(None)
    told = capfd.readouterr().out
    assert told.count(",exec,cpu,convolution,") == FEW * len(convolutions(load_networks(bundle)[0]))
    assert ",exec,cpu,reorder," not in told


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, (3, 5), padding=(0, 2), bias=False),
        nn.Conv2d(4, 6, 3, padding="valid"),
        nn.Conv2d(4, 8, 5, stride=2, padding=1, dilation=2, groups=2),
        Conv2dSame(4, 6, 3, stride=2),
        Conv2dSame(4, 4, (5, 2), stride=(2, 3), groups=4),
        Conv2dSame(4, 4, 4, stride=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("activation", [nn.ReLU(inplace=True), nn.ReLU6(), nn.SiLU(), nn.Hardswish()], ids=str)
@pytest.mark.parametrize("sides", [(16, 16), (17, 30)])
def test_any_padding_and_activation_comes_out_the_same(convolution, activation, sides):
    network = nn.Sequential(convolution, activation, nn.Conv2d(convolution.out_channels, 2, 1)).eval()
    quick = fused(network, patches(2, 4, *sides))
    assert not convolutions(quick)
    assert isinstance(quick[1], nn.Identity)
    assert_same(network, quick, patches(2, 4, *sides))


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
        Conv2dSame(4, 6, 4, dilation=3),
    ],
    ids=str,
)
def test_what_onednn_cannot_pad_is_left_to_torch(convolution):
    network = nn.Sequential(convolution, nn.ReLU()).eval()
    quick = fused(network, patches(1, 4, 16))
    assert len(convolutions(quick)) == 1
    assert_same(network, quick, patches(1, 4, 16))


class Shared(nn.Module):
    """One activation for two convolutions, as torchvision's residual blocks have it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.activation = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1), nn.ReLU()

    def forward(self, x):
        return self.activation(x + self.second(self.activation(self.first(x))))


def test_an_activation_that_is_used_twice_stays_where_it_is():
    network = Shared().eval()
    quick = fused(network, patches(1, 3, 8))
    assert isinstance(quick.activation, nn.ReLU)
    assert not convolutions(quick)
    assert_same(network, quick, patches(1, 3, 8))


class Doubled(nn.ReLU):
    """An activation of somebody's own, after one of torch's."""

    def forward(self, x):
        return 2 * super().forward(x)


def test_an_activation_of_somebodys_own_stays_where_it_is():
    network = nn.Sequential(nn.Conv2d(3, 3, 1), Doubled()).eval()
    quick = fused(network, patches(1, 3, 8))
    assert not convolutions(quick)
    assert isinstance(quick[1], Doubled)
    assert_same(network, quick, patches(1, 3, 8))


class Forked(nn.Module):
    """The convolution's output is read before the activation, too."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.activation = nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, x):
        y = self.convolution(x)
        return self.activation(y) - 2 * y


def test_a_network_that_fusing_would_change_is_left_as_it_is():
    network = Forked().eval()
    assert fused(network, patches(1, 3, 8)) is network


def test_a_bundle_on_a_cpu_is_fused(tmp_path, monkeypatch):
    monkeypatch.setattr("model.predictor.recorded", lambda network, _: network)
    predictor = Predictor(load_bundle(make_bundle(tmp_path / "bundle")), torch.device("cpu"))
    assert not convolutions(predictor.network)
    assert np.isfinite(predictor.network(patches(1, 3, predictor.card.patch_size)).numpy()).all()
