"""A network as a recording: the same outcome, and no Python between its layers."""

import ctypes
import gc
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from model.bundle import load_bundle
from model.fusing import fused
from model.predictor import FEW, Predictor
from model.recording import recorded
from tests.bundles import make_bundle
from tests.model.test_fusing import patches
from tests.model.test_shipped_bundles import ROOT

CPU = torch.device("cpu")


def files_entered(network: nn.Module, x: torch.Tensor) -> set[str]:
    """The files whose Python functions a forward enters."""
    called = set()

    def note(frame, event, _argument):
        if event == "call":
            called.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        with torch.inference_mode():
            network(x)
    finally:
        sys.setprofile(None)
    return called


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU6(), nn.Conv2d(4, 2, 1)).eval()


@pytest.mark.parametrize("count", range(1, 2 * FEW + 1))
def test_a_recording_gives_the_same_to_the_last_bit_for_any_number_of_patches(count):
    network = fused(small(), patches(FEW, 3, 16))
    quick = recorded(network, patches(2, 3, 16))
    assert quick is not network
    with torch.inference_mode():
        assert torch.equal(quick(patches(count, 3, 16)), network(patches(count, 3, 16)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["landcover", "glands"])
def test_a_shipped_network_enters_no_function_of_a_layer(name):
    predictor = Predictor(load_bundle(ROOT / "bundles" / name), CPU)
    card = predictor.card
    x = patches(FEW, len(card.input.bands) + card.network.scale_channel, card.patch_size)
    layers = ("timm", "segmentation_models_pytorch", "fusing.py", "torch/nn/modules/conv.py", "container.py")
    called = files_entered(predictor.network, x)
    assert any(file.endswith("recording.py") for file in called)
    assert not [file for file in called if any(layer in file for layer in layers)]


def test_a_bundle_on_a_cpu_is_recorded(tmp_path):
    predictor = Predictor(load_bundle(make_bundle(tmp_path / "bundle")), CPU)
    called = files_entered(predictor.network, patches(1, 3, predictor.card.patch_size))
    assert not [file for file in called if "container.py" in file or "fusing.py" in file]


class Counting(nn.Module):
    """What it gives depends on how many patches there are, which a recording takes for a constant."""

    def forward(self, x):
        return x * len(x)


class Reading(nn.Module):
    """What it adds is a constant to a recording."""

    def forward(self, x):
        return x + float(x.mean())


class Choosing(nn.Module):
    """Takes another way for other patches."""

    def forward(self, x):
        return x + 1 if x.sum() > 0 else x * 3


class Failing(nn.Module):
    def forward(self, x):
        if torch.jit.is_tracing():
            raise TypeError("no recordings")
        return x + 1


@pytest.mark.parametrize("kind", [Counting, Reading, Failing])
def test_what_cannot_be_recorded_runs_as_it_is(kind):
    network = kind().eval()
    assert recorded(network, patches(2, 3, 8)) is network


def test_a_network_that_looks_at_its_input_is_compared_on_what_it_was_not_recorded_on():
    network, one = Choosing().eval(), patches(1, 3, 8)
    examples = torch.cat([one - one.mean() + 1, one - one.mean() - 2])
    assert examples[:1].sum() > 0 > examples.sum()
    assert recorded(network, examples) is network


def test_where_torch_can_record_no_more_networks_run_as_they_are(monkeypatch):
    monkeypatch.delattr(torch.jit, "_get_trace_graph")
    network = small()
    assert recorded(network, patches(2, 3, 8)) is network


def test_a_recording_that_is_not_wanted_any_more_leaves_no_weights():
    weights, network = np.ones((4, 3, 3, 3), np.float32), small()
    network[0].weight = nn.Parameter(torch.from_numpy(weights), requires_grad=False)
    held = weakref.ref(weights)
    quick = recorded(network, patches(2, 3, 8))
    assert quick is not network
    with torch.inference_mode():
        quick(patches(2, 3, 8))
    del network, weights
    gc.collect()
    assert held() is not None
    del quick
    gc.collect()
    assert held() is None


LOADING = """
import ctypes, gc, torch
from pathlib import Path
from model.bundle import load_bundle
from model.predictor import Predictor

def held():
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

bundle, sizes = load_bundle(Path("bundles/landcover")), []
for _ in range(10):
    predictor = Predictor(bundle, torch.device("cpu"))
    with torch.inference_mode():
        predictor.network(torch.zeros(1, 3, 256, 256).contiguous(memory_format=torch.channels_last))
    del predictor
    sizes.append(held())
print(sizes[-1] - sizes[3])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc")
def test_memory_does_not_grow_with_the_models_that_a_process_has_loaded():
    """torch.jit.trace would leave 30 MB of each, 180 of six."""
    done = subprocess.run([sys.executable, "-c", LOADING], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 40_000_000
