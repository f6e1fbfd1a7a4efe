"""Networks for pictures and vectors, with the layers' shapes of their papers and random weights of a sensible size."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLASSES = 1000


def settled(model: nn.Module, calibration: Tensor | None = None, seed: int = 0) -> nn.Module:
    """The model in eval mode with He-initialised weights and small biases.

    calibration: an input, for batch norms to take their statistics from, so that no activation dies or explodes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)):
                gain = 2.0 if module.weight.shape[0] != CLASSES else 1.0
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, (gain / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0.0, 0.05, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.normal_(0.0, 0.1, generator=generator)
                module.momentum = None  # the average of what is seen
        if calibration is not None:
            for module in model.modules():
                module.train(isinstance(module, nn.BatchNorm2d))
            model(calibration)
    return model.eval()


def picture(batch: int, channels: int, size: int, seed: int = 1) -> Tensor:
    """Random pixels in [-1, 1]."""
    return torch.rand(batch, channels, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def mlp() -> nn.Module:
    layers = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)]
    return settled(nn.Sequential(*layers))


class LeNet(nn.Module):
    """Five layers for 28 x 28 pixels (LeCun et al. 1998), with ReLU and max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(
            nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(torch.flatten(self.features(x), 1)))


def lenet() -> nn.Module:
    return settled(LeNet())


class VGG16(nn.Module):
    """Simonyan and Zisserman 2015, configuration D; ReLUs in place, as torchvision has them."""

    WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)

    def __init__(self, batch_norm: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in self.WIDTHS:
            if width == 0:
                layers.append(nn.MaxPool2d(2))
                continue
            norm = [nn.BatchNorm2d(width)] if batch_norm else []
            layers += [nn.Conv2d(channels, width, 3, padding=1), *norm, nn.ReLU(inplace=True)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            *(nn.Linear(512 * 49, 4096), nn.ReLU(inplace=True), nn.Dropout()),
            *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout()),
            nn.Linear(4096, CLASSES),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.classifier(torch.flatten(self.avgpool(self.features(x)), 1)))


def vgg16() -> nn.Module:
    return settled(VGG16(batch_norm=False))


def vgg16_bn() -> nn.Module:
    return settled(VGG16(batch_norm=True), picture(4, 3, 64))


class Bottleneck(nn.Module):
    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module | None = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += identity
        return cast(Tensor, self.relu(out))


class ResNet50(nn.Module):
    """He et al. 2016, with the stride in the 3 x 3 convolution and the in-place addition, as torchvision has it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.relu, self.maxpool = nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)
        blocks: list[nn.Module] = []
        channels = 64
        for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for index in range(depth):
                blocks.append(Bottleneck(channels, width, stride if index == 0 else 1))
                channels = 4 * width
        self.blocks = nn.Sequential(*blocks)
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return cast(Tensor, self.fc(torch.flatten(self.avgpool(self.blocks(x)), 1)))


def resnet50() -> nn.Module:
    return settled(ResNet50(), picture(4, 3, 64))


class MBConv(nn.Module):
    """An inverted residual without squeeze and excitation, as EfficientNet-Lite has it."""

    def __init__(self, channels: int, width: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = expansion * channels
        widen = [nn.Conv2d(channels, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        self.layers = nn.Sequential(
            *(widen if expansion != 1 else []),
            *(nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False),),
            *(nn.BatchNorm2d(hidden), nn.ReLU6()),
            *(nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width)),
        )
        self.skips = stride == 1 and channels == width

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return out + x if self.skips else out


class EfficientNetLite0(nn.Module):
    """EfficientNet-B0 (Tan and Le 2019) with ReLU6 and without squeeze and excitation."""

    # depth, kernel, stride, expansion, width
    STAGES = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112))
    LAST_STAGES = ((4, 5, 2, 6, 192), (1, 3, 1, 6, 320))

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6()]
        channels = 32
        for depth, kernel, stride, expansion, width in (*self.STAGES, *self.LAST_STAGES):
            for index in range(depth):
                layers.append(MBConv(channels, width, kernel, stride if index == 0 else 1, expansion))
                channels = width
        layers += [nn.Conv2d(channels, 1280, 1, bias=False), nn.BatchNorm2d(1280), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.features(x)))


def efficientnet_lite0() -> nn.Module:
    return settled(EfficientNetLite0(), picture(4, 3, 64))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of (batch, channels, height, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.layers = nn.Sequential(
            nn.LayerNorm(width, eps=1e-6), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * out).permute(0, 3, 1, 2)


class ConvNeXtTiny(nn.Module):
    """Liu et al. 2022: 3, 3, 9, 3 blocks of 96, 192, 384, 768 channels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 96, 4, 4), ChannelNorm(96, eps=1e-6)]
        channels = 96
        for width, depth in ((96, 3), (192, 3), (384, 9), (768, 3)):
            if width != channels:
                layers += [ChannelNorm(channels, eps=1e-6), nn.Conv2d(channels, width, 2, 2)]
                channels = width
            layers += [ConvNeXtBlock(width) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(channels, eps=1e-6), nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.head(self.norm(self.features(x).mean((-2, -1)))))


def convnext_tiny() -> nn.Module:
    return settled(ConvNeXtTiny())


class DoubleConv(nn.Sequential):
    def __init__(self, channels: int, width: int) -> None:
        layers: list[nn.Module] = []
        for before in (channels, width):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """Ronneberger et al. 2015 with padded convolutions and batch norm; scores per pixel (batch, 2, height, width)."""

    def __init__(self, widths: tuple[int, ...] = (32, 64, 128, 256)) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.start = DoubleConv(3, widths[0])
        self.down = nn.ModuleList(DoubleConv(narrow, wide) for narrow, wide in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for narrow, wide in reversed(pairs))
        self.merge = nn.ModuleList(DoubleConv(wide, narrow) for narrow, wide in reversed(pairs))
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.start(x)]
        for block in self.down:
            levels.append(block(F.max_pool2d(levels[-1], 2)))
        out = levels.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            out = merge(torch.cat([levels.pop(), up(out)], 1))
        return cast(Tensor, self.head(out))


def unet() -> nn.Module:
    return settled(UNet(), picture(2, 3, 64))


def deep_convolutions(depth: int, width: int = 32) -> nn.Module:
    """`depth` layers of 3 x 3 convolutions with ReLU, and a head."""
    layers: list[nn.Module] = []
    for index in range(depth):
        layers += [nn.Conv2d(3 if index == 0 else width, width, 3, padding=1), nn.ReLU()]
    return settled(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)))


def without_in_place(model: nn.Module) -> nn.Module:
    """The same model with all activations out of place."""
    module: Any
    for module in model.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    return model
