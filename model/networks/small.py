"""Two networks of a handful of layers, for tests, examples and first trials.

Letters: N patches, C bands, H W pixels, K classes.
"""

from torch import Tensor, nn

__all__ = ["Fcn", "Linear"]


class Linear(nn.Module):
    """A 1x1 convolution: every pixel's logits are an affine function of its own bands."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.head = nn.Conv2d(channels, classes, 1)

    def forward(self, patches_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) float32 to logits (N, K, H, W)."""
        logits: Tensor = self.head(patches_NCHW)
        return logits


class Fcn(nn.Module):
    """Two 3x3 convolutions and a 1x1 head: the smallest network that sees a neighbourhood."""

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, patches_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) float32 to logits (N, K, H, W)."""
        logits: Tensor = self.head(self.body(patches_NCHW))
        return logits
