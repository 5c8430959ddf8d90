"""An edited cluster file, on a Ray Serve that is scripted: what it was asked for last, and which models never start."""

import json
import threading
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest

from backend import deploy
from backend.progress import Progress
from backend.spec import ClusterFile, ClusterSpec, ModelSpec

MODEL = {"engine": "vllm", "source": "some/model", "max_model_len": 1024, "resources": {"num_cpus": 0.1}}


class Target(NamedTuple):
    application: Any
    name: str
    route_prefix: str


class ScriptedServe:
    """
    Attributes:
        asked: the models that it is to run.
        broken: sources that do not start.
        deployed: the names of every deployment that was asked for, in order.
    """

    RunTarget = Target

    def __init__(self) -> None:
        self.asked: dict[str, ModelSpec] = {}
        self.broken: set[str] = set()
        self.deployed: list[str] = []
        self._states: dict[str, str] = {}

    def run_many(self, targets: Sequence[Target], **_: bool) -> None:
        for target in targets:
            spec = self.asked[target.name] = target.application._bound_deployment.init_args[0]
            self._states[target.name] = "DEPLOY_FAILED" if spec.source in self.broken else "RUNNING"
            self.deployed.append(target.name)

    def delete(self, name: str, *, _blocking: bool) -> None:
        del self.asked[name], self._states[name]

    def status(self) -> SimpleNamespace:
        states = {
            name: SimpleNamespace(status=state, deployments={}, message="it does not start")
            for name, state in self._states.items()
        }
        return SimpleNamespace(applications=states)


class Edited:
    """A cluster that runs, and its file."""

    def __init__(self, file: Path, serve: ScriptedServe) -> None:
        self.serve = serve
        self.said = StringIO()
        self._path = file
        self._file = ClusterFile(file)
        self._progress = Progress(self.said)
        self._stop = threading.Event()
        self._running: ClusterSpec | None = None

    def edit(self, *models: dict[str, Any]) -> dict[str, Any]:
        """What is said at the end of it."""
        self._path.write_text(json.dumps({"models": [MODEL | model for model in models]}))
        if self._running is None:
            self._running = self._file.load()
            deploy.deploy(self._running, self._progress, self._stop)
        else:
            self._running = deploy.follow(self._file, self._running, self._progress, self._stop)
        last: dict[str, Any] = json.loads(self.said.getvalue().splitlines()[-1])
        return last


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Edited:
    serve = ScriptedServe()
    monkeypatch.setattr(deploy, "serve", serve)
    return Edited(tmp_path / "cluster.yaml", serve)


def test_only_what_was_edited_is_deployed(edited: Edited) -> None:
    edited.edit({"name": "a"}, {"name": "b"}, {"name": "c"})
    assert edited.edit({"name": "a"}, {"name": "b", "max_num_seqs": 8})["event"] == "updated"
    assert edited.serve.deployed == ["a", "b", "c", "b"]
    assert edited.serve.asked.keys() == {"a", "b"}


def test_where_a_model_does_not_start_all_that_ran_before_is_put_back(edited: Edited) -> None:
    edited.edit({"name": "a"}, {"name": "b"}, {"name": "c"})
    before = dict(edited.serve.asked)
    edited.serve.broken.add("bad/model")
    said = edited.edit({"name": "a", "source": "bad/model"}, {"name": "b", "max_num_seqs": 8}, {"name": "d"})
    assert said == {"event": "rejected", "message": "a: it does not start"}
    assert edited.serve.asked == before


def test_a_model_that_could_not_be_put_back_is_deployed_with_the_next_edit(edited: Edited) -> None:
    edited.edit({"name": "a"}, {"name": "b"})
    edited.serve.broken |= {"bad/model", "some/model"}
    said = edited.edit({"name": "a", "source": "bad/model"}, {"name": "b"})
    assert "what ran before does not start again: a: it does not start" in said["message"]
    edited.serve.broken.clear()
    edited.serve.deployed.clear()
    assert edited.edit({"name": "a"}, {"name": "b"})["event"] == "updated"
    assert edited.serve.deployed == ["a"]


@pytest.mark.parametrize("custom", [{"CPU": 1}, {"x": -1}, {"x": 0.00001}])
def test_a_reservation_that_ray_refuses_changes_nothing(edited: Edited, custom: dict[str, float]) -> None:
    edited.edit({"name": "a"}, {"name": "b"})
    said = edited.edit({"name": "a", "resources": {"custom": custom}})
    assert said["event"] == "rejected"
    assert said["message"].startswith("a: ")
    assert edited.serve.asked.keys() == {"a", "b"}
    assert edited.serve.deployed == ["a", "b"]
