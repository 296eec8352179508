"""Errors that are neither bugs nor bad input: each ends a command with one line and a code."""


class RunFailed(RuntimeError):
    """The run failed although its input is right; its checkpoints are kept. The exit code is 1.

    The message is one line: what failed, what is kept, and what to do.
    """


class Stopped(RuntimeError):
    """The run was told to stop, and saved a state to resume from."""

    def __init__(self, message: str, *, code: int = 143) -> None:
        """`code`: the exit code, 128 plus the number of the signal."""
        super().__init__(message)
        self.code = code


class Interrupted(RuntimeError):
    """A wait was stopped, because the run was told to stop.

    The message, if there is one, is one line: what to do.
    """


class NotReady(Interrupted):
    """The wait for images was stopped. With several processes, only this one may know of it."""
