"""Only one run uses a workdir: who holds the lease, who is refused, and who takes it over."""

import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import uuid

import pytest

from tests.patience import limit, wait_until
from vit_jax.checkpoints import exclusive, lease, processes
from vit_jax.errors import RunFailed


@pytest.fixture(autouse=True)
def _soon(monkeypatch) -> None:
    monkeypatch.setattr(lease, "BEAT", 0.05)
    monkeypatch.setattr(lease, "EXPIRES", 0.6)
    monkeypatch.setattr(lease, "POLL", 0.02)
    monkeypatch.setattr(exclusive, "READ_BACK", 0.05)


@pytest.fixture(params=["folder", "bucket"])
def workdir(request, tmp_path) -> str:
    if request.param == "folder":
        return str(tmp_path / "a" / "run")
    return f"memory://{uuid.uuid4()}/run"


@pytest.fixture
def folder(workdir) -> exclusive.Folder:
    made = exclusive.folder(workdir)
    made.make()
    return made


def of(process: dict, **more) -> bytes:
    return json.dumps({"process": process, "nonce": "x", **more}).encode()


ELSEWHERE = {"host": ["other", "b", "p"], "pid": 7, "start": "1"}


def take(workdir: str, messages: list[str] | None = None) -> lease.Lease:
    return lease.acquire(workdir, say=(messages if messages is not None else []).append)


def test_a_living_holder_of_this_host_is_named_and_kept(workdir, folder) -> None:
    held = take(workdir)
    with pytest.raises(
        ValueError, match=rf"in use: process {os.getpid()} on .*\d s ago"
    ) as refused:
        take(workdir)
    assert "\n" not in str(refused.value)
    held.check(now=True)
    held.release()
    assert folder.read(lease.NAME) is None
    take(workdir).release()


def test_a_dead_holder_of_this_host_is_replaced_at_once(workdir, folder, monkeypatch) -> None:
    monkeypatch.setattr(lease, "EXPIRES", 60)  # a slow machine does not wait for that
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(limit(20))
    gone = processes.identity() | {"pid": ended.pid}
    reused = processes.identity() | {"start": "1"}  # its number is another process's now
    for process in (gone, reused):
        folder.replace(lease.NAME, of(process))
        began = time.monotonic()
        take(workdir).release()
        assert time.monotonic() - began < lease.EXPIRES


@pytest.mark.parametrize(
    "content",
    [
        of(ELSEWHERE),
        b"",
        b"{",
        b"[" * 10000,
        b'{"process": 3, "since": [], "nonce": null}',
        b"\xff",
    ],
)
def test_a_holder_in_an_unknown_state_is_replaced_if_its_lease_is_not_renewed(
    tmp_path, content
) -> None:
    exclusive.folder(tmp_path).replace(lease.NAME, content)
    messages: list[str] = []
    began = time.monotonic()
    take(str(tmp_path), messages).release()
    assert time.monotonic() - began > lease.EXPIRES
    assert len(messages) == 1
    assert "waiting up to" in messages[0]


def test_a_holder_on_another_host_that_renews_its_lease_is_kept(workdir, folder) -> None:
    folder.replace(lease.NAME, of(ELSEWHERE, beat=0))

    def renew(_: str) -> None:  # once the first look has found the lease
        folder.replace(lease.NAME, of(ELSEWHERE, beat=1))

    with pytest.raises(ValueError, match="in use: process 7 on other"):
        lease.acquire(workdir, say=renew)


def test_a_lease_is_printed_without_control_characters(tmp_path) -> None:
    process = {"host": ["\x1b[31m", "b", "p"], "pid": "\n1"}
    messages: list[str] = []
    exclusive.folder(tmp_path).replace(lease.NAME, of(process, since="2026-01-01T00:00:00+00:00"))
    take(str(tmp_path), messages).release()
    assert messages[0].isprintable()


@pytest.mark.parametrize("content", [None, of(processes.identity() | {"start": "1"})])
def test_exactly_one_of_many_simultaneous_starts_succeeds(
    workdir, folder, content, monkeypatch
) -> None:
    """Each thread has its own view of the folder, as a process would."""
    monkeypatch.setattr(lease, "EXPIRES", 60)  # a thread may wait long for its turn
    if content:
        folder.replace(lease.NAME, content)
    held, refused, barrier = [], [], threading.Barrier(8)

    def start() -> None:
        barrier.wait(limit(20))
        try:
            held.append(take(workdir))
        except ValueError as error:
            refused.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(limit(60))
    assert (len(held), len(refused)) == (1, 7)
    held[0].check(now=True)
    held[0].release()


def test_a_holder_notices_a_takeover_and_leaves_the_new_lease_alone(
    workdir, folder, monkeypatch
) -> None:
    monkeypatch.setattr(lease, "BEAT", 60)  # it is paused: no renewal is on its way
    paused = take(workdir)
    theirs = of(ELSEWHERE)
    folder.replace(lease.NAME, theirs)
    with pytest.raises(RunFailed, match="lost the workdir .*: process 7 on other took it over"):
        paused.check(now=True)
    paused.release()
    assert folder.read(lease.NAME) == theirs


def test_a_holder_notices_by_itself_that_its_lease_is_gone(workdir, folder) -> None:
    held = take(workdir)
    folder.remove(lease.NAME)

    def go_on() -> bool:
        held.check()
        return False

    with pytest.raises(RunFailed, match=r"lease\.json is gone"):
        wait_until(go_on, seconds=20)
    assert folder.read(lease.NAME) is None


def test_a_lease_that_was_released_lets_nothing_more_be_written(workdir, folder) -> None:
    """A second signal releases it while the main thread still saves. The signal's line is last."""
    held = take(workdir)
    held.release()
    began = time.monotonic()
    with pytest.raises(RunFailed, match="it was released. Nothing more is written"):
        held.check(now=True)
    assert time.monotonic() - began >= 0.1, "the signal has no time to end the process"
    with pytest.raises(RunFailed, match="it was released"):
        held.check()


def test_the_claim_of_a_dead_process_is_removed(workdir, folder, monkeypatch) -> None:
    """A process that is killed while it takes over a lease leaves a claim."""
    folder.replace(lease.NAME, of(processes.identity() | {"start": "1"}))
    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(type(folder), "replace", lambda *_: exec("raise KeyboardInterrupt"))
        killed.setattr(type(folder), "remove", lambda *_: None)
        take(workdir)
    take(workdir).release()


def test_a_refused_run_leaves_no_files(tmp_path) -> None:
    with pytest.raises(ValueError, match="no"), lease.hold(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b" / lease.NAME).exists()
        raise ValueError("no")
    assert not (tmp_path / "a").exists()


def test_a_lease_is_exclusive_without_hard_links(tmp_path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    held = take(str(tmp_path))
    with pytest.raises(ValueError, match="in use"):
        take(str(tmp_path))
    held.release()
    assert list(pathlib.Path(tmp_path).iterdir()) == []
