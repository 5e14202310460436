"""HRNetV2 with the one-convolution head: the paper's network for Cityscapes and Gleason2019.

Sun et al. 2019, "High-Resolution Representations for Labeling Pixels and Regions"; shapes and initialisation by
foveation-method.md, section 7. The encoder has timm's names for `hrnet_w18` and `hrnet_w48`; timm enlarges by nearest
neighbour where branches are fused, the method bilinearly to the finer branch's size, so any input size will do.
Letters: N patches, C channels, H W pixels, K classes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.blocks import BasicBlock, Bottleneck, conv_norm, enlarged, he_normal

__all__ = ["HRNet", "HRNetEncoder"]

_MOMENTUM = 0.1
_HEAD_MOMENTUM = 0.001
_BLOCKS = 4
_MODULES = (1, 4, 3)
"""Modules of stages 2, 3 and 4, which have as many branches as their number says."""


class Exchange(nn.Module):
    """One module of a stage: four basic blocks a branch, then every branch receives the sum of all, at its own size."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width, _MOMENTUM) for _ in range(_BLOCKS))) for width in widths
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_path(widths, source, target) for source in range(len(widths)))
            for target in range(len(widths))
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        """One (N, C, H, W) a branch, each about half the size of the one before; the same shapes come back."""
        inner = [block(x) for block, x in zip(self.branches, branches, strict=True)]
        return [self._fused(paths, inner, target) for target, paths in enumerate(self.fuse_layers)]

    def _fused(self, paths: nn.Module, inner: list[Tensor], target: int) -> Tensor:
        assert isinstance(paths, nn.ModuleList)
        total = torch.zeros_like(inner[target])
        for source, (path, x) in enumerate(zip(paths, inner, strict=True)):
            y = path(x)
            total = total + (enlarged(y, inner[target]) if source > target else y)
        return functional.relu(total)


def _path(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """From branch `source` to branch `target`; the enlargement of a coarser one is left to the caller."""
    if source == target:
        return nn.Identity()
    if source > target:
        return conv_norm(widths[source], widths[target], 1, momentum=_MOMENTUM, relu=False)
    steps = [
        conv_norm(widths[source], widths[source], 3, stride=2, momentum=_MOMENTUM) for _ in range(target - source - 1)
    ]
    last = conv_norm(widths[source], widths[target], 3, stride=2, momentum=_MOMENTUM, relu=False)
    return nn.Sequential(*steps, last)


class HRNetEncoder(nn.Module):
    """Four branches of widths `width` * 1, 2, 4, 8 at strides 4, 8, 16, 32, put together at stride 4."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        widths = [width << branch for branch in range(4)]
        self.channels = sum(widths)
        self.conv1 = nn.Conv2d(channels, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64, momentum=_MOMENTUM)
        self.conv2 = nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64, momentum=_MOMENTUM)
        deep = 64 * Bottleneck.EXPANSION
        self.layer1 = nn.Sequential(
            *(Bottleneck(64 if block == 0 else deep, 64, momentum=_MOMENTUM) for block in range(_BLOCKS))
        )
        self.transition1 = nn.ModuleList(
            [conv_norm(deep, widths[0], 3, momentum=_MOMENTUM), _new_branch(deep, widths[1])]
        )
        self.stage2 = _stage(widths[:2], _MODULES[0])
        self.transition2 = nn.ModuleList([nn.Identity(), nn.Identity(), _new_branch(widths[1], widths[2])])
        self.stage3 = _stage(widths[:3], _MODULES[1])
        self.transition3 = nn.ModuleList([*(nn.Identity() for _ in range(3)), _new_branch(widths[2], widths[3])])
        self.stage4 = _stage(widths, _MODULES[2])
        he_normal(self, norm_bias=0.0)

    def forward(self, patches_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to the four branches' features side by side, (N, 15 `width`, H / 4, W / 4), rounded up."""
        branches = self.branches(patches_NCHW)
        return torch.cat([branches[0], *(enlarged(branch, branches[0]) for branch in branches[1:])], dim=1)

    def branches(self, patches_NCHW: Tensor) -> list[Tensor]:
        """The four branches, each at its own size."""
        x = functional.relu(self.bn1(self.conv1(patches_NCHW)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        branches = [self.layer1(x)]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            # A new branch starts from the coarsest one.
            branches = [step(branches[min(k, len(branches) - 1)]) for k, step in enumerate(transition)]
            branches = stage(branches)
        return branches


def _new_branch(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(conv_norm(channels, width, 3, stride=2, momentum=_MOMENTUM))


def _stage(widths: Sequence[int], modules: int) -> nn.Sequential:
    return nn.Sequential(*(Exchange(widths) for _ in range(modules)))


class HRNet(nn.Module):
    """HRNetV2 of the given width and the C1 head: 3x3 to a quarter of the channels, then 1x1 to the classes."""

    def __init__(self, channels: int, classes: int, *, width: int) -> None:
        super().__init__()
        self.encoder = HRNetEncoder(channels, width)
        inner = self.encoder.channels // 4
        self.head = nn.Sequential(
            conv_norm(self.encoder.channels, inner, 3, momentum=_HEAD_MOMENTUM), nn.Conv2d(inner, classes, 1)
        )
        he_normal(self.head, norm_bias=1e-4)

    def forward(self, patches_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) float32 to logits (N, K, H, W); in training mode (N, K, H / 4, W / 4), rounded up."""
        logits: Tensor = self.head(self.encoder(patches_NCHW))
        return logits if self.training else enlarged(logits, patches_NCHW)
