"""The cluster launchers: exactly what they would run, tested without a cluster."""

import os
import pathlib
import shlex
import shutil
import signal
import subprocess

import pytest

from launch import local, slurm, tpu_vm
from tests.patience import limit, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPE = "configs/quickstart.py"
NASTY = ["train", "--config", f"{RECIPE}:a b='1'", '--config.name="$(touch x)"']
NASTY += ["--config.x=`id`;!&|*\\"]
TRAIN = ["train", "--config", RECIPE, "--workdir", "/shared/run"]
ANY = ["models"]  # a job without a recipe
TPU = ["--name", "vit", "--zone", "z"]


def executable(folder: pathlib.Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / name).chmod(0o755)


def check_shell(text: str) -> None:
    subprocess.run(["bash", "-n"], input=text, text=True, check=True, timeout=limit(20))


def parsed(output: str) -> list[list[str]]:
    return [shlex.split(line) for line in output.splitlines() if not line.startswith("#")]


def test_slurm_prints_a_valid_script_with_the_exact_job(capsys: pytest.CaptureFixture) -> None:
    flags = ["--nodes", "2", "--gpus-per-node", "4", "--time", "1:00:00", "--partition", "gpu"]
    flags += ["--account", "me", "--name", "it's b/16", "--cpus-per-task", "6", "--dry-run"]
    job = [*NASTY, "--workdir", "/a b"]
    assert slurm.main([*flags, "--", *job]) == 0
    script = capsys.readouterr().out
    check_shell(script)
    options = {shlex.split(line)[1] for line in script.splitlines() if line.startswith("#SBATCH ")}
    assert options >= {
        "--nodes=2",
        "--ntasks-per-node=4",
        "--gpus-per-node=4",
        "--cpus-per-task=6",
        "--time=1:00:00",
        "--partition=gpu",
        "--account=me",
        "--job-name=it's b/16",
        "--requeue",
        "--signal=B:USR1@120",
    }
    run = next(line for line in script.splitlines() if line.startswith("srun "))
    words = shlex.split(run.removesuffix(" &"))
    assert words[words.index("python") :] == ["python", "-m", "vit_jax", *job]


def test_slurm_without_gpus_runs_one_process_per_node(capsys: pytest.CaptureFixture) -> None:
    assert slurm.main(["--gpus-per-node", "0", "--dry-run", "--", *TRAIN]) == 0
    script = capsys.readouterr().out
    assert "--ntasks-per-node=1\n" in script
    assert "gpus" not in script


@pytest.mark.parametrize(("interrupt", "code"), [(False, 7), (True, 0)])
def test_a_slurm_job_is_requeued_only_after_the_signal(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, interrupt: bool, code: int
) -> None:
    """The script really runs; `srun` and the other programs only log their arguments."""
    bin_ = tmp_path / "venv" / "bin"
    bin_.mkdir(parents=True)
    (bin_ / "activate").write_text(f"PATH={shlex.quote(str(bin_))}:$PATH\n")
    log = tmp_path / "log"
    wait = "trap 'sleep 0.3; echo saved >> log; exit 143' TERM; touch up; for i in {1..200}; do"
    end = f"{wait} sleep 0.05; done" if interrupt else "exit 7"
    executable(bin_, "srun", f'cd {tmp_path}; echo $$ > srun.pid; echo "srun $*" >> log\n{end}')
    executable(bin_, "scancel", f'echo "scancel $*" >> {log}; kill -TERM $(<{tmp_path}/srun.pid)')
    executable(bin_, "scontrol", f'echo "scontrol $*" >> {log}')
    words = ["predict", "--workdir", "run", "a b"]
    slurm.main(["--venv", str(tmp_path / "venv"), "--dry-run", "--", *words])
    job = subprocess.Popen(
        ["bash", "-c", capsys.readouterr().out], env={**os.environ, "SLURM_JOB_ID": "42"}
    )
    if interrupt:
        wait_until((tmp_path / "up").exists, seconds=10)
        job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=limit(20)) == code
    calls = log.read_text().splitlines()
    assert calls[0].endswith("python -m vit_jax predict --workdir run a b")
    after = ["scancel --signal=TERM 42", "saved", "scontrol requeue 42"]
    assert calls[1:] == (after if interrupt else [])


def test_slurm_hands_the_script_to_sbatch(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    executable(tmp_path / "bin", "sbatch", f"cat > {tmp_path}/script; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    flags = ["--logs", str(tmp_path / "logs")]
    assert slurm.main([*flags, "--", *TRAIN]) == 3
    assert (tmp_path / "logs").is_dir()
    slurm.main([*flags, "--dry-run", "--", *TRAIN])
    assert (tmp_path / "script").read_text() == capsys.readouterr().out


def test_tpu_vm_prints_valid_shell_with_the_exact_job(capsys: pytest.CaptureFixture) -> None:
    flags = [*TPU, "--project", "p", "--create", "--accelerator-type", "v4-32", "--spot"]
    assert tpu_vm.main([*flags, "--workdir", "gs://b/r", "--dry-run", "--", *NASTY]) == 0
    output = capsys.readouterr().out
    check_shell(output)
    archive, create, check, copy, install, start = parsed(output)
    assert archive[:4] == ["git", "-C", str(ROOT), "archive"]
    assert create[4:] == [
        *("create", "vit", "--accelerator-type=v4-32", "--version=tpu-ubuntu2204-base"),
        *("--spot", "--zone=z", "--project=p"),
    ]
    assert copy[4] == "scp"
    for step in (check, install, start):
        assert step[4:7] == ["ssh", "vit", "--worker=all"]
        check_shell(step[7].removeprefix("--command="))
    job = shlex.split(start[7])
    first = job.index(".venv/bin/python")
    assert job[first : job.index(">>")] == [
        *(".venv/bin/python", "-m", "vit_jax", *NASTY, "--workdir=gs://b/r")
    ]


def test_tpu_job_outlives_its_shell_and_writes_log_and_pid(tmp_path: pathlib.Path) -> None:
    flags, job = tpu_vm._parser().parse_args(TPU), ["a b", "$HOME"]
    command = tpu_vm.commands(flags, job)[-1][7].removeprefix("--command=")
    go = tmp_path / "go"  # until this test has seen the job
    waits = f"until [ -e {shlex.quote(str(go))} ]; do sleep 0.05; done"
    executable(tmp_path / "vit_jax", "python", f'{waits}; printf "<%s>" "$@"')
    (tmp_path / "vit_jax/.venv").mkdir()
    (tmp_path / "vit_jax/.venv/bin").symlink_to("..")
    subprocess.run(
        ["bash", "-c", command],
        env={**os.environ, "HOME": str(tmp_path)},
        check=True,
        timeout=limit(5),
    )
    log, pid = tmp_path / "vit_jax.log", int((tmp_path / "vit_jax.pid").read_text())
    wait_until(lambda: os.getsid(pid) == pid, seconds=10)
    go.touch()
    wait_until(lambda: bool(log.read_text()), seconds=10)
    assert log.read_text() == "<-m><vit_jax><a b><$HOME>"


@pytest.mark.parametrize(
    ("flags", "job", "message"),
    [
        ([], ["train", "--workdir", "runs/a"], "'runs/a' would be a different folder"),
        ([], ["train", "--workdir=runs/a"], "'runs/a' would be a different folder"),
        (["--workdir", "gs://a"], ["train", "--workdir=gs://b"], "given twice"),
    ],
)
def test_tpu_workdir_must_be_shared_by_the_hosts(
    capsys: pytest.CaptureFixture, flags: list[str], job: list[str], message: str
) -> None:
    assert tpu_vm.main([*TPU, *flags, "--dry-run", "--", *job]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_tpu_refuses_uncommitted_changes(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(tpu_vm, "ROOT", tmp_path)
    assert tpu_vm.main([*TPU, "--", *ANY]) == 2
    assert "is not a git clone" in capsys.readouterr().err
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=limit(20))
    (tmp_path / "a.py").write_text("a = 1\n")
    (tmp_path / "build").touch()  # ends what would be launched
    subprocess.run(["git", "-C", str(tmp_path), "add", "a.py"], check=True, timeout=limit(20))
    assert tpu_vm.main([*TPU, "--", *ANY]) == 2
    assert "uncommitted changes (a.py)" in capsys.readouterr().err
    me = ["-c", "user.name=a", "-c", "user.email=a@b"]
    commit = ["git", "-C", str(tmp_path), *me, "commit", "-qm", "a"]
    subprocess.run(commit, check=True, timeout=limit(20))
    (tmp_path / "b.py").touch()
    absolute = str(tmp_path / "a.py")
    for recipe, problem in (
        ("gone.py", f"no recipe at gone.py in {tmp_path}"),
        ("b.py:small", "b.py is not in HEAD: commit it"),
        (absolute, f"{absolute} is not in HEAD"),
        ("a.py", "cannot be created"),
    ):
        job = ["train", "--config", recipe, "--workdir", "/shared/run"]
        assert tpu_vm.main([*TPU, "--", *job]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert problem in line


def test_tpu_stops_at_the_first_step_that_fails(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    executable(tmp_path / "bin", "git", "exit 0")
    executable(tmp_path / "bin", "gcloud", f"echo $4 >> {tmp_path}/log; [ $4 != scp ] || exit 9")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(tpu_vm, "ROOT", tmp_path)
    assert tpu_vm.main([*TPU, "--", *ANY]) == 9
    assert (tmp_path / "log").read_text().split() == ["ssh", "scp"]


@pytest.mark.parametrize("name", ["slurm", "tpu_vm"])
def test_a_missing_program_is_one_line_and_code_2(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    name: str,
) -> None:
    executable(tmp_path, "git", "exit 0")
    executable(tmp_path, "bash", f'exec {shutil.which("bash")} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(tpu_vm, "ROOT", tmp_path)
    logs = ["--logs", str(tmp_path / "logs")]
    code = slurm.main([*logs, "--", *ANY]) if name == "slurm" else tpu_vm.main([*TPU, "--", *ANY])
    assert code == 2
    error = capfd.readouterr().err
    assert "is not installed or not on PATH" in error
    assert error.count("\n") == 1


def test_a_launch_without_git_is_one_line_and_code_2(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert tpu_vm.main([*TPU, "--", *ANY]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "git is not installed or not on PATH" in line


def test_a_clone_of_another_user_is_refused_in_the_words_of_git(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=limit(20))
    monkeypatch.setattr(tpu_vm, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert tpu_vm.main([*TPU, "--", *ANY]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "dubious ownership" in line and "safe.directory" in line


@pytest.mark.parametrize("name", ["slurm", "tpu_vm"])
def test_a_folder_that_cannot_be_created_is_one_line_and_code_2(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    name: str,
) -> None:
    executable(tmp_path / "bin", "git", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "build").touch()  # where the folder should be
    monkeypatch.setattr(tpu_vm, "ROOT", tmp_path)
    logs = ["--logs", str(tmp_path / "build" / "logs")]
    code = slurm.main([*logs, "--", *ANY]) if name == "slurm" else tpu_vm.main([*TPU, "--", *ANY])
    assert code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path}/build" in line and "cannot be created" in line


@pytest.mark.parametrize(
    "argv", [["--partition", "a\n#SBATCH --x", "--", "train"], ["--nodes", "2", "--dry-run"]]
)
def test_flags_that_cannot_be_written_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        slurm.main(argv)
    assert stopped.value.code == 2


@pytest.mark.parametrize("name", ["a/b", "$(id)", "A b", "-x"])
def test_tpu_refuses_names_that_google_does_not_allow(name: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        tpu_vm.main([f"--name={name}", "--zone", "z", "--dry-run", "--", "train"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("launcher", [slurm, tpu_vm])
@pytest.mark.parametrize(
    ("job", "problem"),
    [
        (["trian", *TRAIN[1:]], "invalid choice: 'trian'"),
        (TRAIN[:3], "the following arguments are required: --workdir"),
        (["train", *TRAIN[3:]], "the following arguments are required: --config"),
        ([*TRAIN, "--batch", "3"], "unknown arguments: --batch 3"),
        (["train", "--config", "gone.py", *TRAIN[3:]], "no recipe at gone.py in"),
        ([], "no job: give it after --"),
    ],
)
def test_a_job_that_vit_jax_would_refuse_is_not_launched(launcher, job, problem, capsys) -> None:
    flags = TPU if launcher is tpu_vm else []
    try:
        code = launcher.main([*flags, "--dry-run", "--", *job])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert problem in line and not said.out


@pytest.mark.parametrize("launcher", [slurm, tpu_vm, local])
def test_a_wrong_option_is_one_line(launcher, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        launcher.main(["--nodez", "2", "--", *TRAIN])
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"python -m {launcher.__name__}: error: ")
