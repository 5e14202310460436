"""How a process that runs until it is told to end learns of that."""

import _thread
import signal
import threading

__all__ = ["end_on_signals"]


def end_on_signals(stopping: threading.Event) -> None:
    """SIGINT, SIGTERM and, unless it is ignored as under nohup, SIGHUP set `stopping` from now on."""

    def stop(*_: object) -> None:
        # In a thread: the handler interrupts the main one, which may hold the event's lock, as in an earlier signal's.
        _thread.start_new_thread(stopping.set, ())

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
        signal.signal(number, stop)
