"""The web application: draw, drop or write something, and see what made a model decide. Runs on this machine alone.

`serve` opens it in a browser, `create` returns it as an ASGI application; both need `pip install "relprop[app]"`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from relprop.app.own import Model, models_of
from relprop.errors import MissingExtra

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from relprop.presets import Bounds
    from relprop.text.tokenizers import Tokenizer

__all__ = ["Model", "create", "serve"]

PORT = 7860
LOOPBACK = "127.0.0.1"


def serve(
    model: Any = None,
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    preprocess: Callable[[Image.Image], Tensor] | None = None,
    input_shape: Sequence[int] | None = None,
    tokenizer: Tokenizer | None = None,
    bounds: Bounds | None = None,
    language: str = "",
    rules: str = "auto",
    zoo: bool = True,
    host: str = LOOPBACK,
    port: int = PORT,
    open_browser: bool = True,
    threads: int | None = None,
    verbose: bool = False,
) -> None:
    """Serves the application until Ctrl-C ends it; nothing leaves the machine.

    model: a model of yours, beside those of the zoo; a `Model` with what belongs to it; several as a list, or as a dict
        by their names. Without it, the zoo's alone.
    name, labels, preprocess, input_shape, tokenizer, bounds, language, rules: of the model, as `Model` explains them.
    zoo: whether the zoo's models are served too.
    host: the address to listen at. Any other than the loopback's lets everyone who reaches this machine use the models.
    port: where to listen; 0 takes a free one.
    open_browser: opens the page, where there is a browser.
    threads: how many threads torch uses for one computation; torch's own choice by default.
    verbose: tells of each request, and where in the program errors arose.

    Raises MissingExtra without fastapi and uvicorn, InvalidInput for a model that can't be served or an address that
    can't be listened at.
    """
    serving = _room("serving")
    models = models_of(model, name, labels, preprocess, input_shape, tokenizer, bounds, language, rules)
    serving.serve(models, zoo, host, port, open_browser, threads, verbose)


def create(
    model: Any = None,
    *,
    name: str | None = None,
    labels: Sequence[str] | None = None,
    preprocess: Callable[[Image.Image], Tensor] | None = None,
    input_shape: Sequence[int] | None = None,
    tokenizer: Tokenizer | None = None,
    bounds: Bounds | None = None,
    language: str = "",
    rules: str = "auto",
    zoo: bool = True,
    host: str = LOOPBACK,
) -> Any:
    """The application for an ASGI server; it answers requests that name `host`, or the loopback, as their host.

    Arguments and errors as for `serve`.
    """
    web = _room("web")
    models = models_of(model, name, labels, preprocess, input_shape, tokenizer, bounds, language, rules)
    return web.create(models, zoo, host)


def _room(name: str) -> Any:
    """A module of this package that needs the extra."""
    try:
        return import_module(f"{__name__}.{name}")
    except ImportError as error:
        if (error.name or "").split(".")[0] == "relprop":
            raise
        raise MissingExtra(
            f'the app needs a package that can\'t be imported ({error}): pip install "relprop[app]"'
        ) from error
