"""A cluster's models on a local Ray, until SIGTERM. `python -m backend` runs this under a guard.

Standard output carries the progress (`progress.py`), standard error the rest. Exit status 0 after a stop that was asked
for, 1 when the cluster could not start or fell.
"""

import argparse
import os
import signal
import sys
import threading
from pathlib import Path

import psutil

from backend import preflight
from backend.engines import EngineLoadError
from backend.home import home
from backend.local_ray import LocalRay
from backend.progress import Progress
from backend.spec import ClusterFile, ClusterSpec, SpecError

POLL_S = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m backend", description=__doc__.splitlines()[0])
    parser.add_argument("--config", type=Path, help="a cluster file; default: the embedded cluster")
    parser.add_argument("--check", action="store_true", help="tell whether it could start here, and start nothing")
    arguments = parser.parse_args()
    progress = Progress.claim_stdout()
    os.environ["LLMGW_HOME"] = str(home())
    stop = threading.Event()
    stop_on_signal(stop)
    file = ClusterFile(arguments.config)
    try:
        cluster = file.load()
        preflight.check(cluster)
    except (SpecError, EngineLoadError, preflight.CannotStart) as error:
        progress.failed(str(error))
        return 1
    if arguments.check:
        progress.checked()
        return 0
    ray = LocalRay()
    try:
        run(file, cluster, ray, progress, stop)
    except preflight.CannotStart as error:
        progress.failed(str(error))
        return 1
    except Exception as error:
        progress.failed(f"{type(error).__name__}: {error}")
        raise
    finally:
        ray.stop()
    return 0


def run(file: ClusterFile, cluster: ClusterSpec, ray: LocalRay, progress: Progress, stop: threading.Event) -> None:
    """Starts everything, follows the cluster file, and returns when `stop` is set; raises CannotStart on a failure."""
    ray.start()
    stop_on_signal(stop)  # Ray has put its own handler in place
    progress.step("ray")
    http = ray.start_serve(cluster.ray.http_port)
    progress.step("serve")
    # Reading Ray and Serve takes seconds, in which nothing else could be reported.
    from backend.deploy import deploy, follow

    deploy(cluster, progress, stop)
    if not stop.is_set():
        progress.ready(http)
    ray_processes = [child for child in psutil.Process().children() if child.name() in {"raylet", "gcs_server"}]
    while not stop.wait(POLL_S):
        if not all(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in ray_processes):
            raise preflight.CannotStart("Ray has ended unexpectedly")
        if file.edited:
            cluster = follow(file, cluster, progress, stop)


def stop_on_signal(stop: threading.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())


if __name__ == "__main__":
    sys.exit(main())
