"""A cluster's models on a local Ray, until SIGTERM. `python -m backend` runs this under a guard.

Standard output carries the progress (`progress.py`), standard error the rest. Exit status 0 after a stop that was asked
for, 1 when the cluster could not start or fell.
"""

import argparse
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from backend import preflight
from backend.engines import EngineLoadError
from backend.home import home
from backend.local_ray import LocalRay
from backend.progress import Progress
from backend.spec import ClusterSpec, SpecError

POLL_S = 0.1
# Beyond the engines' own start: Ray waits without end for a GPU or a resource that this machine does not have.
PLACEMENT_S = 60.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="a cluster file; default: the embedded cluster")
    parser.add_argument("--check", action="store_true", help="tell whether it could start here, and start nothing")
    arguments = parser.parse_args()
    progress = Progress.claim_stdout()
    os.environ["LLMGW_HOME"] = str(home())
    stop = threading.Event()
    stop_on_signal(stop)
    try:
        cluster = ClusterSpec.load(arguments.config)
        preflight.check(cluster)
    except (SpecError, EngineLoadError, preflight.CannotStart) as error:
        progress.failed(str(error))
        return 1
    if arguments.check:
        progress.checked()
        return 0
    ray = LocalRay()
    try:
        run(cluster, ray, progress, stop)
    except preflight.CannotStart as error:
        progress.failed(str(error))
        return 1
    except Exception as error:
        progress.failed(f"{type(error).__name__}: {error}")
        raise
    finally:
        ray.stop()
    return 0


def run(cluster: ClusterSpec, ray: LocalRay, progress: Progress, stop: threading.Event) -> None:
    """Starts everything and returns when `stop` is set; raises CannotStart when a part fails."""
    ray.start()
    stop_on_signal(stop)  # Ray has put its own handler in place
    progress.step("ray")
    http = ray.start_serve(cluster.ray.http_port)
    progress.step("serve")
    deploy(cluster, progress, stop)
    if not stop.is_set():
        progress.ready(http)
    ray_processes = [child for child in psutil.Process().children() if child.name() in {"raylet", "gcs_server"}]
    while not stop.wait(1.0):
        if not all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in ray_processes):
            raise preflight.CannotStart("Ray has ended unexpectedly")


def deploy(cluster: ClusterSpec, progress: Progress, stop: threading.Event) -> None:
    """Deploys all models at once and reports each when it runs; raises CannotStart with the first failure."""
    from ray import serve

    from backend.app import build

    targets = [serve.RunTarget(build(spec), name=spec.name, route_prefix=spec.route_prefix) for spec in cluster.models]
    serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    progress.deploying()
    waiting = {spec.name for spec in cluster.models}
    deadline = time.monotonic() + PLACEMENT_S + max(spec.start_timeout_s for spec in cluster.models)
    while waiting and not stop.wait(POLL_S):
        if time.monotonic() > deadline:
            raise preflight.CannotStart(f"{', '.join(sorted(waiting))}: not running; are the resources there?")
        applications = serve.status().applications
        for name in sorted(waiting & applications.keys()):
            if applications[name].status == "RUNNING":
                waiting.remove(name)
                progress.replica(name)
            elif applications[name].status == "DEPLOY_FAILED":
                raise preflight.CannotStart(f"{name}: {_reason(applications[name])}")


def _reason(application: Any) -> str:
    """The one line of our own in the tracebacks that Serve wraps around a replica's failure, or all that it says."""
    messages = [deployment.message for deployment in application.deployments.values() if deployment.message]
    message = messages[0] if messages else str(application.message)
    ours = re.findall(r"^backend\.[\w.]+: (.+)$", message, re.MULTILINE)
    return ours[-1] if ours else message


def stop_on_signal(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


if __name__ == "__main__":
    sys.exit(main())
