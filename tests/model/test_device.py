"""Devices, by fakes of what is not here: order of copies and work, how far the host runs ahead, sizes of batches."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from foveate.errors import DeviceLost, MemoryTooSmall, OptionInvalid
from model.device import Ferry, choose_device, grown_batch, within_device

CPU = torch.device("cpu")


class Stream:
    def __init__(self, device, name):
        self.device, self.name = device, name

    def wait_stream(self, other):
        self.device.log.append(f"{self.name} waits for {other.name}")


class Event:
    def __init__(self, device):
        self.device, self.number = device, next(device.numbers)

    def record(self, stream):
        self.device.log.append(f"event {self.number} on {stream.name}")

    def synchronize(self):
        self.device.log.append(f"host waits for event {self.number}")


class Streams:
    """Stands for torch.cuda: writes down what is asked of it."""

    def __init__(self):
        self.log, self.numbers = [], iter(range(100))
        self.work = Stream(self, "work")
        self.current = self.work
        self._names = iter(["up", "down"])

    def set_device(self, device):
        self.device = device

    def current_device(self):
        return 3

    def current_stream(self, device):
        return self.current

    def Stream(self):  # noqa: N802
        return Stream(self, next(self._names))

    def Event(self, blocking=False):  # noqa: N802
        return Event(self)

    @contextmanager
    def stream(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before


class Sent:
    """A page-locked array."""

    def __init__(self, streams):
        self.streams = streams

    def to(self, device, *, non_blocking):
        assert non_blocking
        self.streams.log.append(f"copy on {self.streams.current.name}")
        return self


class Afar(Ferry):
    """To a device with a memory of its own."""

    def _locked(self, array):
        return Sent(self._streams)

    def _copied(self, array):
        self._streams.log.append(f"copy on {self._streams.current.name}")
        return array.clone()

    def _keep(self, arrays, stream):
        self._streams.log.append(f"{len(arrays)} kept for {stream.name}")


@pytest.fixture
def afar(monkeypatch):
    streams = Streams()
    monkeypatch.setattr(torch, "get_device_module", lambda device: streams)
    return Afar(CPU), streams.log


def test_what_goes_up_is_copied_beside_the_work_and_waited_for_by_the_device_alone(afar):
    ferry, log = afar
    ferry.up(np.zeros(3), np.ones(2))
    assert log == ["copy on up", "copy on up", "work waits for up", "2 kept for work"]


def test_what_comes_down_waits_for_the_work_before_it_and_the_host_only_where_it_reads(afar):
    ferry, log = afar
    landing = ferry.down({"a": torch.arange(3)})
    assert log == ["down waits for work", "copy on down", "1 kept for down", "event 0 on down"]
    assert landing.arrays()["a"].tolist() == [0, 1, 2]
    assert log[-1] == "host waits for event 0"


def test_the_host_is_three_batches_ahead_at_most(afar):
    ferry, log = afar
    for _ in range(4):
        ferry.next_batch()
    assert log == [
        *(f"event {n} on work" for n in range(3)),
        "host waits for event 0",
        "event 3 on work",
        "host waits for event 1",
    ]


def test_on_a_cpu_arrays_are_handed_over_and_there_at_once():
    ferry, array = Ferry(CPU), np.arange(4)
    (there,) = ferry.up(array)
    landing = ferry.down({"a": there})
    ferry.synchronize()
    assert np.shares_memory(landing.arrays()["a"], array)


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({4: 100, 8: 190, 16: 300, 32: 310, 64: 900}, 16),  # growing ends where it hardly pays
        ({4: 100, 8: 99}, 4),
        ({4: 100, 8: 200, 16: None}, 8),  # memory runs out
        ({4: None}, 4),
        ({4: 10, 8: 20, 16: 40, 32: 80, 64: 160, 128: 320}, 64),  # at most as many as there are
    ],
)
def test_a_batch_grows_while_it_gains_and_fits(rates, best):
    def seconds(count):
        if rates[count] is None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return count / rates[count]

    assert grown_batch(seconds, 4, 100) == best


@pytest.mark.parametrize(("most", "batch"), [(0, 1), (1, 1), (3, 3)])
def test_few_patches_make_a_small_batch_without_a_trial(most, batch):
    assert grown_batch(lambda count: pytest.fail("tried"), 4, most) == batch


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused():
    assert choose_device("auto") == CPU
    with pytest.raises(OptionInvalid, match="device cuda:1: torch sees 0 GPUs"):
        choose_device("cuda:1")


@pytest.fixture
def unfit_gpu(monkeypatch):
    """One that torch sees and has no code for."""

    def ones(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "ones", ones)


def test_a_gpu_that_torch_has_no_code_for_is_passed_over_or_refused(unfit_gpu, caplog):
    assert choose_device("auto") == CPU
    assert "no kernel image" in caplog.text
    with pytest.raises(OptionInvalid, match="device cuda:0: CUDA error: no kernel image is available") as refused:
        choose_device("cuda:0")
    assert "\n" not in refused.value.message


def test_a_device_without_an_index_is_the_current_one(monkeypatch):
    streams = Streams()
    monkeypatch.setattr(torch, "get_device_module", lambda device: streams)
    Ferry(torch.device("cuda"))
    assert streams.device == torch.device("cuda:3")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("CUDA error: out of memory", MemoryTooSmall),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", MemoryTooSmall),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", MemoryTooSmall),
        ("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be", DeviceLost),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", DeviceLost),
        ("mat1 and mat2 shapes cannot be multiplied", RuntimeError),
    ],
)
def test_what_a_device_says_is_told_apart(message, kind):
    with pytest.raises(kind) as raised, within_device(CPU):
        raise RuntimeError(message)
    assert type(raised.value) is kind
    assert (kind is DeviceLost) == getattr(raised.value, "retryable", False)
