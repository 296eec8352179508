"""Measures the time to trace and compile a training step, which should not grow with depth.

python benchmarks/compile_time.py [--depths 12 24 48]
"""

import argparse
import statistics
import time

import jax
from dispatch import build


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--depths", type=int, nargs="+", default=[12, 24, 48])
    parser.add_argument("--rounds", type=int, default=5)
    flags = parser.parse_args()
    measure(flags.depths[0])  # imports and warm-up
    times: dict[int, list[tuple[float, float]]] = {depth: [] for depth in flags.depths}
    for _ in range(flags.rounds):
        for depth in flags.depths:
            times[depth].append(measure(depth))
    print("| depth | trace and lower s | compile s | total s | relative to the first |")
    print("|---|---|---|---|---|")
    first = 0.0
    for depth, pairs in times.items():
        lower, compiled = (statistics.median(column) for column in zip(*pairs, strict=True))
        first = first or lower + compiled
        total = lower + compiled
        print(f"| {depth} | {lower:.2f} | {compiled:.2f} | {total:.2f} | {total / first:.2f} |")


def measure(depth: int) -> tuple[float, float]:
    """Seconds to lower and to compile, without any cache."""
    jax.clear_caches()
    step, state, batch = build(depth)
    start = time.perf_counter()
    lowered = step.lower(state, batch, {})
    middle = time.perf_counter()
    lowered.compile()
    return middle - start, time.perf_counter() - middle


if __name__ == "__main__":
    main()
