"""Records what training and loading compute, to find out whether a change of the code alters a bit.

    python scripts/record_golden.py --out before.json
    ... change the code ...
    python scripts/record_golden.py --out after.json
    python scripts/record_golden.py --compare before.json after.json

It uses only what users see: `python -m vit_jax train`, metrics.jsonl and `vit_jax.load`. Bits
depend on versions and on the processor, so these are recorded too: compare only records of the same
machine. With `--fixtures`, the folder of reference models, the outputs of each model are recorded
as well.
"""

import argparse
import dataclasses
import hashlib
import json
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np
from flax import nnx, traverse_util

import vit_jax

ROOT = pathlib.Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """A run to record: a recipe, its overrides, and the number of simulated CPU devices."""

    changes: tuple[str, ...] = ()  # overrides; {runs} is the folder of all runs
    recipe: str = "configs/quickstart.py"
    devices: int = 1
    whole: bool = False  # run as many steps as the recipe says


_MIXUP, _SMOOTHING, _EMA = "data.mixup=0.2", "objective.label_smoothing=0.1", "ema=0.99"
VARIANTS = {
    "plain": Variant(),
    "data 8": Variant(devices=8),
    "accumulate": Variant(changes=("optimizer.accumulate=2",)),
    "mixup": Variant(changes=(_MIXUP,)),
    "label smoothing": Variant(changes=(_SMOOTHING,)),
    "ema": Variant(changes=(_EMA,)),
    "mixup, label smoothing, ema": Variant(changes=(_MIXUP, _SMOOTHING, _EMA)),
    "mixup, label smoothing, ema on data 8": Variant(changes=(_MIXUP, _SMOOTHING, _EMA), devices=8),
    "data 2, fsdp 2, tensor 2": Variant(
        changes=("mesh.data=2", "mesh.fsdp=2", "mesh.tensor=2"), devices=8
    ),
    "dropout": Variant(
        changes=("model.dropout=0.1", "model.attention_dropout=0.1", "model.drop_path=0.2")
    ),
    "sigmoid": Variant(changes=("objective.cross_entropy=sigmoid", "model.head_bias=-2.0")),
    "sgd": Variant(
        changes=(
            *("optimizer.name=sgd", "optimizer.learning_rate=0.03", "schedule.decay=linear"),
            "optimizer.weight_decay=0.05",  # as in the recipe: another optimizer starts from 0
        )
    ),
    "inception": Variant(changes=("data.crop=inception", "image_size=28,21")),
    "bfloat16": Variant(changes=("model.dtype=bfloat16",)),
    "fine-tuned": Variant(recipe="configs/finetune.py", changes=("init_from={runs}/plain",)),
    "whole": Variant(whole=True),
}


def record_run(name: str, runs: pathlib.Path, *, steps: int) -> dict[str, Any]:
    """Trains a variant in `runs/NAME`; returns metrics as hex floats and digests of parameters.

    The parameters are those that `load` returns: the average if the run keeps one.
    """
    variant, workdir = VARIANTS[name], runs / name
    length = () if variant.whole else (f"total.steps={steps}", "total.epochs=0.0")
    quiet = ("log_every.steps=1", "evaluate_every.percent=0.0", "checkpoint.every.percent=0.0")
    changes = [change.format(runs=runs) for change in (*length, *quiet, *variant.changes)]
    command = [*("-m", "vit_jax", "train", "--config", variant.recipe, "--workdir", str(workdir))]
    flags = f"--xla_force_host_platform_device_count={variant.devices}"
    subprocess.run(
        [sys.executable, *command, *(f"--config.{change}" for change in changes)],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        check=True,
        capture_output=True,
    )
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    metrics: dict[str, list[str]] = {}
    for key, value in (item for line in lines for item in line.items()):
        if key not in ("step", "images_per_second", "data_wait"):  # measured times
            metrics.setdefault(key, []).append(float(value).hex())
    state = nnx.state(vit_jax.load(workdir), nnx.Param)
    params = traverse_util.flatten_dict(nnx.to_pure_dict(state), sep="/")
    digests = {path: digest(array) for path, array in sorted(params.items())}
    # The digest of all parameters does not depend on their names.
    every = hashlib.sha256("".join(sorted(digests.values())).encode()).hexdigest()
    return {"metrics": metrics, "parameters": every, "by path": digests}


def digest(array: Any) -> str:
    """A digest of the bytes, the shape and the dtype of an array."""
    array = np.asarray(array)
    header = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(header + np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


Arrays = Mapping[str, np.ndarray]
Output = Callable[[Any, Arrays], Any]  # (model, the fixture's inputs) -> an array


def _images(name: str = "images") -> Output:
    return lambda model, io: model(io[name])


def _features(model: Any, io: Arrays) -> Any:
    return model.features(io["images"])


def _reconstruction(model: Any, io: Arrays) -> Any:
    return model.reconstruct(io["images"], noise=io["noise"], mask_ratio=0.75)[0]


def _visual_tokens(model: Any, io: Arrays) -> Any:
    return model.patch_logits(io["images"], mask=io["mask"])


_HEADS: dict[str, Any] = {"num_heads": 3}
_MAE: dict[str, Any] = {"num_heads": 3, "decoder_heads": 2}
_PAIRS = ((24, 24), (48, 48), (80, 80), (32, 56), (72, 40))


def _fixtures() -> Iterable[tuple[str, str, dict[str, Any], Output]]:
    """For each reference model: file, folder of inputs, arguments of `load`, and output."""
    for file in (
        *("vitjax_cls/ckpt.npz", "vitjax_cls/ckpt_linen_names.npz", "vitjax_gap_rep/ckpt.npz"),
        *("vitjax_hybrid_r/ckpt.npz", "bv_vit_gap/ckpt.npz", "bv_vit_map/ckpt.npz"),
        *("bv_vit_tok_scan/ckpt.npz", "bv_bit_paper/ckpt.npz", "timm_swin/model.safetensors"),
        *("flax_vit", "flax_dinov2", "hf_vit", "hf_vit_hybrid"),
    ):
        yield file, file.partition("/")[0], {}, _images()
    for file in (
        *("timm_vit_cls/model.safetensors", "timm_vit_cls/model.pth"),
        *("timm_vit_reg_ls_qknorm/model.safetensors", "timm_deit_distilled/model.safetensors"),
        *("timm_deit_distilled/model.pth", "timm_beit_relpos/model.safetensors"),
        *("timm_hybrid_r/model.safetensors", "deit_distilled/checkpoint.pth"),
        *("mae_vit_gap/checkpoint.pth", "torchvision_vit/checkpoint.pth"),
    ):
        yield file, file.partition("/")[0], _HEADS, _images()
    yield "facebook_dinov2/checkpoint.pth", "facebook_dinov2", _HEADS, _features
    file = "mae_pretrain_normpix/checkpoint.pth"
    yield file, "mae_pretrain_normpix", _MAE, _reconstruction
    yield "hf_vitmae_normpix", "hf_vitmae_normpix", {}, _reconstruction
    yield "beit_pretrain_mim/checkpoint.pth", "beit_pretrain_mim", {}, _visual_tokens
    yield "hf_beit_mim", "hf_beit_mim", {}, _visual_tokens
    yield from _resized()


def _resized() -> Iterable[tuple[str, str, dict[str, Any], Output]]:
    for size in _PAIRS:
        name, resized = f"images_{size[0]}x{size[1]}", {"image_size": size}
        yield "hf_posemb_interp", "hf_posemb_interp", resized, _images(name)
        timm = "timm_posemb_interp"
        yield f"{timm}/model.safetensors", timm, _HEADS | resized, _images(name)
        if size[0] == size[1]:
            name = f"images_{size[0]}"
            yield "bv_posemb_interp/ckpt.npz", "bv_posemb_interp", resized, _images(name)
            distilled = "deit_distilled/checkpoint.pth"
            yield distilled, "deit_finetune_interp", _HEADS | resized, _images(name)
        jax_file = "vitjax_posemb_interp/ckpt.npz"
        arguments = _HEADS | resized | {"layout": "vit_jax"}
        yield jax_file, "vitjax_posemb_interp", arguments, _images(name)


def record_outputs(
    fixtures: pathlib.Path, *, only: Callable[[str], bool] = lambda name: True
) -> dict[str, Any]:
    """The outputs of the reference models for their images: a digest, and rounded values."""
    found = {}
    for file, folder, arguments, output in _fixtures():
        size = "x".join(map(str, arguments.get("image_size", ())))
        name = f"{file} {size}".strip()
        if not only(name):
            continue
        values = np.asarray(
            output(
                vit_jax.load(fixtures / file, **arguments),
                np.load(fixtures / folder / "io.npz"),
            )
        )
        assert values.dtype == np.float32
        found[name] = {
            "digest": digest(values),
            "shape": list(values.shape),
            "values": [float(f"{value:.6g}") for value in values.ravel()[:64]],
        }
    return found


def facts() -> dict[str, Any]:
    """What the bits depend on, apart from the code."""
    path = pathlib.Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    cpu = {key.strip(): text.strip() for key, _, text in (line.partition(":") for line in lines)}
    features = cpu.get("flags", cpu.get("Features", ""))
    return {
        "jax": jax.__version__,
        "jaxlib": metadata.version("jaxlib"),
        "numpy": np.__version__,
        "machine": platform.machine(),
        "processor": " ".join(cpu.get(key, "") for key in ("model name", "cpu family", "model")),
        "features": hashlib.sha256(features.encode()).hexdigest()[:16],
        "cores": len(os.sched_getaffinity(0)),
    }


def differences(before: Mapping[str, Any], after: Mapping[str, Any], *, rtol: float) -> list[str]:
    """Messages about what differs between the records; with `rtol`, bits are not compared."""
    found = []
    for name, run in before["runs"].items():
        now = after["runs"].get(name)
        if now is None:
            found.append(f"{name}: missing")
            continue
        for metric, values in run["metrics"].items():
            found += _unequal(f"{name}: {metric}", values, now["metrics"].get(metric, []), rtol)
        if not rtol and run["parameters"] != now["parameters"]:
            found.append(f"{name}: the parameters differ")
    for name, output in before.get("outputs", {}).items():
        now = after.get("outputs", {}).get(name, {"values": [], "digest": ""})
        close = _unequal(f"{name}: values", output["values"], now["values"], rtol or 1e-5)
        found += close or ([] if rtol or output["digest"] == now["digest"] else [f"{name}: bits"])
    return found


def _unequal(about: str, before: Sequence[Any], after: Sequence[Any], rtol: float) -> list[str]:
    one, other = (np.array([_number(value) for value in values]) for values in (before, after))
    if len(one) != len(other):
        return [f"{about}: {len(one)} values before, {len(other)} after"]
    error = np.abs(one - other) / (np.abs(one).max(initial=0) or 1)
    wrong = np.flatnonzero((one != other) & ~(error <= rtol))
    if not len(wrong):
        return []
    worst = error.max()
    return [f"{about}: {len(wrong)} of {len(one)} differ, first no. {wrong[0]}, worst {worst:.1e}"]


def _number(value: str | float) -> float:
    return float.fromhex(value) if isinstance(value, str) else value


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=pathlib.Path, help="file to write")
    parser.add_argument("--steps", type=int, default=200, help="length of a run")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--fixtures", type=pathlib.Path, help="folder of reference models")
    parser.add_argument("--runs", type=pathlib.Path, help="folder to keep the runs in")
    parser.add_argument("--compare", nargs=2, type=pathlib.Path, metavar=("BEFORE", "AFTER"))
    parser.add_argument("--rtol", type=float, default=0.0, help="0: equal bits")
    options = parser.parse_args()
    if options.compare:
        before, after = (json.loads(path.read_text()) for path in options.compare)
        messages = differences(before, after, rtol=options.rtol)
        messages += [
            f"recorded with a different {k}" for k, v in before["facts"].items() if v != facts()[k]
        ]
        print("\n".join(messages) or "equal")
        return bool(messages)
    with tempfile.TemporaryDirectory() as folder:
        runs = options.runs or pathlib.Path(folder)
        recorded = {"facts": facts(), "steps": options.steps, "runs": {}}
        for name in options.only:
            recorded["runs"][name] = record_run(name, runs, steps=options.steps)
            print(f"{name}: {recorded['runs'][name]['parameters']}", flush=True)
        if options.fixtures:
            recorded["outputs"] = record_outputs(options.fixtures)
        options.out.write_text(json.dumps(recorded, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
