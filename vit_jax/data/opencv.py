"""OpenCV, imported when it is first used, with one thread.

The import takes 0.1 s, which a recipe's options do not need. OpenCV's own threads would multiply
the threads of the pipeline.
"""

import sys

from etils import epy


def _one_thread(name: str) -> None:
    sys.modules[name].setNumThreads(1)


with epy.lazy_imports(success_callback=_one_thread):
    import cv2 as cv2
