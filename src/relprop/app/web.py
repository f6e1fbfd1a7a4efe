"""The application: its addresses, and which room answers at each."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from relprop.app import asking
from relprop.app.about import about
from relprop.app.answering import SLOW, Answers
from relprop.app.asking import Explain, Kind, Question, Single
from relprop.app.guard import Guard
from relprop.app.models import Models
from relprop.app.own import Model
from relprop.app.pictures import Pictures
from relprop.app.readers import Watch
from relprop.app.refusals import Gone, Refused, refusal
from relprop.app.work import Work
from relprop.errors import RelpropError

STATIC = Path(__file__).parent / "static"
VIEWER = Path(__file__).parents[1] / "view" / "assets"

# Lanes of work besides those of the models.
ABOUT, DECODING, SEVERAL, SLOWLY = "/about", "/decoding", "/several", "/slowly"
SMALL = 50_000  # bytes of a request that is read at once, others in a thread
FEW = 4  # questions that are answered in a model's own lane

MEDIA = {"png": "image/png", "svg": "image/svg+xml", "html": "text/html", "npz": "application/zip"}
FILES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
}
_UPLOAD = re.compile(r"application/octet-stream|image/[\w.+-]+")
_CLIENT_LEFT = 499

B = TypeVar("B", Explain, Single)

log = logging.getLogger(__name__)


class Application:
    """An ASGI application that answers for these models, behind its guard."""

    def __init__(self, own: Sequence[Model], with_zoo: bool, host: str) -> None:
        self.models = Models(own, with_zoo)
        self.pictures = Pictures()
        self.answers = Answers(self.models, self.pictures)
        self.work = Work(threads=len(list(self.models)) + 4)
        self._about: bytes | None = None
        self._guard = Guard(self._addresses(), host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._guard(scope, receive, send)

    def about(self) -> bytes:
        """The body of the answer to /api/about."""
        if self._about is None:
            self._about = _json(about(self.models, self.pictures))
        return self._about

    def _addresses(self) -> FastAPI:
        # Without FastAPI's own pages, whose scripts come from another host.
        app = FastAPI(title="relprop", docs_url=None, redoc_url=None, openapi_url=None)
        for kind in (Refused, RelpropError, Gone, ClientDisconnect, HTTPException):
            app.add_exception_handler(kind, _told)

        @app.api_route("/", methods=["GET", "HEAD"])
        async def page() -> Response:
            return FileResponse(STATIC / "index.html")

        @app.get("/api/about")
        async def about(request: Request) -> Response:
            return _answer(await self._done(ABOUT, request, lambda _: self.about()))

        @app.get("/api/pictures/{name}")
        async def picture(name: str, request: Request) -> Response:
            return _answer(await self._done(DECODING, request, lambda _: self.pictures.preview(name)), "image/png")

        @app.post("/api/pictures")
        async def upload(request: Request) -> Response:
            _require_type(request, _UPLOAD, "application/octet-stream")
            content = await request.body()
            return _answer(await self._done(DECODING, request, lambda _: self._kept(content)))

        @app.post("/api/explain")
        async def explain(request: Request) -> Response:
            asked = await _body(Explain, request)
            lane = self._lane(asked.model, asked.questions)
            return _answer(await self._done(lane, request, lambda watch: _json(self.answers.explain(asked, watch))))

        @app.post("/api/operations")
        async def operations(request: Request) -> Response:
            asked = await _body(Single, request)
            lane = self._lane(asked.model, [asked.question])
            return _answer(await self._done(lane, request, lambda watch: _json(self.answers.operations(asked, watch))))

        @app.post("/api/download/{kind}")
        async def download(kind: str, request: Request) -> Response:
            if kind not in MEDIA:
                raise Refused(404, "no_such_kind", f"There are no files of this kind: choose {', '.join(MEDIA)}.")
            asked = await _body(Single, request)
            lane = self._lane(asked.model, [asked.question])
            chosen = cast(Kind, kind)
            name, content = await self._done(lane, request, lambda watch: self.answers.file(chosen, asked, watch))
            headers = {"content-disposition": f'attachment; filename="{quote(name)}"'}
            return Response(content, media_type=MEDIA[kind], headers=headers)

        app.mount("/static", _Files(directory=STATIC, check_dir=False))
        app.mount("/viewer", _Files(directory=VIEWER, check_dir=False))
        return app

    async def _done(self, lane: str, request: Request, job: Callable[[Watch], Any]) -> Any:
        """What a job returns. Raises Refused for an error that nobody foresaw, which is told on the terminal whole."""
        try:
            return await self.work.do(lane, request, lambda check: job(lambda done, total: check()))
        except (RelpropError, Refused, Gone):
            raise
        except asyncio.CancelledError:
            if self.work.stopped:
                raise Gone from None
            raise
        except Exception as error:
            log.exception("%s failed", request.url.path)
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise Refused(500, "failed", f"This could not be computed ({told}). The terminal tells more.") from error

    def _lane(self, model: str, questions: Sequence[Question]) -> str:
        name = self.models[model].name
        if any(question.method in SLOW for question in questions):
            return SLOWLY
        return name if len(questions) <= FEW else SEVERAL

    def _kept(self, content: bytes) -> bytes:
        name, kept = self.pictures.add(content)
        return _json({"picture": name, "width": kept.width, "height": kept.height})


class _Files(StaticFiles):
    """The files of a folder that are for browsers, and no others."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        media_type = FILES.get(Path(path).suffix)
        if media_type is None:
            raise HTTPException(404)
        found = await super().get_response(path, scope)
        if found.status_code == 200:
            # Not what this machine takes them for: some registries say that scripts are text, which browsers don't run.
            found.headers["content-type"] = media_type
        return found


def create(own: Sequence[Model], with_zoo: bool, host: str) -> Application:
    """The application for these models of the user's, and the zoo's."""
    return Application(own, with_zoo, host)


async def _body(kind: type[B], request: Request) -> B:
    _require_type(request, re.compile("application/json"), "application/json")
    body = await request.body()
    return asking.read(kind, body) if len(body) < SMALL else await run_in_threadpool(asking.read, kind, body)


def _require_type(request: Request, fitting: re.Pattern[str], example: str) -> None:
    given = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if fitting.fullmatch(given) is None:
        raise Refused(415, "wrong_type", f"The Content-Type is {given[:60]!r}; this address takes {example}.")


async def _told(request: Request, error: Exception) -> Response:
    """The answer to a request that failed."""
    if isinstance(error, (Gone, ClientDisconnect)):
        return Response(status_code=_CLIENT_LEFT)
    if isinstance(error, HTTPException):
        error = _of_routing(error.status_code, request)
    refused = refusal(error) if isinstance(error, RelpropError) else error
    assert isinstance(refused, Refused)
    return Response(_json(refused.told), status_code=refused.status, media_type="application/json")


def _of_routing(status: int, request: Request) -> Refused:
    """Why an address has no answer."""
    path = request.url.path[:100]
    if status == 405:
        return Refused(405, "method_not_allowed", f"{path} is not asked by {request.method}.")
    return Refused(status, "not_found", f"There is nothing at {path}.")


def _answer(content: bytes, media_type: str = "application/json") -> Response:
    return Response(content, media_type=media_type)


def _json(value: Any) -> bytes:
    """As JSON in plain ASCII, so that no character of a text can break it."""
    return json.dumps(value, allow_nan=False, separators=(",", ":")).encode("ascii")
