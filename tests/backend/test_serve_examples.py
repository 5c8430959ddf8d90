"""The files in examples/serve: Serve takes each, every application in it is built, and its replicas find room."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve import Application
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as call_builder
from ray.serve.schema import ServeDeploySchema

from backend.app import build
from backend.spec import ModelSpec
from tests.sources import ROOT

FILES = sorted((ROOT / "examples" / "serve").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_serve_takes_it_and_builds_its_applications(path: Path) -> None:
    document = ServeDeploySchema.model_validate(yaml.safe_load(path.read_text()))
    for application in document.applications:
        assert application.import_path == "backend.app:build"
        assert isinstance(call_builder(build, application.args), Application)


def test_the_reference_deployments_are_there() -> None:
    assert {path.stem for path in FILES} == {
        "llama-2-70b",
        "llama-2-7b-cpu",
        "gpt-2",
        "mistral-7b-t4",
        "falcon-40b-a10g",
        "commodity-96gb",
        "llama-3.1-70b-mi300x",
        "llama-3.1-405b-two-nodes",
    }


def nodes(path: Path) -> list[dict[str, float]]:
    """The cluster that the file's head describes."""
    line = re.search(r"^# Nodes: (.+)$", path.read_text(), re.MULTILINE)
    assert line, "no `# Nodes:` line"
    found: list[dict[str, float]] = []
    for count, node in re.findall(r"(?:(\d+) x )?(\{[^}]+\})", line[1]):
        found += [yaml.safe_load(node) for _ in range(int(count or 1))]
    return found


def wants(spec: ModelSpec) -> dict[str, float]:
    resources = spec.resources
    wanted = {"CPU": resources.num_cpus, "GPU": resources.num_gpus, **resources.custom}
    if resources.accelerator_type:
        wanted[f"accelerator_type:{resources.accelerator_type}"] = 0.001
    return {name: amount for name, amount in wanted.items() if amount}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_replica_finds_a_node(path: Path) -> None:
    free = nodes(path)
    applications: list[dict[str, Any]] = yaml.safe_load(path.read_text())["applications"]
    specs = [ModelSpec.model_validate(application["args"]) for application in applications]
    for spec in specs:
        for _ in range(spec.most_replicas * spec.nodes):
            wanted = wants(spec)
            node = next((n for n in free if all(n.get(name, 0) >= amount for name, amount in wanted.items())), None)
            assert node is not None, f"no room for {spec.name}"
            for name, amount in wanted.items():
                node[name] -= amount
    assert sum(node.get("GPU", 0) for node in free) == 0, "GPUs are left over"
