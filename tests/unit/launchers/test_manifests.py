"""What hpo manifest prints, against the published schemas, without the network."""

import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from typer.testing import CliRunner

from hpo.cli.main import app
from hpo.errors import UsageError

SCHEMA = json.loads((Path(__file__).parents[2] / "data" / "compose_spec.json").read_text())
NAMES = ["mnist-mlp", "Größe.2_x", "-dash", "100$ off", "x" * 120]


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["manifest", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def objects(text: str) -> dict[str, Any]:
    """The objects by kind, each checked strictly: an unknown key is a mistake too."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    found = {}
    for entry in yaml.safe_load_all(text):
        kubernetes_validate.validate(entry, "1.31", strict=True)
        found[entry["kind"]] = entry
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [[], ["--gpus-per-worker", "0", "--checkpoint-dir", "s3://bucket/folder"]])
def test_kubernetes(name: str, options: list[str]) -> None:
    found = objects(printed("kubernetes", *options, "--workers", "3", "--termination-seconds", "600", "--", name))
    assert set(found) == {"Secret", "Job"} | (set() if options else {"PersistentVolumeClaim"})
    job = found["Job"]["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"]) == ("Indexed", 3, 3)
    pod = job["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == 600
    container = pod["containers"][0]
    assert container["args"][-1] == name
    assert container["startupProbe"]["exec"]["command"][-1] == name
    assert container["resources"]["limits"].get("nvidia.com/gpu") == (None if options else 1)
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment["HPO_CHECKPOINT_DIR"] == ("s3://bucket/folder" if options else "/shared/checkpoints")
    # What is mounted exists.
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["envFrom"][0]["secretRef"]["name"] == found["Secret"]["metadata"]["name"]


def test_a_key_that_does_not_exist_is_found() -> None:
    """The check can fail."""
    with pytest.raises(Exception, match="completionsMode"):
        objects(printed("kubernetes", "mnist-mlp").replace("completionMode", "completionsMode"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [[], ["--gpus-per-worker", "0", "--checkpoint-dir", "s3://bucket/$folder"]])
def test_compose(name: str, options: list[str]) -> None:
    content = yaml.safe_load(printed("compose", *options, "--workers", "8", "--", name))
    jsonschema.Draft7Validator(SCHEMA).validate(content)
    worker = content["services"]["worker"]
    assert worker["command"][-1].replace("$$", "$") == name
    assert worker["deploy"]["replicas"] == 8
    devices = worker["deploy"]["resources"]["reservations"].get("devices")
    assert (devices is None) == bool(options)
    assert "PASSWORD" not in worker["environment"]["HPO_STORAGE"]


@pytest.mark.parametrize("name", NAMES)
def test_slurm_is_a_script_that_a_shell_reads(name: str) -> None:
    text = printed("slurm", "--trainers", "my trainers.py", "--workers", "5", "--", name)
    assert subprocess.run(["sh", "-n"], input=text, text=True).returncode == 0
    lines = text.splitlines()
    first_command = next(index for index, line in enumerate(lines) if line and not line.startswith("#"))
    options = [line.removeprefix("#SBATCH ") for line in lines[:first_command] if line.startswith("#SBATCH")]
    assert sum(line.startswith("#SBATCH") for line in lines) == len(options)
    assert "--array=0-4" in options
    assert "--gres=gpu:1" in options
    assert "export HPO_TRAINERS='my trainers.py'" in lines
    assert shlex.split(lines[-1])[-1] == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["helm", "x"], "a manifest is for one of kubernetes, slurm, compose, not 'helm'"),
        (["slurm", "x", "--workers", "0"], "--workers must be at least 1, not 0"),
        (["slurm", "x", "--termination-seconds", "0"], "--termination-seconds must be at least 1, not 0"),
    ],
)
def test_what_cannot_be(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CliRunner().invoke(app, ["manifest", *arguments], catch_exceptions=False)


def test_gpus_of_a_trial() -> None:
    limits = objects(printed("kubernetes", "mnist-mlp", "--gpus-per-trial", "2"))["Job"]["spec"]["template"]["spec"]
    assert limits["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 2
    assert "--gres=gpu:4\n" in printed("slurm", "mnist-mlp", "--gpus-per-trial", "2", "--gpus-per-worker", "4")
    assert "gres" not in printed("slurm", "mnist-mlp", "--gpus-per-trial", "2", "--gpus-per-worker", "0")
    with pytest.raises(UsageError, match="--gpus-per-worker 1 is less than the 2 GPUs of a trial"):
        printed("compose", "mnist-mlp", "--gpus-per-trial", "2", "--gpus-per-worker", "1")
