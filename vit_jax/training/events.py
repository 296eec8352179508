"""TensorBoard's event files: writing scalars, and reading which scalars files show.

A scalar is on disk when `write` returns.
"""

import pathlib
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping

from etils import epy

# Imported at the first number that is written: with the libraries of buckets installed,
# tensorboardX imports them too, which takes 0.2 s.
with epy.lazy_imports():
    from google.protobuf import message
    from tensorboardX import crc32c
    from tensorboardX.proto import event_pb2, summary_pb2

Shown = set[tuple[int, str]]  # step and tag of each scalar

# Groups of metrics that are neither of training nor of an evaluation.
_GROUPS = {"images_per_second": "time", "data_wait": "time", "bad_images": "data"}

_VERSION = "brain.Event:2"  # from this version on TensorBoard obeys `SessionLog.START`


def tag(name: str) -> str:
    """The tag of a metric, with its group in TensorBoard before the slash: `eval/top1`."""
    if name.startswith("eval_"):
        return f"eval/{name.removeprefix('eval_')}"
    return f"{_GROUPS.get(name, 'train')}/{name}"


class Events:
    """Writes event files. The first one hides what older files have beyond `start_step`."""

    def __init__(self, folder: pathlib.Path, *, start_step: int, older: int = 0) -> None:
        """`older` is the number of older files: the names of files sort in the order of writing."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._count = folder, older
        self._begins: int | None = start_step + 1  # None: the first file was written to
        self._open()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        if not self._file.tell():
            self._begin()
        for name, value in metrics.items():
            scalar = summary_pb2.Summary.Value(tag=tag(name), simple_value=value)
            summary = summary_pb2.Summary(value=[scalar])
            self._put(event_pb2.Event(step=step, summary=summary))
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

    def _begin(self) -> None:
        self._put(event_pb2.Event(file_version=_VERSION))
        if self._begins is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._put(event_pb2.Event(step=self._begins, session_log=start))
            self._begins = None

    def _put(self, event: "event_pb2.Event") -> None:
        event.wall_time = time.time()
        self._file.write(_record(event.SerializeToString()))


def shown(files: Iterable[bytes]) -> Shown:
    """The scalars that TensorBoard shows of these event files, which are sorted by name."""
    found: Shown = set()
    for content in files:
        for event in _events(content):
            if event.session_log.status == event_pb2.SessionLog.START:
                found = {(step, tag) for step, tag in found if step < event.step}
            for value in event.summary.value:
                found.add((event.step, value.tag))
    return found


def _events(content: bytes) -> Iterator["event_pb2.Event"]:
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
            yield event_pb2.Event.FromString(data)
        except message.DecodeError:
            return
        at += 16 + length


def _record(data: bytes) -> bytes:
    header = struct.pack("<Q", len(data))
    return header + _checksum(header) + data + _checksum(data)


def _checksum(data: bytes) -> bytes:
    """CRC-32C, masked as in TFRecord."""
    crc = crc32c.crc32c(data)
    return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)
