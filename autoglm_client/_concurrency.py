"""Many calls at once: in tasks for the async client, in threads for the sync one."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from .errors import ConfigurationError
from .timeouts import CallClock

__all__ = ["Progress", "Together", "async_map", "async_pause", "sync_map", "sync_pause"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = bool | Callable[[int, int], object]


class Together:
    """Calls that are cancelled together; one that begins when they have been is cancelled, too."""

    def __init__(self) -> None:
        self._clocks: list[CallClock] = []
        self._over = False

    def add(self, clock: CallClock) -> None:
        """One more call runs."""
        self._clocks.append(clock)
        if self._over:
            clock.cancel()

    def cancel(self) -> None:
        """End them all."""
        self._over = True
        for clock in list(self._clocks):
            clock.cancel()


def sync_pause(clock: CallClock, seconds: float) -> None:
    """Wait for a while, but no longer than the call lives."""
    over = threading.Event()
    clock.interrupt.arm(over.set)
    try:
        over.wait(seconds)
    finally:
        clock.interrupt.disarm()


async def async_pause(clock: CallClock, seconds: float) -> None:
    """Let other tasks run for a while, but no longer than the call lives."""
    import asyncio  # here as below: who does not use it need not wait for it at the start

    loop, over = asyncio.get_running_loop(), asyncio.Event()
    clock.interrupt.arm(lambda: loop.call_soon_threadsafe(over.set))
    alarm = loop.call_later(seconds, over.set)
    try:
        await over.wait()
    finally:
        alarm.cancel()
        clock.interrupt.disarm()


async def async_map(
    function: Callable[[Item], Awaitable[Result]], items: Sequence[Item], concurrency: int, progress: Progress
) -> list[Result]:
    """Apply ``function`` to every item, ``concurrency`` at a time, and keep the order."""
    import asyncio

    slots = asyncio.Semaphore(_checked(concurrency))
    with _reporting(progress, len(items)) as report:

        async def one(item: Item) -> Result:
            async with slots:
                result = await function(item)
            report()
            return result

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(item)) for item in items]
        return [task.result() for task in tasks]


def sync_map(
    function: Callable[[Item], Result], items: Sequence[Item], concurrency: int, progress: Progress
) -> list[Result]:
    """Apply ``function`` to every item, ``concurrency`` at a time, and keep the order.

    What is raised here, by Ctrl-C or by ``progress``, does not wait for what still runs: the caller is to end it.
    """
    from concurrent.futures import ThreadPoolExecutor, as_completed

    executor = ThreadPoolExecutor(_checked(concurrency), thread_name_prefix="autoglm")
    with _reporting(progress, len(items)) as report:
        try:
            futures = [executor.submit(function, item) for item in items]
            for future in as_completed(futures):
                future.result()
                report()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise
        executor.shutdown()
        return [future.result() for future in futures]


def _checked(concurrency: int) -> int:
    if concurrency < 1:
        raise ConfigurationError(f"concurrency={concurrency!r}: give the number of calls at a time, 1 or more")
    return concurrency


@contextmanager
def _reporting(progress: Progress, total: int) -> Iterator[Callable[[], object]]:
    """A function to call for each item that is done."""
    if progress is True:
        with _tqdm_bar(total) as update:
            yield update
        return
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if callable(progress):
            progress(done, total)

    yield report


@contextmanager
def _tqdm_bar(total: int) -> Iterator[Callable[[], object]]:
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise ConfigurationError('progress=True needs tqdm: pip install "autoglm-client[notebook]"') from error
    with tqdm(total=total) as bar:
        yield bar.update
