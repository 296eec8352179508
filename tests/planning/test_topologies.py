"""Names of topologies as users of Cloud write them."""

import pytest

from vit_jax.parallel.chips import CHIPS
from vit_jax.planning import topologies


@pytest.mark.parametrize(
    ("name", "compiler_name", "devices", "hosts"),
    [
        ("v5p-512", "v5p:4x8x8", 256, 64),
        ("v5p-12288", "v5p:16x16x24", 6144, 1536),
        ("v5litepod-256", "v5e:16x16", 256, 64),
        ("v5e-8", "v5e:2x4", 8, 1),
        ("V5E-16", "v5e:4x4", 16, 4),
        ("v5e:4x4", "v5e:4x4", 16, 4),
        ("v4-128", "v4:4x4x4", 64, 16),
        ("v3-8", "v3:2x2", 8, 1),
        ("v6e-256", "v6e:16x16", 256, 64),
        ("tpu7x-8", "tpu7x:2x2x1", 8, 1),
        ("2xv5e-256", "v5e:16x16", 512, 128),
        ("v5litepod-1", "v5e:1x1", 1, 1),
        ("v6e-1", "v6e:1x1", 1, 1),
        ("v5p-8", "v5p:2x2x1", 4, 1),
        ("ct5lp-hightpu-8t", "v5e:2x4", 8, 1),
        ("ct5p-hightpu-2t", "v5p:1x2x1", 2, 1),
        ("2xct6e-standard-4t:4x4", "v6e:4x4", 32, 8),
        ("ct6e-standard-4t:2x4", "v6e:2x4", 8, 2),
        ("2xct5lp-hightpu-4t:2x4", "v5e:2x4", 16, 4),
        ("ct5lp-hightpu-8t:2x4", "v5e:2x4", 8, 1),
        ("tpu-v5-lite-podslice:2x4", "v5e:2x4", 8, 1),
        ("v5p:2x8x8", "v5p:2x8x8", 128, 32),
        ("2xv5e:2x16", "v5e:2x16", 64, 16),
        ("h100-8", "h100:8", 8, 1),
        ("4xa100-80gb-8", "a100-80gb:8", 32, 4),
        ("a3-ultragpu-8g", "h200:8", 8, 1),
    ],
)
def test_names_of_cloud(name, compiler_name, devices, hosts) -> None:
    found = topologies.parse(name)
    assert (found.compiler_name, found.devices, found.hosts) == (compiler_name, devices, hosts)
    assert topologies.parse(found.name) == found


def test_a_name_has_the_shape_only_where_cloud_gives_another_one() -> None:
    names = ["v5p:4x4x8", "v5p:2x8x8", "3xv5e:4x4", "3xv5e:2x8", "ct6e-standard-4t:2x4", "v6e:2x4"]
    found = [topologies.parse(name).name for name in names]
    assert found == [
        *("v5p-256", "v5p:2x8x8", "3xv5e-16", "3xv5e:2x8", "ct6e-standard-4t:2x4", "v6e-8"),
    ]


@pytest.mark.parametrize(
    ("name", "cores"),
    [
        ("ct5lp-hightpu-8t", 224),
        ("ct5lp-hightpu-4t:2x4", 112),
        ("ct6e-standard-4t:2x4", 180),
        ("v5e-16", 112),
        ("v5p-4", 104),  # half a host
        ("h100-4", 104),
    ],
)
def test_the_cores_of_a_host_are_those_of_its_machine(name, cores) -> None:
    assert topologies.parse(name).host_cores == cores


def test_the_clock_of_a_chip_agrees_with_its_peak() -> None:
    """In a cycle two matrix units of 128 x 128 do 65,536 FLOPs; a device has such pairs."""
    for chip in CHIPS[1:]:  # a device of v2 has a single unit
        pairs = chip.peak / chip.clock / 65_536
        assert pairs == pytest.approx(max(1, round(pairs)), rel=0.01), chip.name


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("v5q-256", "did you mean v5p-256"),
        ("v5e-7", "nearest are v5e-4, v5e-8, v5e-16"),
        ("v5litepod-2", "nearest are v5litepod-1, v5litepod-4, v5litepod-8"),
        ("v4-1", "nearest are v4-8"),
        ("v4:1x1x1", "board has 2x2 chips"),
        ("ct5lp-hightpu-8", "did you mean ct5lp-hightpu-8t"),
        ("ct5lp-hightpu-16t", "did you mean ct5lp-hightpu-1t"),
        ("ct5lp-hightpu-8t:2x2", "machines of 8 chips cannot form a slice of 4"),
        ("a3-highgpu-4g:8", "machines of 4 chips cannot form a slice of 8"),
        ("v5e-8t", "did you mean v5e-8"),
        ("h100-16", "several slices, as in 2xh100-8"),
        ("h100-3", "nearest are h100-2, h100-4"),
        ("v5e-512", "several slices, as in 2xv5e-256"),
        ("v5e:16x17", "largest slice of v5e is 16x16"),
        ("v5e:32x32", "2xv5e:16x16"),
        ("v5e:3x4", "board has 2x2 chips"),
        ("v5p:4x4", "3 dimensions"),
        ("v5p-3", "nearest are"),
        ("0xv5e-8", "1 to 256 slices"),
        ("", "examples are"),
        ("v5e-8\n", None),
    ],
)
def test_other_names_are_refused_with_the_nearest(name, advice) -> None:
    if advice is None:
        assert topologies.parse(name).devices == 8
        return
    with pytest.raises(ValueError, match=advice):
        topologies.parse(name)
