"""TensorBoard's event files: scalars, on disk when `write` returns, and what a folder shows."""

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

_VERSION = "brain.Event:2"  # with it TensorBoard heeds what `SessionLog.START` purges


class Events:
    """Writes event files, the first of which hides what older ones have beyond `start_step`."""

    def __init__(self, folder: pathlib.Path, *, start_step: int, older: int = 0) -> None:
        """`older` is how many files there are already: names are in the order of writing."""
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
        """Goes on in another file once this one has more than so many bytes."""
        if self._file.tell() > larger_than:
            self.close()
            self._open()

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        # As TensorBoard expects it: what is written later is later in the order of names.
        stem = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        self._file = (self._folder / f"{stem}.{self._count:06d}").open("xb")
        self._count += 1
        self._put(Event(file_version=_VERSION))
        self._file.flush()

    def _put(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(_record(event.SerializeToString()))


def shown(files: Iterable[bytes]) -> Shown:
    """The scalars that TensorBoard shows of event files, given in the order of their names."""
    found: Shown = set()
    for content in files:
        for event in _events(content):
            if event.session_log.status == SessionLog.START:
                found = {(step, tag) for step, tag in found if step < event.step}
            for value in event.summary.value:
                found.add((event.step, value.tag))
    return found


def _events(content: bytes) -> Iterator[Event]:
    """The events of a file, to the first that a kill cut: nobody reads on from there."""
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
