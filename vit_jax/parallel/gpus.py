"""Facts about GPUs, for plans.

Sources: NVIDIA's data sheets of each GPU (peak without sparsity, bandwidth, NVLink) and its CUDA
guide (compute capabilities); the number of multiprocessors, sizes of caches and bytes of memory as
CUDA states them. Between nodes: the network cards of a DGX, one for each GPU.
"""

import dataclasses
from typing import Any

from vit_jax.parallel.chips import Chip

_TAKEN = 0.75  # share of the memory that JAX takes, unless XLA_PYTHON_CLIENT_MEM_FRACTION is set
_RING = 0.8  # share of the bandwidth of NVLink that NCCL reaches


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpu(Chip):
    """A GPU in nodes of up to 8. It has what the compiler must know, because none is asked."""

    platform: str = "gpu"
    dimensions: int = 1
    largest: tuple[int, ...] = (8,)
    on_one_host: int = 8
    chips_per_host: int = 8
    clock: float = 0.0  # no estimate of the compiler is in cycles
    capability: tuple[int, int]
    multiprocessors: int
    units: int  # float32 units of a multiprocessor
    shared: int  # bytes of shared memory of a multiprocessor
    l2: int  # bytes
    gigahertz: float

    @property
    def ring(self) -> float:
        return _RING * self.link

    @property
    def target(self) -> str:
        """The description of the GPU for XLA, which compiles for it without one."""
        major, minor = self.capability
        return f"""
            gpu_device_info {{
              cuda_compute_capability {{ major: {major} minor: {minor} }}
              threads_per_warp: 32
              threads_per_block_limit: 1024
              threads_per_core_limit: 2048
              block_dim_limit_x: 2147483647
              block_dim_limit_y: 65535
              block_dim_limit_z: 65535
              registers_per_core_limit: 65536
              registers_per_block_limit: 65536
              core_count: {self.multiprocessors}
              fpus_per_core: {self.units}
              shared_memory_per_block: 49152
              shared_memory_per_block_optin: {self.shared - 1024}
              shared_memory_per_core: {self.shared}
              l2_cache_size: {self.l2}
              clock_rate_ghz: {self.gigahertz}
              memory_bandwidth: {self.bandwidth:.0f}
              device_memory_size: {self.memory / _TAKEN:.0f}
            }}
            platform_name: "CUDA"
            dnn_version_info {{ major: 9 minor: 8 patch: 0 }}
            device_description_str: "{self.kind}"
        """


_HOPPER: dict[str, Any] = {
    **{"capability": (9, 0), "multiprocessors": 132, "units": 128, "shared": 233_472},
    **{"l2": 52_428_800, "gigahertz": 1.98, "peak": 989e12, "link": 450e9, "between": 50e9},
}
_AMPERE: dict[str, Any] = {
    **{"capability": (8, 0), "multiprocessors": 108, "units": 64, "shared": 167_936},
    **{"l2": 41_943_040, "gigahertz": 1.41, "peak": 312e12, "link": 300e9, "between": 25e9},
}
GPUS = (
    Gpu(
        name="a100",
        kind="NVIDIA A100-SXM4-40GB",
        aliases=("a100-40gb",),
        machines=("a2-highgpu",),
        cores=((1, 12), (2, 24), (4, 48), (8, 96)),
        memory=_TAKEN * 42.3e9,
        bandwidth=1555e9,
        **_AMPERE,
    ),
    Gpu(
        name="a100-80gb",
        kind="NVIDIA A100-SXM4-80GB",
        machines=("a2-ultragpu",),
        cores=((1, 12), (2, 24), (4, 48), (8, 96)),
        memory=_TAKEN * 85.0e9,
        bandwidth=2039e9,
        **_AMPERE,
    ),
    Gpu(
        name="h100",
        kind="NVIDIA H100 80GB HBM3",
        aliases=("h100-80gb",),
        machines=("a3-highgpu", "a3-megagpu"),
        cores=((1, 26), (2, 52), (4, 104), (8, 208)),
        memory=_TAKEN * 84.98e9,
        bandwidth=3352e9,
        **_HOPPER,
    ),
    Gpu(
        name="h200",
        kind="NVIDIA H200",
        machines=("a3-ultragpu",),
        cores=((8, 224),),
        memory=_TAKEN * 150.1e9,
        bandwidth=4800e9,
        **_HOPPER,
    ),
)
