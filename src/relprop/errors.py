"""What can go wrong, by name. Every message says what was met, where, and what to write instead."""

from __future__ import annotations


class RelpropError(Exception):
    """The parent of every error that relprop raises on purpose."""


class UnsupportedFunction(RelpropError):
    """Relevance would flow through a function that no operation describes."""


class UnsupportedModel(RelpropError):
    """A model as a whole that can't be traced: TorchScript, quantised, not a callable."""


class TrainingMode(RelpropError):
    """The model, or a part of it, is in training mode, so its output is not the one to explain."""


class NonFinite(RelpropError):
    """An input, a score or a parameter holds NaN or infinity."""


class InvalidInput(RelpropError):
    """An input that can't be explained: wrong type, wrong dtype, empty."""


class InvalidTarget(RelpropError):
    """A target that the model's output does not have."""


class InvalidOutput(RelpropError):
    """The model's output holds no score that depends on the input."""


class InvalidRule(RelpropError):
    """A rule, rule map or preset that can't be applied as it is."""


class InvalidFile(RelpropError):
    """A file that is missing, damaged, or not of the kind that was expected."""


class MissingExtra(RelpropError):
    """A feature that needs a package which is not installed; the message names the extra."""
