"""Putting a cluster's models on Ray Serve, and waiting until they run."""

import re
import threading
import time
from collections.abc import Iterable
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException

from backend.app import build
from backend.preflight import CannotStart, check_models
from backend.progress import Progress
from backend.spec import ClusterFile, ClusterSpec, ModelSpec, SpecError

POLL_S = 0.1
# Beyond the engines' own start: Ray waits without end for a GPU or a resource that this machine does not have.
PLACEMENT_S = 60.0
_REFUSALS = (RayServeException, TypeError, ValueError)


def deploy(cluster: ClusterSpec, progress: Progress, stop: threading.Event, running: ClusterSpec | None = None) -> None:
    """Deploys all models at once, or what differs from those that are running, and reports each when it runs.

    Raises:
        CannotStart: with the first failure.
    """
    before = {spec.name: spec for spec in running.models} if running else {}
    failed = {name for name, at in serve.status().applications.items() if at.status == "DEPLOY_FAILED"}
    changed = [spec for spec in cluster.models if before.get(spec.name) != spec or spec.name in failed]
    targets = _targets(changed)
    for name in before.keys() - {spec.name for spec in cluster.models}:
        serve.delete(name, _blocking=False)
    if not changed:
        return
    try:
        serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    except _REFUSALS as error:
        raise CannotStart(f"Ray Serve refuses it: {error}") from error
    progress.deploying()
    deadline = time.monotonic() + PLACEMENT_S + max(spec.start_timeout_s + spec.drain_timeout_s for spec in changed)
    _wait({spec.name for spec in changed}, deadline, progress, stop)


def follow(file: ClusterFile, running: ClusterSpec, progress: Progress, stop: threading.Event) -> ClusterSpec:
    """Deploys what was changed in an edited file, and returns what runs then; a file that cannot be used does nothing.

    A changed model is a rolling update: Serve drains its replicas in turn, or puts new ones beside them first
    (`max_surge_percent`). Where a model does not start, all that ran before is put back.
    """
    try:
        wanted = file.load()
        check_models(wanted)
        _targets(wanted.models)
    except (SpecError, CannotStart) as error:
        progress.rejected(str(error))
        return running
    try:
        deploy(wanted, progress, stop, running)
    except CannotStart as error:
        progress.rejected(f"{error}{_put_back(running, wanted, progress, stop)}")
        return running
    progress.updated()
    return wanted


def _put_back(running: ClusterSpec, tried: ClusterSpec, progress: Progress, stop: threading.Event) -> str:
    """Deploys what ran before; returns what is to be said of it, if it does not run again."""
    try:
        deploy(running, progress, stop, tried)
    except CannotStart as error:
        return f"; and what ran before does not start again: {error}"
    return ""


def _targets(specs: Iterable[ModelSpec]) -> list[serve.RunTarget]:
    """Raises CannotStart for a model that Ray has no such reservation for, or Serve no such deployment."""
    targets = []
    for spec in specs:
        try:
            targets.append(serve.RunTarget(build(spec), name=spec.name, route_prefix=spec.route_prefix))
        except _REFUSALS as error:
            raise CannotStart(f"{spec.name}: {error}") from error
    return targets


def _wait(waiting: set[str], deadline: float, progress: Progress, stop: threading.Event) -> None:
    while waiting and not stop.wait(POLL_S):
        if time.monotonic() > deadline:
            raise CannotStart(f"{', '.join(sorted(waiting))}: not running; are the resources there?")
        applications = serve.status().applications
        for name in sorted(waiting & applications.keys()):
            if applications[name].status == "RUNNING":
                waiting.remove(name)
                progress.replica(name)
            elif applications[name].status == "DEPLOY_FAILED":
                raise CannotStart(f"{name}: {_reason(applications[name])}")


def _reason(application: Any) -> str:
    """The one line of our own in the tracebacks that Serve wraps around a replica's failure, or all that it says."""
    messages = [deployment.message for deployment in application.deployments.values() if deployment.message]
    message = messages[0] if messages else str(application.message)
    ours = re.findall(r"^backend\.[\w.]+: (.+)$", message, re.MULTILINE)
    return ours[-1] if ours else message
