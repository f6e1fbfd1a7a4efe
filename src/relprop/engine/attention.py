"""Fused attention: softmax(Q K^T scale + mask) V in one call, by the rules of its parts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from relprop.asking import known
from relprop.engine.call import Call, on_gradient
from relprop.engine.operation import Kept, Operation, inner
from relprop.engine.product import matrix_shares
from relprop.engine.registry import operation
from relprop.errors import TrainingMode

if TYPE_CHECKING:
    from relprop.engine.trace import Trace


@operation("scaled_dot_product_attention", kind="attention")
def attention(
    call: Call,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """O = A V with A = softmax(S), S = Q K^T scale + mask.

    AttnLRP (Achtibat et al. 2024): A and V take half each of R_O (prop. 3.3), the softmax hands on what A got by its
    own derivative (prop. 3.1), Q and K take half each of that. So Q and K get a quarter of the native gradient, V half
    of it, and torch's fused backward serves. CP-LRP (Ali et al. 2022): V takes all.
    """
    if dropout_p > 0:
        raise TrainingMode(
            f"{call.title} in {call.where} drops attention weights at random, so there is no one decision to explain. "
            "Write model.eval(), and pass dropout_p=0.0 outside of training"
        )
    signals = (query, key, value)
    if call.live(attn_mask) or not all(call.live(t) for t in signals):
        # Some of its products have one signal alone: they are linear.
        form = _Form(attn_mask, is_causal, scale, enable_gqa)
        return call.written_out(form.output, query, key, value)
    mask = None if attn_mask is None else attn_mask.detach()
    form = _Form(mask, is_causal, scale, enable_gqa)
    made: list[Operation] = []

    def share(v: Tensor, factor: int, part: float) -> Tensor | None:
        part *= matrix_shares(made[0])[factor]
        return v * part if part else None

    # What the weights get goes on through the softmax, in halves to Q and K.
    shares = (partial(share, factor=factor, part=part) for factor, part in ((0, 0.5), (0, 0.5), (1, 1.0)))
    edges = [call.edge(t, made, share) for t, share in zip(signals, shares, strict=True)]
    call.kwargs = {"is_causal": is_causal, "scale": scale, "enable_gqa": enable_gqa}
    out = call.native("attention", (*edges, mask, 0.0), remainder="softmax", measured=True)
    made.append(call.node(out).operation)
    if call.trace.report or call.trace.attention is not None:
        on_gradient(out, partial(_note, call.trace, made[0], form, [call.trace.keep(t) for t in signals]))
    return out


@operation("_nested_tensor_from_mask_left_aligned", kind="constant")
def fast_path(call: Call, source: Tensor, kept: Tensor) -> Any:
    """What nn.TransformerEncoder asks before it takes its way for inference, which is not taken here."""
    if not bool(kept.all()):
        call.trace.notes[
            f"{call.where}: nn.TransformerEncoder has a fast path for inference (under no_grad), which returns zeros "
            "for padding. Its ordinary forward is explained. Where padding enters the score, the two scores differ: "
            "pool over the other tokens alone, or build it with enable_nested_tensor=False"
        ] = None
    return call.func(source.detach(), kept)


@dataclass(frozen=True)
class _Form:
    """Attention step by step, with these options of the fused call."""

    mask: Tensor | None
    causal: bool
    scale: float | None
    grouped: bool

    def output(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.weights(query, key) @ self._repeated(value, query)

    def weights(self, query: Tensor, key: Tensor) -> Tensor:
        """A (..., queries, keys); zero in a row that is masked as a whole."""
        scale = 1 / math.sqrt(query.shape[-1]) if self.scale is None else self.scale
        scores = (query * scale) @ self._repeated(key, query).transpose(-2, -1)
        allowed = None
        if self.causal:
            allowed = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        elif self.mask is not None and self.mask.dtype == torch.bool:
            allowed = self.mask
        if allowed is not None:
            scores = scores.masked_fill(~allowed, -math.inf)
        elif self.mask is not None:
            scores = scores + self.mask
        dead = (scores == -math.inf).all(-1, keepdim=True)
        if known(~dead.any()):
            return torch.softmax(scores, -1)
        return torch.softmax(scores.masked_fill(dead, 0.0), -1).masked_fill(dead, 0.0)

    def _repeated(self, heads: Tensor, query: Tensor) -> Tensor:
        """Keys or values for each head of the queries, where groups of heads share them."""
        times = query.shape[-3] // heads.shape[-3] if self.grouped else 1
        return heads if times == 1 else heads.repeat_interleave(times, -3)

    def messages(self, query: Tensor, key: Tensor, value: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """(A, R (..., queries, keys)): the weights, and what of R_O = O v comes by each of them, before A and V share
        it. Its sum over the keys is R_O, summed over a head's values."""
        weights = self.weights(query, key)
        return weights, weights * (v @ self._repeated(value, query).transpose(-2, -1))


def _note(trace: Trace, op: Operation, form: _Form, signals: list[Kept], v: Tensor) -> None:
    """Enter what only the steps inside of the fused call show: relevance key by key, and the mask's share."""
    query, key, value = (kept.value for kept in signals)
    weights, messages = form.messages(query, key, value, v)
    if trace.attention is not None:
        trace.attention[op.index] = messages
    if trace.report and form.mask is not None and form.mask.dtype != torch.bool:
        # v at the scores, as softmax's own derivative gives it; the mask is a summand of theirs.
        scores = matrix_shares(op)[0] * (messages - weights * messages.sum(-1, keepdim=True))
        op.flow.absorb("bias", inner(form.mask.expand_as(scores), scores))
