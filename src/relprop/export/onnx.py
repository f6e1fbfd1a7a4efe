"""An explanation as an ONNX model, for runtimes without torch."""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from relprop.errors import MissingExtra, UnsupportedModel

aten = torch.ops.aten


def to_onnx(program: ExportedProgram, names: Sequence[str]) -> bytes:
    """The program as the content of an .onnx file, with these names for its results.

    Raises UnsupportedModel where a step has no form in ONNX, MissingExtra without the packages that write it.
    """
    try:
        import onnx  # noqa: F401
        from onnxscript import opset18
    except ImportError as error:
        raise MissingExtra(
            'an .onnx file needs packages that are not installed: pip install "relprop[onnx]"'
        ) from error
    try:
        with _quiet():
            plain = program.run_decompositions({**torch.export.default_decompositions(), **_DECOMPOSED})
            made = torch.onnx.export(
                plain,
                dynamo=True,
                verbose=False,
                output_names=list(names),
                custom_translation_table={torch.ops.prims.view_of.default: lambda x: opset18.Identity(x)},
            )
    except Exception as error:  # torch raises whatever its parts raise
        lacking = [line for line in str(error).splitlines() if "No ONNX function found" in line]
        raise UnsupportedModel(
            "the explanation has a step that ONNX has no form for, or that torch can't write there "
            f"({(lacking or [type(error).__name__])[0].strip()}). End the path in .pt2 for a program of torch.export"
        ) from error
    assert made is not None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "explain.onnx"
        made.save(str(file))
        return file.read_bytes()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter tells of its progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


# ---- operations that ONNX has not, in terms of those that it has


def _copysign(size: Tensor, sign: Tensor) -> Tensor:
    """Zero counts as positive, whatever its sign: there is nothing to share."""
    return torch.where(sign < 0, -size.abs(), size.abs())


def _convolution_backward(
    gradient: Tensor, x: Tensor, weight: Tensor, _: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int, wanted: Any,
) -> tuple[Tensor, None, None]:  # fmt: skip
    """The transpose of a convolution is a transposed one, and the other way round."""
    missing = [0] * len(stride)
    if not transposed:
        sizes = zip(x.shape[2:], gradient.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
        missing = [n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, k, s, p, d in sizes]
    back = aten.convolution.default(gradient, weight, None, stride, padding, dilation, not transposed, missing, groups)
    return back, None, None


def _max_pool_backward(
    gradient: Tensor, x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool, indices: Tensor
) -> Tensor:
    flat = x.new_zeros(x.shape).flatten(-2)
    return flat.scatter_add(-1, indices.flatten(-2), gradient.flatten(-2)).view(x.shape)


def _lstm_layer(
    x: Tensor, w0: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, h: Tensor, c: Tensor, reverse: bool, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One direction of an LSTM layer, (time, batch, features), step by step."""
    h, c, outputs = h.reshape(h.shape[-2:]), c.reshape(c.shape[-2:]), []
    of_x = torch.nn.functional.linear(x, w0, w2)
    for a in reversed(of_x.unbind(0)) if reverse else of_x.unbind(0):
        i, f, g, o = (a + torch.nn.functional.linear(h, w1, w3)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        outputs.append(h)
    return torch.stack(outputs[::-1] if reverse else outputs), h, c, x.new_zeros(0)


def _weights(query: Tensor, key: Tensor, causal: bool, mask: Tensor | None, scale: float | None) -> Tensor:
    scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-2, -1)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(later, -math.inf)
    return (scores if mask is None else scores + mask).softmax(-1)


def _laid_as(values: Tensor, like: Tensor) -> Tensor:
    """The values, lying in memory as another tensor does: what views of them are taken of."""
    order = sorted(range(values.dim()), key=like.stride, reverse=True)
    back = sorted(range(values.dim()), key=order.__getitem__)
    return values.permute(order).contiguous().permute(back)


def _attention(
    query: Tensor, key: Tensor, value: Tensor, dropout: float = 0.0, is_causal: bool = False, *,
    attn_mask: Tensor | None = None, scale: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    out = _weights(query, key, is_causal, attn_mask, scale) @ value
    return _laid_as(out, query), query.new_zeros(query.shape[:-1])


def _attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, _: Any, dropout: float, is_causal: bool,
    *, attn_mask: Tensor | None = None, scale: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    weights = _weights(query, key, is_causal, attn_mask, scale)
    scores = weights * (gradient @ value.transpose(-2, -1) - (gradient * out).sum(-1, keepdim=True))
    scores = scores * (query.shape[-1] ** -0.5 if scale is None else scale)
    given = scores @ key, scores.transpose(-2, -1) @ query, weights.transpose(-2, -1) @ gradient
    return _laid_as(given[0], query), _laid_as(given[1], key), _laid_as(given[2], value)


_DECOMPOSED = {
    aten.empty_permuted.default: lambda size, order, **options: torch.zeros(size, dtype=options.get("dtype")),
    aten._scaled_dot_product_flash_attention_for_cpu.default: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: _attention_backward,
    aten.copysign.Tensor: _copysign,
    aten.convolution_backward.default: _convolution_backward,
    aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
    aten.mkldnn_rnn_layer.default: _lstm_layer,
}
