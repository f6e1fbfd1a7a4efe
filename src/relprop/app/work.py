"""Work in threads: the event loop never computes, a slow request delays only those like it, nobody waits in vain."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from starlette.requests import Request

from relprop.app.refusals import Gone, Refused

T = TypeVar("T")

MOST_WAITING = 24  # in one lane


class Lane:
    """Jobs that are done one after the other, in the order in which they came."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self.waiting = 0


class Work:
    """Lanes by name, each with one thread at a time: one for each model, some for what takes longer than one answer."""

    def __init__(self, threads: int) -> None:
        self._lanes: defaultdict[str, Lane] = defaultdict(Lane)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="relprop")
        self._stopped = threading.Event()

    async def do(self, lane: str, request: Request, job: Callable[[Callable[[], None]], T]) -> T:
        """What `job` returns, run in a thread when it is its turn.

        `job` is given a function that raises Gone once its result is not wanted any more, for jobs that are long.

        Raises Refused where too many wait, Gone where whoever asked has left.
        """
        place = self._lanes[lane]
        if place.waiting >= MOST_WAITING:
            raise Refused(503, "busy", "The server has too much to do just now. Try again in a moment.")
        place.waiting += 1
        left = threading.Event()
        watch = asyncio.ensure_future(_leave(request, left))
        try:
            await self._turn(place, watch, left)
            try:
                return await self._run(job, left)
            finally:
                place.turn.release()
        finally:
            place.waiting -= 1
            watch.cancel()

    @property
    def stopped(self) -> bool:
        """Whether the server is ending."""
        return self._stopped.is_set()

    def stop(self) -> None:
        """Ends long jobs at their next step, and starts no others."""
        self._stopped.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _turn(self, place: Lane, watch: asyncio.Future[None], left: threading.Event) -> None:
        """Waits until it is this job's turn. Raises Gone as soon as whoever asked has left."""
        turn = asyncio.ensure_future(place.turn.acquire())
        first: set[asyncio.Future[Any]] = {turn, watch}
        try:
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            self._wanted(left)
            await turn
        except BaseException:
            if not turn.cancel() and not turn.cancelled():  # the turn had come
                place.turn.release()
            raise

    async def _run(self, job: Callable[[Callable[[], None]], T], left: threading.Event) -> T:
        running = asyncio.get_running_loop().run_in_executor(self._threads, job, lambda: self._wanted(left))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            left.set()  # the thread goes on to its next step, and the lane is free for the next
            raise

    def _wanted(self, left: threading.Event) -> None:
        if left.is_set() or self._stopped.is_set():
            raise Gone


async def _leave(request: Request, left: threading.Event) -> None:
    """Notes when whoever asked, whose request has been read, closes the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    left.set()
