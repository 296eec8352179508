"""Measures what a plan predicts, on the devices that are there: the step, the input, checkpoints.

`step`, `input`, `checkpoint` and `scaling` measure; each returns a `report.Report`, which `tables`
and `page` show and `compare` compares with an earlier one (docs/benchmark.md).
"""
