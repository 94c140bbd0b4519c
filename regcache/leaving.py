"""
Answers that leave together, at the end of a turn of the reactor's.

Each that leaves wakes whoever waits for it, and what the kernel does then pushes out of the processor's own memory what
the next one needs: sent one by one, they took a quarter more. So where several have asked by the time that the reactor
looks, their answers are found one after the other, and sent after that.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from regcache.hurry import Client

__all__ = ["Leaving"]

#: Answers that leave together: no client waits for more others than that.
_MOST = 16


class Leaving:
    """
    The answers that are to leave in this turn.

    :param clock: calls back at the end of the turn.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: list[tuple[Client, bytes, bytes]] = []
        self._timed = False

    def add(self, client: Client, head: bytes, body: bytes) -> None:
        """
        Have an answer sent, on a connection on which nothing else is under way.

        Whoever is to do something else there before the turn is over has them all sent first: what came while another
        request was answered is read at the end of that, and more may come in the same turn.

        It is small: what the socket does not take at once waits in the transport.
        """
        if client.socket is None:
            # It has a buffer of its own.
            client.write(head, body)
            return
        client.waits = True
        self._waiting.append((client, head, body))
        if len(self._waiting) >= _MOST:
            self.send()
        elif not self._timed:
            self._timed = True
            self._clock.callLater(0, self._turned)

    def _turned(self) -> None:
        self._timed = False
        self.send()

    def send(self) -> None:
        """Send what there is, to whoever is still there."""
        waiting, self._waiting = self._waiting, []
        for client, head, body in waiting:
            client.waits = False
            if client.socket is not None and client.socket.is_open:
                client.write(head, body)
