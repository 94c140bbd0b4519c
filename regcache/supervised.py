"""
Telling the service manager how the service is: ready, alive, stopping (sd_notify(3)).

The protocol is one datagram a message, so that no library is needed for it.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from regcache.logs import Log
from regcache.pulse import Pulse

__all__ = ["Supervisor"]

_log = Log()


class Supervisor:
    """
    Whoever started the service and wants to know how it is; without one nothing is told.

    :param clock: timers and monotonic seconds.
    :param environ: where it says so: ``NOTIFY_SOCKET``, and for a watchdog ``WATCHDOG_USEC`` and ``WATCHDOG_PID``.
    :param monotonic: nanoseconds of the system's monotonic clock, by which it knows one reload from another.
    """

    def __init__(
        self, clock: IReactorTime, environ: Mapping[str, str], monotonic: Callable[[], int] = time.monotonic_ns
    ) -> None:
        place = environ.get("NOTIFY_SOCKET", "")
        # An abstract address begins with a zero byte, which cannot stand in a variable.
        self._place = "\0" + place[1:] if place.startswith("@") else place
        self._clock, self._monotonic = clock, monotonic
        self._reloading = False
        self._pulse: Pulse | None = None
        self._turned: IDelayedCall | None = None
        self._complained = False
        patience = _patience(environ)
        if self._place and patience:
            # So often that one beat may be late (sd_watchdog_enabled(3)).
            self._pulse = Pulse(clock, patience / 2, lambda _: self._tell("WATCHDOG=1"))

    def start(self) -> None:
        """All is open: say so as soon as the reactor turns, and go on to show that it does."""
        if self._place:
            self._turned = self._clock.callLater(0, self._tell, "READY=1")
        if self._pulse is not None:
            self._pulse.start()

    def reloading(self) -> None:
        """It reads its configuration again; before it was ready, that is still to be said, and is enough."""
        if self._place and (self._turned is None or not self._turned.active()):
            self._reloading = True
            self._tell(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic() // 1000}")

    def reloaded(self) -> None:
        """It has done so, whatever came of it."""
        if self._reloading:
            self._reloading = False
            self._tell("READY=1")

    def stopping(self) -> None:
        """The end has begun; it may take its time as long as the reactor turns."""
        self._reloading = False
        if self._turned is not None and self._turned.active():
            self._turned.cancel()
        if self._place:
            self._tell("STOPPING=1")

    def stop(self) -> None:
        """It has ended."""
        if self._pulse is not None:
            self._pulse.stop()

    def _tell(self, state: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # Rather one message less than a reactor that waits.
                sender.setblocking(False)
                sender.sendto(state.encode(), self._place)
        except OSError as error:
            if not self._complained:
                self._complained = True
                why = error.strerror or str(error)
                _log.warn("NOTIFY_SOCKET: the service manager cannot be told {state}: {why}.", state=state, why=why)


def _patience(environ: Mapping[str, str]) -> float:
    """Seconds without a word after which the watchdog ends this process; 0 for never."""
    said = environ.get("WATCHDOG_USEC", "")
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0
    return int(said) / 1e6 if said.isascii() and said.isdigit() else 0.0
