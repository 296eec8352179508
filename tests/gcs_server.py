"""gcp-storage-emulator, telling the generation of an object that is read, as Google's server does.

TensorStore needs it to replace an object that it has read. Run as a program: PORT BUCKET.
"""

import sys
import time
from typing import Any

from gcp_storage_emulator.handlers import objects
from gcp_storage_emulator.server import create_server

_download = objects.download


def download(request: Any, response: Any, storage: Any, *args: Any, **options: Any) -> None:
    _download(request, response, storage, *args, **options)
    if response.status.value < 300:
        where = request.params["bucket_name"], request.params["object_id"]
        found = storage.get_file_obj(*where)
        response["x-goog-generation"] = found["generation"]
        response["x-goog-metageneration"] = found["metageneration"]


if __name__ == "__main__":
    objects.download = download
    port, bucket = sys.argv[1:]
    create_server("127.0.0.1", int(port), True, default_bucket=bucket).start()
    while True:
        time.sleep(60)
