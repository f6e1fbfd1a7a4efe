"""The networks of the zoo: two classifiers of handwritten digits, written as anybody would write them."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

DIGITS = ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


class MnistMLP(nn.Module):
    """Three linear layers, 784-300-100-10, with ReLU between them (266,610 parameters).

    Input (batch, 1, 28, 28) in [-1, 1], output (batch, 10): logits, without a softmax.
    """

    labels: tuple[str, ...] = DIGITS

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(28 * 28, 300)
        self.linear2 = nn.Linear(300, 100)
        self.linear3 = nn.Linear(100, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        x = F.relu(self.linear1(x))
        x = F.relu(self.linear2(x))
        return self.linear3(x)  # type: ignore[no-any-return]


class MnistCNN(nn.Module):
    """Two 5 x 5 convolutions with ReLU and max pooling, then two linear layers (129,194 parameters).

    Input (batch, 1, 28, 28) in [-1, 1], output (batch, 10): logits, without a softmax.
    """

    labels: tuple[str, ...] = DIGITS

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, kernel_size=5)
        self.conv2 = nn.Conv2d(24, 48, kernel_size=5)
        self.linear1 = nn.Linear(48 * 4 * 4, 128)
        self.linear2 = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)  # 24 x 12 x 12
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)  # 48 x 4 x 4
        x = F.relu(self.linear1(x.flatten(1)))
        return self.linear2(x)  # type: ignore[no-any-return]
