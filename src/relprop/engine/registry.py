"""Which function is which kind of operation. A new operation is one entry, made in the file of its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from relprop.errors import RelpropError

if TYPE_CHECKING:
    pass

Handler = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """A kind, and handler(call, *args, **kwargs): runs the call and records what it did."""

    kind: str
    handler: Handler


REGISTRY: dict[str, Entry] = {}
# Handlers that serve a whole kind, so that a user can register a function with a word.
BY_KIND: dict[str, Handler] = {}


def operation(*names: str, kind: str) -> Callable[[Handler], Handler]:
    """Register a handler for the functions of these names."""

    def decorate(handler: Handler) -> Handler:
        for name in names:
            if name in REGISTRY:
                raise RelpropError(f"the function {name!r} is registered twice")
            REGISTRY[name] = Entry(kind, handler)
        return handler

    return decorate


def kind(name: str, *functions: str) -> Callable[[Handler], Handler]:
    """Make a handler the one for a kind, and register these functions with it."""

    def decorate(handler: Handler) -> Handler:
        BY_KIND[name] = handler
        return operation(*functions, kind=name)(handler)

    return decorate


def register(function: str | Callable[..., Any], kind: str) -> None:
    """Tell relprop what kind of operation a function is that it does not know.

    function: the function, or its name as an error message gave it. kind: "carrier" (values move, as in a view),
    "activation" (element by element), "sum" (linear without weights), "selection" (the winner takes all) or
    "constant" (no relevance flows into its arguments).
    """
    from relprop.engine.functions import identify

    if not (isinstance(function, str) or callable(function)):
        raise RelpropError(f"register: got {function!r}, expected a function or its name")
    if kind not in BY_KIND:
        raise RelpropError(f"unknown kind {kind!r}; the kinds are {', '.join(sorted(BY_KIND))}")
    name = function.rsplit(".", 1)[-1] if isinstance(function, str) else identify(function)[0]
    REGISTRY[name] = Entry(kind, BY_KIND[kind])
