"""Small models written by hand the way users write them, none adapted to relprop."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Model = Callable[..., Any]
Example = Tensor | tuple[Tensor, ...] | dict[str, Tensor]
Factory = Callable[[bool], tuple[Model, Example]]


class MLP(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(12, 16, bias=bias),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(16, 10, bias=bias),
            nn.ReLU(),
            nn.Linear(10, 4, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LeNet(nn.Module):
    """Functional activations and pools, a view between convolutions and linear layers."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 5, bias=bias)
        self.conv2 = nn.Conv2d(4, 6, 5, bias=bias)
        self.fc1 = nn.Linear(6 * 4 * 4, 20, bias=bias)
        self.fc2 = nn.Linear(20, 10, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(torch.relu(self.conv2(x)), (2, 2))
        x = x.view(-1, self.num_flat_features(x))
        return self.fc2(F.relu(self.fc1(x)))

    def num_flat_features(self, x: Tensor) -> int:
        size = 1
        for s in x.size()[1:]:
            size *= s
        return size


class VGG(nn.Module):
    """torchvision's VGG in small, with or without batch norm, in-place ReLUs."""

    def __init__(self, bias: bool, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (6, "M", 8, 8, "M"):
            if width == "M":
                layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
                continue
            layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=bias))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((3, 3))
        self.classifier = nn.Sequential(
            nn.Linear(channels * 9, 16, bias=bias),
            nn.ReLU(True),
            nn.Dropout(),
            nn.Linear(16, 5, bias=bias),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = self.avgpool(x)
        x = torch.flatten(x, 1)
        return self.classifier(x)


class BasicBlock(nn.Module):
    """One ReLU module used twice, a functional in-place addition."""

    def __init__(self, channels: int, width: int, stride: int, bias: bool) -> None:
        super().__init__()
        # Batch norms are registered before the convolutions: registration order says nothing about the graph.
        self.bn1 = nn.BatchNorm2d(width)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=bias)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride=stride, bias=bias), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """A grouped bottleneck with an out-of-place addition."""

    def __init__(self, channels: int, width: int, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=2, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=bias)
        self.bn3 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu_(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + x)


class ResNet(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 7, stride=2, padding=3, bias=bias)
        self.bn1 = nn.BatchNorm2d(6)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(6, 6, 1, bias), BasicBlock(6, 6, 1, bias))
        self.layer2 = nn.Sequential(BasicBlock(6, 8, 2, bias), Bottleneck(8, 4, bias))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        x = torch.flatten(self.avgpool(x), 1)
        return self.fc(x)


class DenseLayer(nn.Module):
    """Pre-activation: BN, ReLU, convolution, on everything computed so far."""

    def __init__(self, channels: int, growth: int, bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, 2 * growth, 1, bias=bias)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=bias)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = torch.cat(features, 1)
        x = self.conv1(F.relu(self.norm1(x)))
        return self.conv2(F.relu(self.norm2(x)))


class DenseNet(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
        self.block1 = nn.ModuleList(DenseLayer(4 + 3 * k, 3, bias) for k in range(2))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(10), nn.ReLU(inplace=True), nn.Conv2d(10, 5, 1, bias=bias), nn.AvgPool2d(2, stride=2)
        )
        self.block2 = nn.ModuleList(DenseLayer(5 + 3 * k, 3, bias) for k in range(2))
        self.norm = nn.BatchNorm2d(11)
        self.classifier = nn.Linear(11, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.block1:
            features.append(layer(features))
        features = [self.transition(torch.cat(features, 1))]
        for layer in self.block2:
            features.append(layer(features))
        x = F.relu(self.norm(torch.cat(features, 1)), inplace=True)
        x = F.adaptive_avg_pool2d(x, (1, 1)).flatten(1)
        return self.classifier(x)


class ConvBN(nn.Module):
    def __init__(self, channels: int, width: int, kernel: int | tuple[int, int], bias: bool, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel, bias=bias, **options)
        self.bn = nn.BatchNorm2d(width, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class InceptionBlock(nn.Module):
    """Four branches; asymmetric kernels; an average pool that does not count its border."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(channels, 3, 1, bias)
        self.branch7x7_1 = ConvBN(channels, 2, 1, bias)
        self.branch7x7_2 = ConvBN(2, 3, (1, 5), bias, padding=(0, 2))
        self.branch7x7_3 = ConvBN(3, 3, (5, 1), bias, padding=(2, 0))
        self.branch_pool = ConvBN(channels, 2, 1, bias)

    def forward(self, x: Tensor) -> Tensor:
        branch7x7 = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        branch_pool = F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)
        pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1)
        return torch.cat([self.branch1x1(x), branch7x7, self.branch_pool(branch_pool), pooled], 1)


class Inception(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.stem = ConvBN(3, 4, 3, bias, stride=2)
        self.mixed1 = InceptionBlock(4, bias)
        self.mixed2 = InceptionBlock(12, bias)
        self.fc = nn.Linear(20, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixed2(self.mixed1(self.stem(x)))
        return self.fc(x.mean([2, 3]))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, linear projection."""

    def __init__(self, channels: int, width: int, stride: int, expand: int, bias: bool) -> None:
        super().__init__()
        hidden = channels * expand
        self.use_res_connect = stride == 1 and channels == width
        self.conv = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=bias),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=bias),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, width, 1, bias=bias),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.use_res_connect:
            return x + self.conv(x)
        return self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=bias),
            nn.BatchNorm2d(4),
            nn.ReLU6(inplace=True),
            InvertedResidual(4, 4, 1, 2, bias),
            InvertedResidual(4, 6, 2, 2, bias),
            InvertedResidual(6, 6, 1, 2, bias),
        )
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(6, 5, bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        x = nn.functional.adaptive_avg_pool2d(x, (1, 1))
        x = torch.flatten(x, 1)
        return self.classifier(x)


class SqueezeExcite(nn.Module):
    """A sigmoid gate per channel; the signal is what it scales."""

    def __init__(self, channels: int, reduced: int, bias: bool) -> None:
        super().__init__()
        self.conv_reduce = nn.Conv2d(channels, reduced, 1, bias=bias)
        self.conv_expand = nn.Conv2d(reduced, channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        scale = F.adaptive_avg_pool2d(x, 1)
        scale = self.conv_expand(F.silu(self.conv_reduce(scale)))
        return torch.sigmoid(scale) * x


class MBConv(nn.Module):
    def __init__(self, channels: int, width: int, stride: int, bias: bool) -> None:
        super().__init__()
        hidden = 2 * channels
        self.expand = nn.Conv2d(channels, hidden, 1, bias=bias)
        self.bn0 = nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=bias)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.se = SqueezeExcite(hidden, 2, bias)
        self.project = nn.Conv2d(hidden, width, 1, bias=bias)
        self.bn2 = nn.BatchNorm2d(width)
        self.act = nn.SiLU(inplace=True)
        self.skip = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        out = self.act(self.bn0(self.expand(x)))
        out = self.act(self.bn1(self.depthwise(out)))
        out = self.bn2(self.project(self.se(out)))
        if self.skip:
            out = out + x
        return out


class EfficientNet(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=bias), nn.BatchNorm2d(4), nn.SiLU())
        self.blocks = nn.Sequential(MBConv(4, 4, 1, bias), MBConv(4, 6, 2, bias), MBConv(6, 6, 1, bias))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(6, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.fc(self.pool(x).squeeze(-1).squeeze(-1))


class LayerNorm2d(nn.LayerNorm):
    """Channels-first layer norm through two permutations."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7 x 7, channels-last linear layers, LayerScale, residual."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels, bias=bias)
        self.norm = nn.LayerNorm(channels, eps=1e-6, bias=bias)
        self.pwconv1 = nn.Linear(channels, 4 * channels, bias=bias)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * channels, channels, bias=bias)
        self.gamma = nn.Parameter(torch.linspace(-0.5, 1.0, channels))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x
        x = self.dwconv(x).permute(0, 2, 3, 1)
        x = self.pwconv2(self.act(self.pwconv1(self.norm(x))))
        x = self.gamma * x
        return shortcut + x.permute(0, 3, 1, 2)


class ConvNeXt(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4, bias=bias), LayerNorm2d(4, eps=1e-6, bias=bias))
        self.stage1 = ConvNeXtBlock(4, bias)
        self.down = nn.Sequential(LayerNorm2d(4, eps=1e-6, bias=bias), nn.Conv2d(4, 6, 2, stride=2, bias=bias))
        self.stage2 = ConvNeXtBlock(6, bias)
        self.norm = nn.LayerNorm(6, eps=1e-6, bias=bias)
        self.head = nn.Linear(6, 5, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stage2(self.down(self.stage1(self.stem(x))))
        return self.head(self.norm(x.mean([-2, -1])))


class DoubleConv(nn.Module):
    def __init__(self, channels: int, width: int, bias: bool) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1, bias=bias),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, padding=1, bias=bias),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class UNet(nn.Module):
    """Up once by a transposed convolution, once by interpolation; an odd size needs padding; (batch, classes, H, W)."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.inc = DoubleConv(1, 3, bias)
        self.down1 = DoubleConv(3, 4, bias)
        self.down2 = DoubleConv(4, 6, bias)
        self.up1 = nn.ConvTranspose2d(6, 4, kernel_size=2, stride=2, bias=bias)
        self.conv1 = DoubleConv(8, 4, bias)
        self.conv2 = DoubleConv(7, 3, bias)
        self.outc = nn.Conv2d(3, 3, kernel_size=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x1 = self.inc(x)
        x2 = self.down1(F.max_pool2d(x1, 2))
        x3 = self.down2(F.max_pool2d(x2, 2))
        up = self.up1(x3)
        up = F.pad(up, [0, x2.size(3) - up.size(3), 0, x2.size(2) - up.size(2)])
        up = self.conv1(torch.cat([x2, up], dim=1))
        up = F.interpolate(up, size=x1.shape[2:], mode="bilinear", align_corners=False)
        return self.outc(self.conv2(torch.cat([x1, up], dim=1)))


class ConvNet1d(nn.Module):
    """A signal classifier: dilated convolutions, BatchNorm1d, pools, the mean over time."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(2, 4, 5, padding="same", bias=bias)
        self.bn1 = nn.BatchNorm1d(4)
        self.conv2 = nn.Conv1d(4, 6, 3, dilation=2, bias=bias)
        self.fc = nn.Linear(6, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = F.max_pool1d(x, 2)
        x = self.conv2(x).relu_()
        return self.fc(x.mean(dim=-1))


class ConvNet3d(nn.Module):
    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(1, 3, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm3d(3)
        self.pool = nn.MaxPool3d(2)
        self.conv2 = nn.Conv3d(3, 4, (1, 3, 3), bias=bias)
        self.fc = nn.Linear(4, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.leaky_relu(self.bn1(self.conv1(x)), 0.1))
        x = F.avg_pool3d(F.relu(self.conv2(x)), (1, 2, 2))
        return self.fc(x.amax(dim=(2, 3, 4)))


class Siamese(nn.Module):
    """One encoder for two inputs, and the features side by side and subtracted."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, bias=bias),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 6, bias=bias),
        )
        self.head = nn.Linear(18, 2, bias=bias)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.encoder(left), self.encoder(right)
        return self.head(torch.cat([a, b, a - b], dim=-1))


class TwoInputs(nn.Module):
    """An image and a vector of other measurements, given by name."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=bias)
        self.tabular = nn.Linear(5, 4, bias=bias)
        self.joint = nn.Linear(4, 8, bias=bias)
        self.out = nn.Linear(8, 3, bias=bias)

    def forward(self, image: Tensor, measurements: Tensor) -> Tensor:
        features = F.relu(self.conv(image)).mean((2, 3))
        joint = features + self.tabular(measurements)
        return self.out(F.relu(self.joint(joint)))


class ParametersOnly(nn.Module):
    """No submodule: the parameters are used in functional calls and matrix products."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 1, 3, 3) * 0.3)
        self.w1 = nn.Parameter(torch.randn(16, 8) * 0.3)
        self.w2 = nn.Parameter(torch.randn(8, 3) * 0.3)
        self.b1 = nn.Parameter(torch.randn(8) * 0.1 if bias else torch.zeros(8))

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(torch.conv2d(x, self.kernel, stride=2).clamp(min=0), 2)
        x = torch.relu(x.reshape(x.shape[0], -1) @ self.w1 + self.b1)
        return x.matmul(self.w2)


def plain_function(bias: bool) -> Callable[[Tensor], Tensor]:
    """A model that is a Python function over tensors, no nn.Module at all."""
    generator = torch.Generator().manual_seed(7)
    w1, w2, w3 = (torch.randn(*shape, generator=generator) / 3 for shape in ((4, 1, 3, 3), (8, 64), (3, 8)))
    b1 = torch.randn(4, generator=generator) * 0.1 if bias else None

    def predict(x: Tensor) -> Tensor:
        cast = [None if t is None else t.to(x.dtype) for t in (w1, b1, w2, w3)]
        h = F.relu(F.conv2d(x, cast[0], cast[1], stride=2, padding=1))
        h = F.relu(F.linear(torch.flatten(h, 1), cast[2]))
        return F.linear(h, cast[3])

    return predict


class DictOutput(nn.Module):
    """Returns a dictionary, as detection and language models do."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.body = nn.Linear(6, 8, bias=bias)
        self.head = nn.Linear(8, 3, bias=bias)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        features = F.relu(self.body(x))
        return {"logits": self.head(features), "features": features}


class TupleOutput(DictOutput):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        result = super().forward(x)
        return result["logits"], result["features"]


@dataclass
class Prediction:
    logits: Tensor
    features: Tensor | None = None


class DataclassOutput(DictOutput):
    def forward(self, x: Tensor) -> Prediction:  # type: ignore[override]
        return Prediction(**super().forward(x))


class HandwrittenBatchNorm(nn.Module):
    """Batch norm as the formula on buffers: once out of place, once in place."""

    mean: Tensor
    var: Tensor

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3, padding=1, bias=bias)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=bias)
        self.fc = nn.Linear(4, 3, bias=bias)
        self.weight = nn.Parameter(torch.tensor([1.2, -0.7, 0.5, 1.0]))
        self.bias = nn.Parameter(torch.tensor([0.1, -0.2, 0.3, 0.0]) * bias)
        self.register_buffer("mean", torch.tensor([0.2, -0.1, 0.0, 0.3]) * bias)
        self.register_buffer("var", torch.tensor([0.5, 1.5, 0.8, 1.1]))

    def forward(self, x: Tensor) -> Tensor:
        scale = (self.weight / torch.sqrt(self.var + 1e-5)).reshape(1, -1, 1, 1)
        shift = self.bias[None, :, None, None] - self.mean.view(1, -1, 1, 1) * scale
        x = F.relu(self.conv1(x) * scale + shift)
        x = self.conv2(x)
        x -= self.mean[:, None, None]
        x /= (self.var[:, None, None] + 1e-5).sqrt()
        x *= self.weight[:, None, None]
        x += self.bias[:, None, None]
        x.relu_()
        return self.fc(x.mean((-1, -2)))


class Squashed(nn.Module):
    """A classifier whose forward ends in softmax, log_softmax or sigmoid."""

    def __init__(self, bias: bool, squash: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 8, bias=bias)
        self.fc2 = nn.Linear(8, 3, bias=bias)
        self.squash = squash

    def forward(self, x: Tensor) -> Tensor:
        return self.squash(self.fc2(F.relu(self.fc1(x))))


class ChannelAttention(nn.Module):
    """One small network on two summaries of the same map (CBAM); the features times the weights, in that order."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1, bias=bias)
        self.shared = nn.Sequential(nn.Linear(6, 3, bias=bias), nn.ReLU(), nn.Linear(3, 6, bias=bias))
        self.spatial = nn.Conv2d(2, 1, 3, padding=1, bias=bias)
        self.fc = nn.Linear(6, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        w = torch.sigmoid(self.shared(x.mean((2, 3))) + self.shared(x.amax((2, 3))))
        x = x * w[:, :, None, None]
        summary = torch.cat([x.mean(1, keepdim=True), x.max(dim=1, keepdim=True)[0]], dim=1)
        x = x * self.spatial(summary).sigmoid()
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Checkpointed(nn.Module):
    """Activations are recomputed in the backward pass."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1, bias=bias)
        self.block = nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, bias=bias), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 1, bias=bias)
        )
        self.fc = nn.Linear(4, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + checkpoint(self.block, x, use_reentrant=False)
        return self.fc(F.relu(x).mean((2, 3)))


WEIGHTED = (nn.Linear, nn.modules.conv._ConvNd)


def settle(model: nn.Module, bias: bool) -> nn.Module:
    """The model in eval mode, its values of order one, so that scores depend on the input more than on biases.

    Some batch-norm scales are negative; its shifts are zero where bias is False.
    """
    generator = torch.Generator().manual_seed(11)

    def normal(like: Tensor, scale: float) -> Tensor:
        return torch.randn(like.shape, generator=generator) * scale

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, WEIGHTED):
                fan_in = module.weight[0].numel()
                module.weight.copy_(normal(module.weight, (2 / fan_in) ** 0.5))
                if module.bias is not None:
                    module.bias.copy_(normal(module.bias, 0.1))
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                magnitude = 0.7 + 0.6 * torch.rand(module.weight.shape, generator=generator)
                module.weight.copy_(magnitude * torch.where(normal(magnitude, 1.0) < -0.7, -1.0, 1.0))
                module.running_var.copy_(0.5 + torch.rand(magnitude.shape, generator=generator))
                module.bias.copy_(normal(magnitude, 0.2) * bias)
                module.running_mean.copy_(normal(magnitude, 0.2) * bias)
            elif isinstance(module, nn.LayerNorm):
                module.weight.copy_(1 + normal(module.weight, 0.3))
                if module.bias is not None:
                    module.bias.copy_(normal(module.bias, 0.2))
    return model.eval()


def example(*shape: int, seed: int = 3) -> Tensor:
    """A batch of two inputs."""
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(seed))


def factory(build: Callable[[bool], nn.Module], *shapes: tuple[int, ...], names: tuple[str, ...] = ()) -> Factory:
    """Builds the seeded model, and one input of each shape: a tensor, a tuple, or by their names a dictionary."""

    def make(bias: bool) -> tuple[Model, Example]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            model = settle(build(bias), bias)
        inputs = tuple(example(*shape, seed=3 + k) for k, shape in enumerate(shapes))
        if names:
            return model, dict(zip(names, inputs, strict=True))
        return model, inputs[0] if len(inputs) == 1 else inputs

    return make


ARCHITECTURES: dict[str, Factory] = {
    "mlp": factory(MLP, (12,)),
    "lenet": factory(LeNet, (1, 28, 28)),
    "vgg": factory(lambda bias: VGG(bias, batch_norm=False), (3, 16, 16)),
    "vgg_bn": factory(lambda bias: VGG(bias, batch_norm=True), (3, 16, 16)),
    "resnet": factory(ResNet, (3, 32, 32)),
    "densenet": factory(DenseNet, (3, 8, 8)),
    "inception": factory(Inception, (3, 15, 15)),
    "mobilenet_v2": factory(MobileNetV2, (3, 16, 16)),
    "efficientnet": factory(EfficientNet, (3, 16, 16)),
    "convnext": factory(ConvNeXt, (3, 32, 32)),
    "unet": factory(UNet, (1, 18, 14)),
    "conv1d": factory(ConvNet1d, (2, 24)),
    "conv3d": factory(ConvNet3d, (1, 4, 12, 12)),
    "siamese": factory(Siamese, (1, 10, 10), (1, 10, 10)),
    "two_inputs": factory(TwoInputs, (3, 8, 8), (5,), names=("image", "measurements")),
    "parameters_only": factory(ParametersOnly, (1, 10, 10)),
    "plain_function": lambda bias: (plain_function(bias), example(1, 8, 8)),
    "dict_output": factory(DictOutput, (6,)),
    "tuple_output": factory(TupleOutput, (6,)),
    "dataclass_output": factory(DataclassOutput, (6,)),
    "handwritten_batch_norm": factory(HandwrittenBatchNorm, (2, 7, 7)),
    "softmax": factory(lambda bias: Squashed(bias, nn.Softmax(dim=-1)), (6,)),
    "log_softmax": factory(lambda bias: Squashed(bias, lambda z: F.log_softmax(z, dim=1)), (6,)),
    "sigmoid": factory(lambda bias: Squashed(bias, torch.sigmoid), (6,)),
    "channel_attention": factory(ChannelAttention, (3, 8, 8)),
    "checkpoint": factory(Checkpointed, (1, 8, 8)),
}
"""name -> factory(bias) -> (model in eval mode, a batch of two as model(x), model(*x) or model(**x) takes it), float32.

With bias=False nothing in the model adds a constant: no biases, batch norms with zero mean and shift.
"""

RELU_NETS: set[str] = {
    "mlp", "lenet", "vgg", "vgg_bn", "resnet", "densenet", "inception", "unet", "conv1d", "conv3d", "siamese",
    "two_inputs", "parameters_only", "plain_function", "dict_output", "tuple_output", "dataclass_output",
    "handwritten_batch_norm", "checkpoint",
}  # fmt: skip
"""Piecewise linear models, whose every activation f has f(z) = f'(z) z: LRP-0 is gradient x input, with biases too.

ReLU6 is not among them (above 6 its slope is 0, its value 6), nor are gates, GELU, SiLU and layer norm; the three that
end in a squashing function are piecewise linear before it.
"""


class DoubledGradient(torch.autograd.Function):
    """A function of the user's own, whose forward leaves torch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy().clip(min=0))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * grad * (x > 0)


class CustomFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(6, 8)
        self.fc2 = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(DoubledGradient.apply(self.fc1(x)))


def traced() -> tuple[Model, Example]:
    model, x = ARCHITECTURES["mlp"](True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model, x), x


def scripted() -> tuple[Model, Example]:
    model, x = ARCHITECTURES["dict_output"](True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(model), x


def quantised() -> tuple[Model, Example]:
    model, x = ARCHITECTURES["mlp"](True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8), x


REFUSED: dict[str, Callable[[], tuple[Model, Example]]] = {
    "custom_function": lambda: factory(lambda bias: CustomFunction(), (6,))(True),
    "traced": traced,
    "scripted": scripted,
}
"""Models that must be refused with an error rather than explained wrongly; float32."""

if hasattr(torch.ao.quantization, "quantize_dynamic"):
    REFUSED["quantised"] = quantised


def apply(model: Model, x: Example) -> Any:
    """The model's output for an example as the registry gives it."""
    if isinstance(x, dict):
        return model(**x)
    return model(*x) if isinstance(x, tuple) else model(x)


def in_float64(model: Model, x: Example) -> tuple[Model, Example]:
    """The model (converted itself) and its example in float64."""
    if isinstance(model, nn.Module):
        model.double()
    if isinstance(x, dict):
        return model, {name: t.double() for name, t in x.items()}
    return model, tuple(t.double() for t in x) if isinstance(x, tuple) else x.double()
