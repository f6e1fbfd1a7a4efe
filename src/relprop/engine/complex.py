"""Complex numbers between real ones, as in rotary positions and Fourier transforms: linear steps, by torch's backward.

Autograd's v for a complex z is such that R = Re(conj(v) z), so what is linear needs no rule here either.
"""

from __future__ import annotations

from typing import Any

from relprop.engine.call import Call
from relprop.engine.registry import operation

TRANSFORMS = """
    fft_fft fft_ifft fft_rfft fft_irfft fft_hfft fft_ihfft fft_fft2 fft_ifft2 fft_rfft2 fft_irfft2
    fft_fftn fft_ifftn fft_rfftn fft_irfftn stft istft
"""
CARRIERS = "complex view_as_complex view_as_real real imag conj conj_physical resolve_conj _conj"
PROPERTIES = ("get real", "get imag")
# What may come between: it is linear in a complex signal, or, as abs, homogeneous of degree one.
LINEAR = {*TRANSFORMS.split(), "add", "sub", "rsub", "neg", "sum", "mean", "mul", "div", "abs"}


@operation(*TRANSFORMS.split(), kind="sum")
def transform(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native("sum")


@operation(*CARRIERS.split(), *PROPERTIES, kind="carrier")
def carry(call: Call, *args: Any, **kwargs: Any) -> Any:
    return call.native("carrier")


def understood(name: str, kind: str) -> bool:
    """Whether a function of a complex signal is one that relevance can follow."""
    return kind == "carrier" or name in LINEAR
