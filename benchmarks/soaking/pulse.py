"""How long this process was not let run, which is no call's fault."""

from __future__ import annotations

import threading
import time

BEAT_SECONDS = 0.05
NOTED_SECONDS = 0.1


class Pulse:
    """A thread that sleeps a little, again and again, and notes when it woke too late."""

    def __init__(self) -> None:
        self.lost: list[tuple[float, float]] = []
        """When, and how many seconds."""
        self._asleep_since = time.monotonic()
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def _beat(self) -> None:
        while True:
            self._asleep_since = time.monotonic()
            time.sleep(BEAT_SECONDS)
            if (lost := self._late()) > NOTED_SECONDS:
                self.lost.append((self._asleep_since, lost))

    def _late(self) -> float:
        return time.monotonic() - self._asleep_since - BEAT_SECONDS

    def lost_since(self, moment: float) -> float:
        """Seconds that were lost since then, the ones that are being lost included."""
        noted = sum(lost for began, lost in self.lost if began + BEAT_SECONDS + lost > moment)
        return noted + max(self._late(), 0.0)
