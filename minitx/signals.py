"""Signals: a command always ends, with exit code 130 after Ctrl-C, 143 after SIGTERM and 129 after SIGHUP,
also in an import or a native call.

While modules are imported the process ends at once: some of them catch every exception, and go on. Otherwise
KeyboardInterrupt is raised, so that the command can clean up. If that does not end it within GRACE seconds,
as in a long native call, or if a second signal comes, a thread ends the process; a native call that holds the
interpreter, such as the parsing of a large JSON file, ends first. Files need no cleaning up:
the next writer completes or removes what was begun (`minitx.transaction`).
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

GRACE = 2.0  # seconds
INTERRUPT = signal.SIGINT
CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # not on Windows: a terminal or a connection was closed
    CODES[signal.SIGHUP], WORDS[signal.SIGHUP] = 129, "terminated"
_HANDLED = b"\0"  # no number of a signal


def _usual() -> dict[int, Any]:
    """Returns the handlers that Python has unless someone changes them."""
    return {n: signal.default_int_handler if n == INTERRUPT else signal.SIG_DFL for n in CODES}


def leave(number: int, frame: FrameType | None = None) -> None:
    """Ends the process; the handler until a command runs, when there is nothing to clean up."""
    os._exit(CODES[number])


def leave_at_once() -> None:
    """Lets signals end the process from here on, unless the caller ignores or handles them."""
    for number, usual in _usual().items():
        if signal.getsignal(number) == usual:
            signal.signal(number, leave)


class Stop:
    """The signals that came while a command runs.

    Attributes:
        received: numbers of those that no command has handled.
    """

    def __init__(self) -> None:
        import socket

        self.received: list[int] = []
        self._sender, self._receiver = socket.socketpair()
        self._sender.setblocking(False)

    def take(self, number: int, frame: FrameType | None) -> None:
        """Interrupts the command, as the handler while it runs; during an import the process ends."""
        self.received.append(number)
        if importing(frame):
            self.end(number)
        raise KeyboardInterrupt(number)

    def handled(self) -> None:
        """Forgets the signals: the command goes on."""
        self.received.clear()
        self._sender.send(_HANDLED)

    def end(self, number: int) -> None:
        """Ends the process with a message."""
        with suppress(OSError):
            os.write(2, f"minitx: {WORDS[number]}\n".encode())
        leave(number)

    def watch(self) -> None:
        """Ends the process where an exception does not: runs in a thread, and gets the numbers of signals."""
        while byte := self._receiver.recv(1):
            number = byte[0]
            if number not in CODES:
                continue
            end = time.monotonic() + GRACE
            try:
                while True:
                    self._receiver.settimeout(max(0.001, end - time.monotonic()))
                    byte = self._receiver.recv(1)
                    if not byte or byte[0] in (*CODES, *_HANDLED):  # others are no business of a command
                        break
            except TimeoutError:
                self.end(number)
            self._receiver.settimeout(None)
            if byte and byte != _HANDLED:
                self.end(number)
            if not byte:
                break
        self._receiver.close()

    def close(self) -> None:
        """Ends the thread."""
        self._sender.close()

    def fileno(self) -> int:
        """The descriptor for `signal.set_wakeup_fd`."""
        return self._sender.fileno()


_running: list[Stop] = []


def handled() -> None:
    """Tells that a KeyboardInterrupt was expected, and that the command goes on."""
    for stop in _running:
        stop.handled()


def importing(frame: FrameType | None) -> bool:
    """Whether a frame is part of an import."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@contextmanager
def signals() -> Iterator[list[int]]:
    """Handles Ctrl-C, SIGTERM and SIGHUP as the module's docstring states; yields those that came.

    A signal that the caller ignores or handles stays so, and only the main thread may set handlers.
    """
    stop = Stop()
    before, wakeup = {}, -1
    if threading.current_thread() is threading.main_thread():
        for number, usual in _usual().items():
            if (handler := signal.getsignal(number)) in (usual, leave):
                before[number] = handler
        if before:
            threading.Thread(target=stop.watch, daemon=True).start()
            wakeup = signal.set_wakeup_fd(stop.fileno(), warn_on_full_buffer=False)
        for number in before:
            signal.signal(number, stop.take)
    _running.append(stop)
    try:
        yield stop.received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if before:
            signal.set_wakeup_fd(wakeup)
        _running.remove(stop)
        stop.close()


@contextmanager
def deferred() -> Iterator[list[int]]:
    """Collects the first Ctrl-C, SIGTERM or SIGHUP, so that work can end; yields the list that gets it.

    A second signal raises KeyboardInterrupt at once. The command that runs is not ended meanwhile, however
    long a native call takes. A signal that the caller ignores or handles stays so, and only the main thread
    may set handlers.
    """
    received: list[int] = []

    def _take(number: int, frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt(number)
        received.append(number)

    before, wakeup = {}, -1
    if threading.current_thread() is threading.main_thread():
        commands = [stop.take for stop in _running]
        for number, usual in _usual().items():
            if (handler := signal.getsignal(number)) in (usual, leave, *commands):
                before[number] = handler
        if before and commands:
            wakeup = signal.set_wakeup_fd(-1)
        for number in before:
            signal.signal(number, _take)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if wakeup != -1:
            signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
