"""From the sampler's thread to whoever listens on the socket: each listener has a short queue."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

QUEUE = 16
"""Events kept for a listener that is slow; the oldest are dropped, since only the newest matters."""


class Hub:
    """Publishes events by topic; `publish` may be called from any thread, `listen` on the event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: dict[str, set[tuple[asyncio.AbstractEventLoop, asyncio.Queue[str]]]] = {}

    def publish(self, topic: str, data: str) -> None:
        """Hand an event to all who listen to the topic."""
        with self._lock:
            listeners = list(self._listeners.get(topic, ()))
        for loop, queue in listeners:
            with contextlib.suppress(RuntimeError):  # the loop is closing: nobody listens any more
                loop.call_soon_threadsafe(_put, queue, data)

    @contextlib.contextmanager
    def listen(self, topic: str) -> Iterator[asyncio.Queue[str]]:
        """Listen to a topic while the block lasts."""
        entry = (asyncio.get_running_loop(), asyncio.Queue[str](QUEUE))
        with self._lock:
            self._listeners.setdefault(topic, set()).add(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._listeners[topic].discard(entry)
                if not self._listeners[topic]:
                    del self._listeners[topic]

    def listeners(self, topic: str) -> int:
        """Return how many listen to the topic."""
        with self._lock:
            return len(self._listeners.get(topic, ()))


def _put(queue: asyncio.Queue[str], data: str) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(data)
