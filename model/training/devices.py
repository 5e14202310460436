"""Where training runs: the device, its precision, and this process's place among those that torchrun started."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from model.device import has_bfloat16

__all__ = ["Place", "placed", "synchronised", "wrapped"]

_PATIENCE = timedelta(days=1)
"""How long processes wait for each other: the first one measures, fits F_theta and publishes while the others do."""


@dataclass(frozen=True)
class Place:
    """One process of training: `rank` of `world`, on `device`.

    `half` is the type of mixed precision; None: float32 throughout, as on every CPU.
    """

    device: torch.device
    rank: int = 0
    world: int = 1
    half: torch.dtype | None = None

    def autocast(self) -> AbstractContextManager[None]:
        if self.half is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.half)

    def as_in_inference(self) -> AbstractContextManager[None]:
        """The precision that a network works in at inference: bfloat16 where the GPU has it, never float16."""
        return self.autocast() if self.half == torch.bfloat16 else nullcontext()

    def summed(self, value: Tensor) -> Tensor:
        """`value` added up over all processes."""
        if self.world > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value


@contextmanager
def placed() -> Iterator[Place]:
    """This process's place: the first GPU where there is one, else the CPU; under torchrun, one of several."""
    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    half = None
    if cuda:
        torch.cuda.set_device(device)
        half = torch.bfloat16 if has_bfloat16(device) else torch.float16
    if world == 1:
        yield Place(device, half=half)
        return
    dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield Place(device, rank, world, half)
    finally:
        dist.destroy_process_group()


def synchronised(net: nn.Module, place: Place) -> nn.Module:
    """`net` on the place's device; batch norms take their statistics over all processes.

    On GPUs alone: torch's synchronised batch norm runs nowhere else. To be done before an optimiser sees the weights.
    """
    net = net.to(place.device).to(memory_format=torch.channels_last)
    if place.world > 1 and place.device.type == "cuda":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return converted
    return net


def wrapped(net: nn.Module, place: Place) -> nn.Module:
    """`net` as this process calls it: itself, or with gradients that are averaged over all processes."""
    if place.world == 1:
        return net
    devices = [place.device] if place.device.type == "cuda" else None
    return DistributedDataParallel(net, device_ids=devices)
