"""How a call is ended from outside, at once, whatever it waits for."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import RLock
from typing import Protocol

__all__ = ["Interrupt", "duplicate", "hang_up"]


class _HasDescriptor(Protocol):
    def fileno(self) -> int: ...


class Interrupt:
    """Knows what wakes a call that waits: a connection to hang up, a pause to end, a task to cancel.

    Whoever is about to wait arms it. It wakes under its lock, so that a connection which was given back is never hung
    up under the next call; the lock is one that a signal handler may take again.
    """

    __slots__ = ("_lock", "_pid", "_wake", "fired")

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._lock = RLock()
        self._wake: Callable[[], object] | None = None
        self.fired = False

    def arm(self, wake: Callable[[], object]) -> None:
        """Say what wakes the call from now on; it does so at once when the call has been ended already."""
        with self._lock:
            self._wake = wake
            if self.fired:
                wake()

    def disarm(self) -> None:
        """Nothing waits any more."""
        with self._lock:
            self._wake = None

    def fire(self) -> None:
        """Wake the call, and everything that it will still wait for."""
        with self._lock:
            self.fired = True
            if self._wake is not None and not self.inherited:
                self._wake()

    @property
    def inherited(self) -> bool:
        """Whether the call was begun by the process that forked this one: its connection is not ours to end."""
        return os.getpid() != self._pid


def hang_up(connection: _HasDescriptor) -> None:
    """End a connection without closing its descriptor, which a thread may be reading: the read returns at once."""
    with suppress(OSError), duplicate(connection) as twin:  # unless it was closed meanwhile
        twin.shutdown(socket.SHUT_RDWR)


def duplicate(connection: _HasDescriptor) -> socket.socket:
    """Another descriptor: ``shutdown`` of a TLS socket drops its session, and uvloop's sockets have none."""
    return socket.socket(fileno=os.dup(connection.fileno()))
