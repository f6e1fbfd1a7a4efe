"""A recording as a Python function with little around each of its steps."""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule

aten = torch.ops.aten

# Called through Python's bindings of torch, an operation costs some microseconds less than through torch.ops.
_DIRECT: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: torch.add,
    aten.add_.Tensor: Tensor.add_,
    aten.addmm.default: torch.addmm,
    aten.bmm.default: torch.bmm,
    aten.clone.default: torch.clone,
    aten.convolution.default: torch.convolution,
    aten.copysign.Tensor: torch.copysign,
    aten.detach.default: Tensor.detach,
    aten.div.Tensor: torch.div,
    aten.div.out: torch.div,
    aten.div_.Tensor: Tensor.div_,
    aten.gather.default: torch.gather,
    aten.mm.default: torch.mm,
    aten.mul.Tensor: torch.mul,
    aten.mul.out: torch.mul,
    aten.mul_.Tensor: Tensor.mul_,
    aten.new_zeros.default: Tensor.new_zeros,
    aten.permute.default: torch.permute,
    aten.relu.default: torch.relu,
    aten.scatter_add.default: torch.scatter_add,
    aten.select.int: torch.select,
    aten.sigmoid.default: torch.sigmoid,
    aten.sub.Tensor: torch.sub,
    aten.t.default: torch.t,
    aten.tanh.default: torch.tanh,
    aten.transpose.int: torch.transpose,
    aten.unsqueeze.default: torch.unsqueeze,
    aten.view.default: Tensor.view,
}


def function_of(recording: GraphModule) -> Callable[..., Any]:
    """What the recording computes, the same to the last bit, as a plain function of its arguments."""
    graph = Graph()
    graph.output(graph.graph_copy(recording.graph, {}))
    constants = SimpleNamespace(**dict(recording.named_buffers()))
    for node in graph.find_nodes(op="call_function", target=aten.t.default):
        constant = node.args[0]
        if constant.op == "get_attr":
            name = f"{constant.target}_t"
            setattr(constants, name, getattr(constants, constant.target).t())
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.create_node("get_attr", name, name=name))
    graph.eliminate_dead_code()  # before what writes to memory is hidden from it under another name
    for node in graph.nodes:
        if node.op == "call_function":
            node.target = _DIRECT.get(node.target, node.target)
    code = graph.python_code("self")
    made: dict[str, Any] = dict(code.globals)
    exec(code.src, made)
    return MethodType(made["forward"], constants)
