"""What our own networks are built of: convolutions without bias before a batch norm, and the two residual blocks.

The parts of a block carry timm's names, so that ImageNet weights in those names fit without a table.
Letters: N patches, C channels, H W pixels.
"""

from torch import Tensor, nn
from torch.nn import functional

from model.resample import bilinear

__all__ = ["BasicBlock", "Bottleneck", "conv_norm", "enlarged", "he_normal", "he_normal_weight"]


def conv_norm(
    channels: int, width: int, kernel: int, *, momentum: float, stride: int = 1, relu: bool = True
) -> nn.Sequential:
    """A convolution that keeps the size (but for its stride), batch norm, and ReLU unless it is turned off."""
    layers: list[nn.Module] = [
        nn.Conv2d(channels, width, kernel, stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(width, momentum=momentum),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if relu else []))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside the identity (He et al. 2015, figure 5, left)."""

    def __init__(self, width: int, momentum: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, momentum=momentum)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, momentum=momentum)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y = functional.relu(self.bn1(self.conv1(x_NCHW)), inplace=True)
        return functional.relu(self.bn2(self.conv2(y)) + x_NCHW)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut, the stride in the 3x3; gives four times `width` channels."""

    EXPANSION = 4

    def __init__(self, channels: int, width: int, *, momentum: float, stride: int = 1) -> None:
        super().__init__()
        out = width * self.EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width, momentum=momentum)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width, momentum=momentum)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out, momentum=momentum)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = conv_norm(channels, out, 1, momentum=momentum, stride=stride, relu=False)

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 4 width, H / stride, W / stride), rounded up."""
        y = functional.relu(self.bn1(self.conv1(x_NCHW)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        return functional.relu(self.bn3(self.conv3(y)) + self.downsample(x_NCHW))


def enlarged(x_NCHW: Tensor, like: Tensor) -> Tensor:
    """`x_NCHW` at the height and width of `like`: bilinear, half-pixel centres."""
    return bilinear(x_NCHW, like.shape[-2], like.shape[-1])


def he_normal(module: nn.Module, norm_bias: float) -> None:
    """First weights (foveation-method.md, sections 3 and 7): He-normal by fan-in, norms at weight 1 and `norm_bias`."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            he_normal_weight(part.weight)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.constant_(part.bias, norm_bias)


def he_normal_weight(weight: Tensor) -> None:
    """First values of a convolution's weight: He-normal by fan-in; none where it has no memory.

    On the meta device torch would load its compiler to draw them: 120 MB.
    """
    if not weight.is_meta:
        nn.init.kaiming_normal_(weight, nonlinearity="relu")
