"""SIGINT, SIGTERM and SIGHUP: they end the program at once, or after it has saved.

Python runs a signal handler only between two bytecodes of the main thread, which may compile, read
or wait in C++ for minutes. So the program (`install`) receives signals in a thread. If nothing
would be lost, the thread ends the process. Otherwise it records the signal, and the run checks
`requested` whenever it can save. A second signal always ends the process at once.

If Python code calls `train`, in a notebook or a test, the process is not ours: a first signal is
recorded only within `saving`, and nothing else changes.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from typing import Literal

GRACE = 5.0  # seconds that an interrupted command has to clean up
_NUMBERS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]
_Mode = Literal["end", "raise", "save"]


class _State:
    """What the next signal does in this process, and which signal was received."""

    def __init__(self) -> None:
        self.installed = False
        self.mode: _Mode = "end"
        self.text: Callable[[], str] = lambda: "interrupted"
        self.number, self.since = 0, 0.0
        self.cleanups: list[Callable[[], None]] = []


_STATE = _State()


def install() -> None:
    """Makes signals end this process as described above. Call it when the program starts."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    for number in _heeded():
        # The thread receives the signal; this handler does what only the main thread can do.
        signal.signal(number, _interrupt_main_thread)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    _STATE.installed = True
    threading.Thread(target=_receive, args=(read,), name="signals", daemon=True).start()


def requested(*, for_seconds: float = 0.0) -> bool:
    """Whether a signal was received, at least `for_seconds` ago."""
    return bool(_STATE.number) and time.monotonic() - _STATE.since >= for_seconds


def signal_name() -> str:
    return signal.Signals(_STATE.number).name if _STATE.number else ""


def exit_code(*, default: int = signal.SIGINT) -> int:
    """128 plus the number of the received signal, as in shells; `default`: if there was none."""
    return 128 + (_STATE.number or default)


def ends_at_once(text: str) -> None:
    """From now on a signal ends the program at once and prints `text`: nothing must be saved."""
    _STATE.mode, _STATE.text = "end", lambda: text


def raises() -> None:
    """From now on a signal raises KeyboardInterrupt in the main thread, which can clean up.

    While a module is imported, a signal ends the program at once.
    """
    _STATE.mode, _STATE.text = "raise", lambda: "interrupted"


@contextlib.contextmanager
def cleanup(action: Callable[[], None]) -> Iterator[None]:
    """Within, `action` is called if a signal ends the process at once."""
    _STATE.cleanups.append(action)
    try:
        yield
    finally:
        _STATE.cleanups.remove(action)


@contextlib.contextmanager
def saving(text: Callable[[], str]) -> Iterator[None]:
    """Within, a first signal is recorded (`requested`); a second one prints `text()` and ends."""
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
    """Ends the program with this code within `GRACE`, even if a thread blocks in a read."""
    if code and _STATE.installed:

        def end() -> None:
            time.sleep(GRACE)
            os._exit(code)

        threading.Thread(target=end, daemon=True).start()
    sys.exit(code)


def _heeded() -> list[int]:
    """The signals to handle: those that `nohup` or a shell's `&` does not ignore."""
    return [n for n in _NUMBERS if signal.getsignal(n) not in (signal.SIG_IGN, None)]


def _note(number: int) -> None:
    if not _STATE.number:
        _STATE.number, _STATE.since = number, time.monotonic()


def _interrupt_main_thread(number: int, frame: types.FrameType | None) -> None:
    if _STATE.mode != "raise":
        return
    if not _imports(frame):
        raise KeyboardInterrupt
    # An exception in a module that is half imported may crash the process: `_receive` shall end it.
    _STATE.mode = "end"
    signal.raise_signal(number)


def _imports(frame: types.FrameType | None) -> bool:
    """Whether this frame runs because a module is imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _receive(read: int) -> None:
    """The thread that receives the signals, as one byte each."""
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
    """Ends the process, whatever its other threads do."""
    lines = ["interrupted"]
    cleaning = threading.Thread(target=_clean_up, args=(lines,), daemon=True)
    cleaning.start()
    cleaning.join(GRACE)  # it may use a bucket
    line = f"vit_jax: {lines[-1]}\n"
    with contextlib.suppress(OSError):
        # Not through sys.stderr, whose lock the main thread may hold.
        os.write(2, (("\n" if os.isatty(2) else "") + line).encode())
    os._exit(128 + number)


def _clean_up(lines: list[str]) -> None:
    with contextlib.suppress(Exception):
        lines.append(_STATE.text())
    for action in reversed(_STATE.cleanups):
        with contextlib.suppress(Exception):
            action()
