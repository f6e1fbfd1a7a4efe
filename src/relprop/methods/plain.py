"""The plain trace: a forward pass as torch does it, whose inputs can be changed where explanations begin."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from enum import Enum
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from relprop.engine.call import Call
from relprop.engine.operation import Kept, Node, Operation, map_tensors, tensors_in
from relprop.engine.registry import BY_KIND, REGISTRY
from relprop.engine.trace import Input, Trace
from relprop.engine.weights import PreparedWeights
from relprop.errors import TrainingMode

# Where a value is explained: (which of the inputs, which of its embeddings; 0 for an input that is explained itself).
Key = tuple[int, int]
Change = Callable[[Key, Tensor], Tensor]
Observe = Callable[[Call, Any], None]

# Functions that only squash the score when they come last.
_SQUASHING = ("softmax", "log_softmax", "sigmoid", "hardsigmoid")
_DETACHING = ("detach", "detach_copy", "get data")
_RECURRENT = ("lstm", "gru", "rnn_tanh", "rnn_relu")

# Which argument says whether a function runs as in training.
_TRAINING = {
    "dropout": 2,
    "alpha_dropout": 2,
    "feature_dropout": 2,
    "feature_alpha_dropout": 2,
    "native_dropout": 2,
    "rrelu": 3,
    "batch_norm": 5,
}


class Rectified(Enum):
    """What passes a ReLU backwards: the gradient where z > 0 (GRADIENT), of that only what is positive (GUIDED,
    Springenberg et al. 2015), or what is positive, whatever z is (DECONV, Zeiler and Fergus 2014)."""

    GRADIENT = 0
    GUIDED = 1
    DECONV = 2


class PlainTrace(Trace):
    """A forward pass in which every function runs as torch runs it, with torch's own backward.

    change: called with the place and the value of each thing that is explained (an input, an embedding's output);
    returns the value to go on with. gradient: record the graph for autograd. connected: what `change` returns stays
    part of the graph that it comes from. rectified: what passes ReLUs backwards. observe: called with each function
    call that depends on the input, and what it returned.

    As in LRP, no_grad, inference_mode and detach inside of the model hold nothing back.
    """

    def __init__(
        self,
        names: dict[int, str],
        change: Change | None = None,
        *,
        gradient: bool = False,
        connected: bool = False,
        rectified: Rectified = Rectified.GRADIENT,
        observe: Observe | None = None,
    ) -> None:
        super().__init__(names, PreparedWeights())
        self.change = change
        self.gradient = gradient
        self.connected = connected
        self.rectified = rectified
        self.observe = observe
        self.rectifiers = 0
        self._origin = Operation(0, "input", "input", "", None, self.run)
        # The memory of every tensor that depends on the input; a weak reference keeps its address from being reused.
        self._memory: dict[int, StorageWeakRef] = {}
        # For what came out of a softmax or sigmoid: (its version then, the tensor before).
        self._squashed: WeakTensorKeyDictionary = WeakTensorKeyDictionary()

    # ---- inputs

    def _entry(self, x: Tensor, given: Input) -> Tensor:
        with torch._C.DisableTorchFunction():  # what is done to the values here is no part of the model
            key = (self.inputs.index(given), len(given.leaves))
            leaf = x.clone() if x.is_inference() else x.detach()
            if self.change is not None:
                leaf = self.change(key, leaf)
            if not self.connected:
                leaf = leaf.detach().requires_grad_(self.gradient)
            given.leaves.append(leaf)
            out = leaf.clone()  # which the model may overwrite
        self._mark(out)
        return out

    # ---- provenance

    def node(self, tensor: Tensor) -> Node | None:
        """The provenance of a floating-point tensor that depends on the input; None for constants."""
        if not tensor.is_floating_point() or not self.depends(tensor):
            return None
        version, before = self._squashed.get(tensor, (-1, None))  # type: ignore[no-untyped-call]
        unsquashed = before if version == tensor._version else None
        return Node(self._origin, shape=tuple(tensor.shape), device=tensor.device, unsquashed=unsquashed)

    def depends(self, tensor: Tensor) -> bool:
        """Whether a tensor, of whatever type, was computed from the input."""
        return _address(tensor) in self._memory

    def _mark(self, *results: Any) -> None:
        for tensor in tensors_in(*results):
            if _address(tensor) is not None:
                reference = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
                self._memory[reference.cdata] = reference

    # ---- values

    def keep(self, tensor: Tensor) -> Kept:
        return Kept(tensor) if _address(tensor) is None else super().keep(tensor)

    # ---- interception

    def _dispatch(
        self, func: Any, name: str, inplace: bool, tensors: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if not any(self.depends(t) for t in tensors):
            return self._constant(func, name, inplace, tensors, args, kwargs)
        args, kwargs = map_tensors(args, _ordinary), map_tensors(kwargs, _ordinary)
        call = Call(self, func, name, inplace, args, kwargs)
        if isinstance(func, FunctionType) and func not in self._decomposing and not _chooses(func):
            return self._decompose(func, call)
        _require_evaluation(call)
        with torch.set_grad_enabled(self.gradient), self._own_saved_tensors(), _differentiable(call):
            out = self._computed(call)
            if self.observe is not None:
                self.observe(call, out)
        if not name.endswith("_like") and not name.startswith("new_"):  # these copy a form, no value
            self._mark(out, args[0] if inplace else None, kwargs.get("out"))
        return out

    def _computed(self, call: Call) -> Any:
        if call.name in _DETACHING and self.gradient:
            self.notes[f"the gradient passed a detach() in {call.where}: it is that of what the model computes"] = None
            return call.args[0] if call.inplace else call.args[0].view_as(call.args[0])
        before = self._before(call)
        if self.rectified is not Rectified.GRADIENT and _is_relu(call):
            return self._rectify(call)
        if call.inplace:
            self.before_overwrite(call.args[0])
        out = call.func(*call.args, **call.kwargs)
        if before is not None and isinstance(out, Tensor):
            self._squashed[out] = (out._version, before)
            self._mark(before)
        return out

    def _before(self, call: Call) -> Tensor | None:
        """The tensor before a softmax or sigmoid, rearranged as what came out of it is now."""
        first = next((t for t in tensors_in(call.args, call.kwargs) if self.depends(t)), None)
        if first is None:
            return None
        if call.name in _SQUASHING:
            return first.clone() if call.inplace else first
        entry = REGISTRY.get(call.name)
        if call.inplace or entry is None or entry.handler is not BY_KIND["carrier"]:
            return None
        live = [t for t in tensors_in(call.args, call.kwargs) if self.depends(t)]
        node = self.node(first)
        if len(live) != 1 or node is None or node.unsquashed is None:
            return None
        squashed_before = node.unsquashed
        args = map_tensors(call.args, lambda t: squashed_before if t is first else t)
        again = tensors_in(call.func(*args, **call.kwargs))
        return again[0] if len(again) == 1 else None

    def _rectify(self, call: Call) -> Tensor:
        """A ReLU with another backward; one in place is written back, so that views of its target follow."""
        self.rectifiers += 1
        z: Tensor = call.args[0]
        source = call.run() if self.rectified is Rectified.GUIDED else z
        value = source if self.rectified is Rectified.GUIDED else call.run((z.detach(), *call.args[1:]))
        out: Tensor = _PassPositive.apply(source, value.detach())  # type: ignore[no-untyped-call]
        if not call.inplace:
            return out
        self.before_overwrite(z)
        return z.copy_(out)

    def close(self) -> None:
        super().close()
        self._memory.clear()
        self._squashed.clear()


class _PassPositive(torch.autograd.Function):
    """`value` forward; backward, of what arrives, the positive part goes to `source`."""

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return g.clamp(min=0), None


def _is_relu(call: Call) -> bool:
    """Whether a call is a ReLU, or a ReLU with an upper bound as relu6, in one of its spellings."""

    def given(place: int, *names: str) -> Any:
        named = (call.kwargs[name] for name in names if name in call.kwargs)
        return call.args[place] if len(call.args) > place else next(named, None)

    low: Any = None
    if call.name in ("relu", "relu6"):
        return True
    if call.name in ("clamp", "clamp_min", "hardtanh"):
        low = given(1, "min", "min_val")
    elif call.name == "threshold":
        low = given(1, "threshold") if given(2, "value") == 0 else None
    return isinstance(low, (int, float)) and low == 0


def _require_evaluation(call: Call) -> None:
    """TrainingMode for a function that does in training mode what it does not do when the model decides."""
    place = _TRAINING.get(call.name)
    if place is None:
        return
    given = call.kwargs.get("train", call.kwargs.get("training", False))
    training = call.args[place] if len(call.args) > place else given
    harmless = "dropout" in call.name and call.args[1:2] == (0,)
    if training and not harmless:
        raise TrainingMode(
            f"{call.title} in {call.where} runs as in training, where chance or the other samples of the batch decide, "
            "so there is no one decision to explain. Write model.eval(), and pass training=self.training to functional "
            "calls"
        )


@contextlib.contextmanager
def _differentiable(call: Call) -> Iterator[None]:
    """cuDNN has no backward pass for recurrent layers in evaluation mode; torch's own kernels do."""
    if call.name in _RECURRENT and any(t.is_cuda for t in tensors_in(call.args)):
        with torch.backends.cudnn.flags(enabled=False):
            yield
    else:
        yield


def _chooses(func: FunctionType) -> bool:
    """Python functions of torch's that only choose between two others, and would choose for ever."""
    return func.__qualname__.startswith("boolean_dispatch")


def _ordinary(tensor: Tensor) -> Tensor:
    """A tensor that autograd may save, also of one that was made in inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def _address(tensor: Tensor) -> int | None:
    """The address of a tensor's memory; None for the few without memory of their own (sparse ones, within vmap)."""
    try:
        address: int = tensor.untyped_storage()._cdata
    except NotImplementedError:
        return None
    return address
