"""The workdir of a run, on this machine or on a bucket: paths, lines of metrics, and uploads."""
