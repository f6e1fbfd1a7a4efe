"""The other attribution methods, to compare LRP with: `relprop.explain(model, x, method="gradient")`."""

from __future__ import annotations

import difflib
from dataclasses import fields
from typing import Any

from relprop.attribution import LRP
from relprop.errors import InvalidInput
from relprop.methods.base import Method
from relprop.methods.gradients import (
    DeconvNet,
    Gradient,
    GradientTimesInput,
    GuidedBackprop,
    IntegratedGradients,
    SmoothGrad,
)
from relprop.methods.occlusion import Occlusion
from relprop.methods.with_captum import DeepLift, GradCam, KernelShap, Lime

__all__ = [
    "METHODS",
    "DeconvNet",
    "DeepLift",
    "GradCam",
    "Gradient",
    "GradientTimesInput",
    "GuidedBackprop",
    "IntegratedGradients",
    "KernelShap",
    "Lime",
    "Method",
    "Occlusion",
    "SmoothGrad",
    "method_of",
]

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Gradient,
        GradientTimesInput,
        IntegratedGradients,
        SmoothGrad,
        GuidedBackprop,
        DeconvNet,
        Occlusion,
        Lime,
        GradCam,
        DeepLift,
        KernelShap,
    )
}


def method_of(method: str | Method, **options: Any) -> Method | None:
    """The method of a name with these options, or a method as it is; None for LRP.

    Raises InvalidInput for a name or an option that there is not.
    """
    if isinstance(method, Method) and not options:
        return method
    if not isinstance(method, str):
        raise InvalidInput(
            f"method: got {method!r}, expected a name such as 'gradient', or a method with options such as "
            "relprop.methods.IntegratedGradients(steps=100)"
        )
    if method == LRP and not options:
        return None
    if method == LRP:
        raise InvalidInput("the method 'lrp' has no options; its rules are chosen by rules=...")
    if method not in METHODS:
        close = difflib.get_close_matches(method, [*METHODS, LRP], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidInput(f"there is no method {method!r}.{hint} The methods are: {LRP}, {', '.join(METHODS)}")
    known = [field.name for field in fields(METHODS[method])]
    for option in options:
        if option not in known:
            valid = f"It has {', '.join(known)}" if known else "It has none"
            raise InvalidInput(f"the method {method!r} has no option {option!r}. {valid}")
    return METHODS[method](**options)
