"""What a signal means to a server that is still starting: the same as later, that it ends well. Imports
nothing that takes time."""

from __future__ import annotations

import os
import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
RELOAD_SIGNAL = signal.SIGHUP


class EarlySignals:
    """Holds the stop signals until whoever serves takes them over, and then looks whether one was `asked`.

    Before `hold` there is nothing to close: a signal ends the process on the spot. A second one always does.
    """

    def __init__(self) -> None:
        self._held = False
        self._asked = False

    def take(self) -> None:
        """Call first of all, in the main thread."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._on_signal)

    def hold(self) -> None:
        """From now on there are processes and files to be closed."""
        self._held = True

    def outlive_reload(self) -> None:
        """Until somebody listens for it, nothing has to be read again: what begins now reads it anyway.
        Processes started from here do not inherit that."""
        signal.signal(RELOAD_SIGNAL, lambda number, frame: None)

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._asked

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            os._exit(128 + number)
        if not self._held:
            os._exit(0)
        self._asked = True
