"""Serving: the address, the browser, and the end."""

from __future__ import annotations

import base64
import contextlib
import errno
import logging
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib import import_module

import torch
import uvicorn

from relprop.app.about import BY_CAPTUM
from relprop.app.asking import DIGIT, Explain, Input
from relprop.app.guard import is_loopback
from relprop.app.models import Served
from relprop.app.own import Model
from relprop.app.web import Application, create
from relprop.errors import InvalidInput

START = 20.0  # seconds until a server must answer
FAREWELL = 2  # seconds that requests have to end
# Seconds after which a computing thread lets another one go on. Each operation of torch gives the turn away, so that
# with Python's own 5 ms a light request would wait for a slow one hundreds of times.
TURN = 0.0005
EVERYWHERE = ("0.0.0.0", "::", "")


def serve(
    own: Sequence[Model],
    with_zoo: bool,
    host: str,
    port: int,
    open_browser: bool,
    threads: int | None,
    verbose: bool,
) -> None:
    """Serves until Ctrl-C. Arguments and errors as for relprop.app.serve."""
    if threads is not None:
        torch.set_num_threads(threads)
    app = create(own, with_zoo, host)
    with running(app, host, port, verbose) as (address, ended):
        with contextlib.suppress(Exception):  # what fails is told when it is asked for
            _answer_once(app, next(iter(app.models)))  # before the page asks for everything at once
        _greet(address, host)
        if open_browser and has_browser():
            webbrowser.open(address)
        _warm(app)
        with contextlib.suppress(KeyboardInterrupt):
            while not ended.wait(0.5):
                pass
    print("\nStopped.", flush=True)


@contextlib.contextmanager
def running(
    app: Application, host: str = "127.0.0.1", port: int = 0, verbose: bool = False
) -> Iterator[tuple[str, threading.Event]]:
    """The address of a server, and what is set when it has ended, at the latest when the block is left.

    In a thread of its own it runs beside the event loop of a notebook too.
    """
    with _listening(host, port) as listener:
        level = logging.INFO if verbose else logging.WARNING
        config = uvicorn.Config(
            app,
            log_level=level,
            access_log=verbose,
            lifespan="off",
            ws="none",
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=FAREWELL,
        )
        server = uvicorn.Server(config)
        ended = (
            threading.Event()
        )  # waited for instead of the thread, whose join must not meet Ctrl-C before Python 3.12

        def run() -> None:
            try:
                server.run(sockets=[listener])
            finally:
                ended.set()

        turn = sys.getswitchinterval()
        sys.setswitchinterval(TURN)
        threading.Thread(target=run, name="relprop-server", daemon=True).start()
        try:
            _await(server, ended)
            yield address_of(host, listener.getsockname()[1]), ended
        finally:
            app.work.stop()
            server.should_exit = True
            ended.wait()
            sys.setswitchinterval(turn)


def address_of(host: str, port: int) -> str:
    """Where a browser on this machine finds the server."""
    name = "127.0.0.1" if host in EVERYWHERE else host
    return f"http://[{name}]:{port}/" if ":" in name else f"http://{name}:{port}/"


def has_browser() -> bool:
    """Whether there is a screen for a browser's window; those of a terminal would take the terminal."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A socket at this address. Raises InvalidInput where there can't be one."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # With its protocol, or asyncio would leave small packets to wait for one another (40 ms each).
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError, UnicodeError) as error:
        raise InvalidInput(
            f"there is no address {host!r} with port {port} here ({error}); leave --host away"
        ) from error
    with listener:
        try:
            if sys.platform != "win32":  # where it would let two servers share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
        except (OSError, OverflowError) as error:
            raise InvalidInput(_refusal(error, host, port)) from error
        yield listener


def _refusal(error: Exception, host: str, port: int) -> str:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return f"the port {port} is taken, perhaps by another `relprop serve`; choose another: --port {port + 1}, or 0"
    if number in (errno.EACCES, errno.EPERM):
        return f"the port {port} may not be listened at by this user; choose one above 1023, as --port 7860"
    return f"{host!r} can't be listened at ({error}); leave --host away to serve this machine alone"


def _await(server: uvicorn.Server, ended: threading.Event) -> None:
    until = time.monotonic() + START
    while not server.started:
        if ended.is_set() or time.monotonic() > until:
            raise InvalidInput("the server did not start; --verbose says why")
        time.sleep(0.01)


def _greet(address: str, host: str) -> None:
    print(f"relprop is at {address}\nCtrl-C ends it.", flush=True)
    if not is_loopback(host):
        print(
            f"Warning: it listens at {host or 'every address'}, so everyone who reaches this machine can use the "
            "models, without a password. Leave --host away to serve this machine alone.",
            file=sys.stderr,
            flush=True,
        )


def _warm(app: Application) -> threading.Thread:
    """Does once what takes longer the first time, models and Captum; but not the analyser of Korean, which holds
    Python's lock while it is loaded, so that for seconds nobody else would be answered: that is for who needs it."""

    def load() -> None:
        wanted = [served for served in app.models if served.language != "ko"]
        steps: list[Callable[[], None]] = [partial(_answer_once, app, served) for served in wanted]
        for step in (*steps, _import_captum):
            if app.work.stopped:
                return
            with contextlib.suppress(Exception):  # what fails is told when it is asked for
                step()

    # No daemon: Python must not end while one of its threads computes in torch.
    thread = threading.Thread(target=load, name="relprop-warm")
    thread.start()
    return thread


def _answer_once(app: Application, served: Served) -> None:
    digit = base64.b64encode(bytes(DIGIT)).decode()
    examples = {"digit": {"digit": digit}, "picture": {"picture": "cat"}, "text": {"text": "안녕하세요"}}
    if served.kind in examples:
        asked = Explain(model=served.name, input=Input.model_validate(examples[served.kind]))
        app.answers.explain(asked, lambda done, total: None)


def _import_captum() -> None:
    for package in BY_CAPTUM:
        import_module(package)
