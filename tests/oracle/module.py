"""A network as the nn.Module a user would write."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .network import FUNCTIONS, Network, Node, run


def as_module(network: Network) -> nn.Module:
    """The network as an ordinary nn.Module in eval mode, its submodules named by `Network.name`."""
    return Written(network).eval()


class Functional(nn.Module):
    """An operation called through torch.nn.functional, its tensors held as parameters or buffers."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.op, self.options, self.names = node.op, dict(node.options), list(node.tensors)
        for name, tensor in node.tensors.items():
            if name in ("weight", "bias"):
                self.register_parameter(name, nn.Parameter(tensor.clone()))
            else:
                self.register_buffer(name, tensor.clone())

    def forward(self, *x: Tensor) -> Tensor:
        result: Tensor = FUNCTIONS[self.op](*x, **self.options, **{name: getattr(self, name) for name in self.names})
        return result


class Constant(nn.Module):
    """`x * c` or `x + c` with a buffer, in place where asked."""

    constant: Tensor

    def __init__(self, node: Node) -> None:
        super().__init__()
        self.op, self.inplace = node.op, node.style == "inplace"
        self.register_buffer("constant", node.tensors["constant"].clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.op == "constant_minus":
            return self.constant - x
        if self.inplace:
            return x.mul_(self.constant) if self.op == "mul_constant" else x.add_(self.constant)
        return x * self.constant if self.op == "mul_constant" else x + self.constant


class Written(nn.Module):
    """The network's forward as one loop over its nodes."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        for index, node in enumerate(network.nodes):
            if not hasattr(self, network.name(index)):
                submodule = build(node)
                if submodule is not None:
                    self.add_module(network.name(index), submodule)

    def forward(self, *inputs: Tensor) -> Tensor:
        given = iter(inputs)
        value: list[Tensor] = []
        for index, node in enumerate(self.network.nodes):
            if node.op == "input":
                value.append(next(given))
                continue
            x = [value[i] for i in node.inputs]
            submodule = getattr(self, self.network.name(index), None)
            value.append(call(node, *x) if submodule is None else submodule(*x))
        return value[-1]


def call(node: Node, *x: Tensor) -> Tensor:
    """A node without a module of its own, as a line of the forward."""
    if node.style == "inplace":
        first, *rest = x
        if node.op == "add":
            for other in rest:
                first += other
            return first
        if node.op == "sub":
            first -= rest[0]
            return first
        if node.op == "relu":
            return first.relu_()
    return run(node, *x)


ACTIVATION_MODULES: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
}

POOL_MODULES: dict[str, type[nn.Module]] = {
    "avg_pool1d": nn.AvgPool1d,
    "avg_pool2d": nn.AvgPool2d,
    "avg_pool3d": nn.AvgPool3d,
    "adaptive_avg_pool1d": nn.AdaptiveAvgPool1d,
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d,
    "max_pool1d": nn.MaxPool1d,
    "max_pool2d": nn.MaxPool2d,
    "max_pool3d": nn.MaxPool3d,
    "flatten": nn.Flatten,
}

CONV_MODULES: dict[str, Any] = {
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "conv_transpose1d": nn.ConvTranspose1d,
    "conv_transpose2d": nn.ConvTranspose2d,
    "conv_transpose3d": nn.ConvTranspose3d,
}

NORM_MODULES: dict[str, Any] = {
    "batch_norm1d": nn.BatchNorm1d,
    "batch_norm2d": nn.BatchNorm2d,
    "batch_norm3d": nn.BatchNorm3d,
    "layer_norm": nn.LayerNorm,
    "group_norm": nn.GroupNorm,
    "rms_norm": nn.RMSNorm,
}


def build(node: Node) -> nn.Module | None:
    """The submodule that a user would register for the node; None where the forward calls a function."""
    if node.op in ("add_constant", "mul_constant", "constant_minus"):
        return Constant(node)
    if node.style == "inplace_module":
        return nn.ReLU(inplace=True)
    if node.style != "module":
        return Functional(node) if node.tensors else None
    if node.op in ACTIVATION_MODULES:
        return ACTIVATION_MODULES[node.op]()
    if node.op in POOL_MODULES:
        return POOL_MODULES[node.op](**node.options)
    if node.op == "linear":
        out_features, in_features = node.tensors["weight"].shape
        return loaded(nn.Linear(in_features, out_features, bias="bias" in node.tensors), node)
    if node.op in CONV_MODULES:
        weight, groups = node.tensors["weight"], node.options.get("groups", 1)
        channels = (weight.shape[0], weight.shape[1] * groups)
        if "transpose" not in node.op:
            channels = (channels[1], channels[0])
        kernel = tuple(weight.shape[2:])
        return loaded(CONV_MODULES[node.op](*channels, kernel, bias="bias" in node.tensors, **node.options), node)
    if node.op in NORM_MODULES and (node.op != "group_norm" or node.tensors):
        return loaded(normaliser(node), node)
    return Functional(node) if node.tensors else None


def normaliser(node: Node) -> nn.Module:
    """An unloaded batch, layer, group or RMS norm."""
    build_norm, eps = NORM_MODULES[node.op], node.options["eps"]
    learned = "weight" in node.tensors
    if node.op.startswith("batch_norm"):
        module: nn.Module = build_norm(len(node.tensors["running_mean"]), eps=eps, affine=learned)
    elif node.op == "group_norm":
        module = build_norm(node.options["num_groups"], len(node.tensors["weight"]), eps=eps)
    elif node.op == "layer_norm":
        shape = node.options["normalized_shape"]
        module = build_norm(shape, eps=eps, elementwise_affine=learned, bias="bias" in node.tensors)
    else:
        module = build_norm(node.options["normalized_shape"], eps=eps, elementwise_affine=learned)
    return module


def loaded(module: nn.Module, node: Node) -> nn.Module:
    """The module with the node's parameters, in float64."""
    module.double().load_state_dict(dict(node.tensors), strict=False)
    return module
