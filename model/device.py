"""What a device is asked for: which one, at what precision, and how arrays get there and back beside its work.

None of what is special to CUDA has run on a GPU yet. On a CPU torch's streams and events stand still, and arrays are
handed over as they are.
"""

import contextlib
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from numpy.typing import NDArray
from torch import Tensor

from foveate.errors import DeviceLost, MemoryTooSmall, OptionInvalid
from foveate.schema import checked_device

__all__ = [
    "Ferry",
    "Landing",
    "choose_device",
    "give_back_memory",
    "grown_batch",
    "has_bfloat16",
    "is_out_of_memory",
    "within_device",
]

_log = logging.getLogger(__name__)

_UNDER_WAY = 2
"""Batches that a device may have before it when the next goes up: one to work on, and one that it finds there."""
_GAIN = 1.05
"""A larger batch has to be faster than half of it by this factor."""
_OUT_OF_MEMORY = ("out of memory", "STATUS_ALLOC_FAILED", "CUBLAS_STATUS_NOT_INITIALIZED")
"""In messages of CUDA, cuDNN and cuBLAS; the last one's handle takes memory of its own."""
_LOST = ("CUDA error", "CUDNN_STATUS_EXECUTION_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED")


def choose_device(name: str) -> torch.device:
    """`auto` is the first GPU where there is one that works, else the CPU; another name's device, with its index.

    Raises OptionInvalid for a name of none, and for a GPU that is not there or that this torch has no code for.
    """
    try:
        checked_device(name)
    except ValueError as error:
        raise OptionInvalid(str(error), hint="auto takes the first GPU where there is one") from error
    asked = name != "auto"
    if not asked:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type != "cuda":
        return device
    index, count = device.index or 0, torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        raise OptionInvalid(
            f"device {name}: torch sees {count} GPUs here",
            hint="use --device cpu or auto; else look at the driver with nvidia-smi, and at torch.cuda.is_available()",
        )
    device = torch.device("cuda", index)
    unfit = _unfit(device)
    if unfit is None:
        return device
    if not asked:
        _log.warning("the GPU is not used: %s", unfit)
        return torch.device("cpu")
    raise OptionInvalid(
        f"device {name}: {unfit}",
        hint="use --device cpu, or a build of torch that supports this GPU (pytorch.org/get-started)",
    )


def _unfit(device: torch.device) -> str | None:
    """Why a GPU that is there cannot be used, as by a build of torch without code for it; None: it can."""
    try:
        torch.ones(1, device=device).add_(1).cpu()
    except RuntimeError as error:
        # One that is merely full just now is fit; the job will say what it lacks.
        return None if is_out_of_memory(error) else str(error).strip().splitlines()[0]
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had no memory left: torch says so in a class of its own, CUDA's libraries in words."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


@contextlib.contextmanager
def within_device(device: torch.device) -> Iterator[None]:
    """Raises MemoryTooSmall where the work inside asks for more memory than the device has left, and DeviceLost where
    the device fails: after most of CUDA's errors nothing works any more in the whole process."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryTooSmall(
                f"the memory of {device} ran out: {error}",
                hint="free memory on the device, ask for smaller blocks (--block, --memory), or use --device cpu",
            ) from error
        if any(words in str(error) for words in _LOST):
            raise DeviceLost(
                f"{device} failed: {str(error).strip().splitlines()[0]}",
                hint="run the job again; if the same happens, look at nvidia-smi and the kernel's log for Xid errors",
            ) from error
        raise


def give_back_memory(device: torch.device) -> None:
    """What torch holds of the device's memory and does not use, to whoever else works on it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16 itself; CPUs stay in float32, whatever they can do."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def grown_batch(seconds: Callable[[int], float], first: int, most: int) -> int:
    """The batch, doubled from `first` up to `most`, beyond which more patches at once are hardly faster.

    `seconds` tells how long a batch of so many takes; where that does not fit, it raises what `is_out_of_memory` knows.
    """
    best, best_rate, size = max(1, min(first, most)), 0.0, first
    while size <= most:
        try:
            rate = size / seconds(size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if rate < _GAIN * best_rate:
            break
        best, best_rate, size = size, rate, 2 * size
    return best


class Landing:
    """Arrays on their way from a device."""

    def __init__(self, arrays: Mapping[str, Tensor], landed: Any) -> None:
        self._arrays, self._landed = arrays, landed

    def arrays(self) -> dict[str, NDArray[Any]]:
        """They themselves, once all of them are there."""
        self._landed.synchronize()
        return {name: array.numpy() for name, array in self._arrays.items()}


class Ferry:
    """Carries arrays between the host's page-locked memory and a device, each way on a stream of its own.

    The device's work waits for what it needs and for nothing else: the next batch comes up while it works on this one,
    and results go down while it works on the next. For one thread. Changes over time: what is under way.
    """

    def __init__(self, device: torch.device) -> None:
        self._streams: Any = torch.get_device_module(device)
        if str(device) == device.type != "cpu":  # without an index
            device = torch.device(device.type, self._streams.current_device())
        self._device = device
        self._streams.set_device(device)
        self._up, self._down = self._streams.Stream(), self._streams.Stream()
        self._marks: deque[Any] = deque()

    def another(self) -> Self:
        """One of the same kind, for the thread that asks."""
        return type(self)(self._device)

    def next_batch(self) -> None:
        """To be called before a batch goes up: waits until the device has at most `_UNDER_WAY` others before it."""
        mark = self._event()
        mark.record(self._streams.current_stream(self._device))
        self._marks.append(mark)
        if len(self._marks) > _UNDER_WAY:
            self._marks.popleft().synchronize()

    def up(self, *arrays: NDArray[Any]) -> list[Tensor]:
        """The arrays on the device, for the work that is asked of it from now on."""
        work = self._streams.current_stream(self._device)
        here = [self._locked(torch.from_numpy(array)) for array in arrays]
        with self._streams.stream(self._up):
            there = [array.to(self._device, non_blocking=True) for array in here]
        work.wait_stream(self._up)
        self._keep(there, work)
        return there

    def down(self, arrays: Mapping[str, Tensor]) -> Landing:
        """What the work that has been asked of the device so far makes of `arrays`, by their names.

        Of a device, copies; on a CPU they themselves, so what becomes of them afterwards is seen.
        """
        self._down.wait_stream(self._streams.current_stream(self._device))
        with self._streams.stream(self._down):
            landing = {name: self._copied(array) for name, array in arrays.items()}
            self._keep(list(arrays.values()), self._down)
            landed = self._event()
            landed.record(self._down)
        return Landing(landing, landed)

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked of it."""
        self._streams.synchronize(self._device)

    # What differs where a device has a memory of its own. Torch's allocator of page-locked memory keeps what it lent
    # until the copies from and to it are done, so buffers are used again, and never too early.

    @property
    def apart(self) -> bool:
        """Whether the device has a memory of its own."""
        return self._device.type != "cpu"

    def _event(self) -> Any:
        # Else whoever waits for one spins, on a core that the readers want.
        return self._streams.Event(blocking=True) if self.apart else self._streams.Event()

    def _locked(self, array: Tensor) -> Tensor:
        return array.pin_memory() if self.apart else array

    def _copied(self, array: Tensor) -> Tensor:
        if not self.apart:
            return array
        return torch.empty(array.shape, dtype=array.dtype, pin_memory=True).copy_(array, non_blocking=True)

    def _keep(self, arrays: list[Tensor], stream: Any) -> None:
        """Memory of `arrays` is not given away before `stream` is done with it, whichever stream it came from."""
        for array in arrays if self.apart else ():
            array.record_stream(stream)
