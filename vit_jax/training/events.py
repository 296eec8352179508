"""TensorBoard's event files: writing scalars, and reading which scalars files show.

A scalar is on disk when `write` returns.
"""

import pathlib
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import DecodeError
from tensorboardX import crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

Shown = set[tuple[int, str]]  # step and tag of each scalar

_VERSION = "brain.Event:2"  # from this version on TensorBoard obeys `SessionLog.START`


class Events:
    """Writes event files. The first one hides what older files have beyond `start_step`."""

    def __init__(self, folder: pathlib.Path, *, start_step: int, older: int = 0) -> None:
        """`older` is the number of older files: the names of files sort in the order of writing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._count = folder, older
        self._open()
        first = start_step + 1
        self._put(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            scalar = Summary(value=[Summary.Value(tag=name, simple_value=value)])
            self._put(Event(step=step, summary=scalar))
        self._file.flush()

    def next_file(self, *, larger_than: int) -> None:
        """Continues in another file if this one has more than `larger_than` bytes."""
        if self._file.tell() > larger_than:
            self.close()
            self._open()

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        # TensorBoard expects names that sort in the order of writing.
        stem = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self._file = (self._folder / f"{stem}.{self._count:06d}").open("xb")
        self._count += 1
        self._put(Event(file_version=_VERSION))
        self._file.flush()

    def _put(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(_record(event.SerializeToString()))


def shown(files: Iterable[bytes]) -> Shown:
    """The scalars that TensorBoard shows of these event files, which are sorted by name."""
    found: Shown = set()
    for content in files:
        for event in _events(content):
            if event.session_log.status == SessionLog.START:
                found = {(step, tag) for step, tag in found if step < event.step}
            for value in event.summary.value:
                found.add((event.step, value.tag))
    return found


def _events(content: bytes) -> Iterator[Event]:
    """The events of a file, up to the first damaged one: TensorBoard stops reading there too."""
    at = 0
    while at + 12 <= len(content):
        header, check = content[at : at + 8], content[at + 8 : at + 12]
        (length,) = struct.unpack("<Q", header)
        data = content[at + 12 : at + 12 + length]
        end = content[at + 12 + length : at + 16 + length]
        if check != _checksum(header) or len(end) < 4 or end != _checksum(data):
            return
        try:
            yield Event.FromString(data)
        except DecodeError:
            return
        at += 16 + length


def _record(data: bytes) -> bytes:
    header = struct.pack("<Q", len(data))
    return header + _checksum(header) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked as in TFRecord."""
    crc = crc32c.crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
