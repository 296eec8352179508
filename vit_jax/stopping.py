"""What SIGINT, SIGTERM and SIGHUP do to this program: they end it at once, or after a save.

Python runs the handler of a signal between two steps of the main thread, which may compile, read
or wait in C++ for minutes. So the program (`install`) lets a thread receive the signals: it ends
the process where nothing would be lost, and otherwise leaves a note (`told`) that a run looks at
wherever it can save. A second signal always ends the process at once.

Where `train` is called from Python, by a notebook or a test, the process is not ours: only within
`saving` a first signal is noted, and everything else stays as it was.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

GRACE = 5.0  # seconds that an interrupted command gets to clean up
_NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_Mode = Literal["end", "raise", "save"]


class _State:
    """Of this process: what the next signal does, and what was received."""

    def __init__(self) -> None:
        self.installed = False
        self.mode: _Mode = "end"
        self.text: Callable[[], str] = lambda: "interrupted"
        self.number, self.since = 0, 0.0
        self.cleanups: list[Callable[[], None]] = []


_STATE = _State()


def install() -> None:
    """Makes signals end this process as described above. For the program's first lines."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    for number in _heeded():
        # Received by the thread; here only what the main thread alone can do.
        signal.signal(number, _interrupt_main_thread)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    _STATE.installed = True
    threading.Thread(target=_receive, args=(read,), name="signals", daemon=True).start()


def told(*, for_seconds: float = 0.0) -> bool:
    """Whether a signal was received, and that long ago."""
    return bool(_STATE.number) and time.monotonic() - _STATE.since >= for_seconds


def signal_name() -> str:
    return signal.Signals(_STATE.number).name if _STATE.number else ""


def exit_code(*, default: int = signal.SIGINT) -> int:
    """128 and the number of the signal received, as shells count; `default` where there is none."""
    return 128 + (_STATE.number or default)


def ends_at_once(text: str) -> None:
    """From now on a signal ends the program at once with this line: there is nothing to save."""
    _STATE.mode, _STATE.text = "end", lambda: text


def raises() -> None:
    """From now on a signal raises KeyboardInterrupt in the main thread, so that it can clean up."""
    _STATE.mode, _STATE.text = "raise", lambda: "interrupted"


@contextlib.contextmanager
def cleanup(action: Callable[[], None]) -> Iterator[None]:
    """Has `action` called too where a signal ends the process at once, out of the middle."""
    _STATE.cleanups.append(action)
    try:
        yield
    finally:
        _STATE.cleanups.remove(action)


@contextlib.contextmanager
def saving(text: Callable[[], str]) -> Iterator[None]:
    """Within, the first signal is noted for `told`; a second one ends at once, saying `text()`."""
    if _STATE.installed:
        _STATE.mode, _STATE.text = "save", text
        try:
            yield
        finally:
            _STATE.mode = "end"
        return
    if threading.current_thread() is not threading.main_thread():
        yield  # Python delivers signals to the main thread only
        return
    handlers = {number: signal.getsignal(number) for number in _heeded()}

    def note(number: int, _: object) -> None:
        _note(number)
        for heeded, handler in handlers.items():
            signal.signal(heeded, handler)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _STATE.number = 0


def leave(code: int) -> None:
    """Ends the program with this code, soon, even where a thread waits for ever for a read."""
    if code and _STATE.installed:

        def end() -> None:
            time.sleep(GRACE)
            os._exit(code)

        threading.Thread(target=end, daemon=True).start()
    sys.exit(code)


def _heeded() -> list[int]:
    """The signals that were not ignored from the start, as `nohup` and a shell's `&` have it."""
    return [n for n in _NUMBERS if signal.getsignal(n) not in (signal.SIG_IGN, None)]


def _note(number: int) -> None:
    if not _STATE.number:
        _STATE.number, _STATE.since = number, time.monotonic()


def _interrupt_main_thread(*_: object) -> None:
    if _STATE.mode == "raise":
        raise KeyboardInterrupt


def _receive(read: int) -> None:
    """The thread: one byte for every signal that came."""
    while True:
        for number in os.read(read, 64):
            if number not in _NUMBERS:
                continue
            if _STATE.number or _STATE.mode == "end":
                _end(number)
            _note(number)
            if _STATE.mode == "raise":
                threading.Timer(GRACE, _end, (number,)).start()


def _end(number: int) -> None:
    """Ends the process, whatever its other threads are at."""
    said = ["interrupted"]
    cleaning = threading.Thread(target=_clean_up, args=(said,), daemon=True)
    cleaning.start()
    cleaning.join(GRACE)  # it may reach for a bucket
    line = f"vit_jax: {said[-1]}\n"
    with contextlib.suppress(OSError):
        # Not by sys.stderr, which the main thread may hold.
        os.write(2, (("\n" if os.isatty(2) else "") + line).encode())
    os._exit(128 + number)


def _clean_up(said: list[str]) -> None:
    with contextlib.suppress(Exception):
        said.append(_STATE.text())
    for action in reversed(_STATE.cleanups):
        with contextlib.suppress(Exception):
            action()
