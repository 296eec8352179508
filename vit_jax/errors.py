"""Ends of a command that are no bug and no wrong input: each is one line and an exit code."""


class RunFailed(RuntimeError):
    """The run cannot go on, though what was asked for is right; what it saved is kept. Code 1.

    The message is one line: what failed, what is kept, and what to do.
    """


class Stopped(RuntimeError):
    """The run was told to stop, and has saved a state to go on from."""

    def __init__(self, message: str, *, code: int = 143) -> None:
        """`code`: the exit code, 128 and the number of the signal."""
        super().__init__(message)
        self.code = code


class Interrupted(RuntimeError):
    """What was waited for is given up: the run was told to stop."""
