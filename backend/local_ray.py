"""A Ray of our own on this machine: loopback, token authentication, no dashboard; it ends with this process.

Ray's processes ask the kernel to be killed when the thread that started them ends: `start` belongs in the main thread.
"""

import logging
import os
import secrets
import shutil
import tempfile
from contextlib import suppress

from backend.ports import LOOPBACK, free_port
from backend.preflight import machine_cpus

OBJECT_STORE_BYTES = 100 * 2**20
# Ray's unix sockets lie 83 bytes below this, and a socket's path has 107 at most.
LONGEST_FOLDER = 24
ENVIRONMENT = {
    # What its name does not say: only so Ray leaves 127.0.0.1 as it is, and does not put the machine's own address in
    # its place, for itself and for everything it starts.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # GCS, raylet and worker ports listen on every interface, whatever the node's address is: no call without the token.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Serve's log goes to files in Ray's folder; here it would repeat what the progress says.
    "RAY_SERVE_LOG_TO_STDERR": "0",
}


class LocalRay:
    def __init__(self) -> None:
        folder = tempfile.gettempdir()
        self._folder = tempfile.mkdtemp(prefix="llmgw-", dir=folder if len(folder) <= LONGEST_FOLDER else "/tmp")  # noqa: S108
        # Ray opens its own folder to every user; ours around it stays closed.
        self._ray_folder = os.path.join(self._folder, "r")

    def start(self) -> None:
        os.environ.update(ENVIRONMENT, RAY_AUTH_TOKEN=secrets.token_hex(32))
        # Ray reads its environment when it is imported.
        import ray

        ray.init(
            address="local",
            num_cpus=machine_cpus(),
            object_store_memory=OBJECT_STORE_BYTES,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address=LOOPBACK,
            _temp_dir=self._ray_folder,
        )

    def start_serve(self, port: int) -> str:
        """Starts Serve's controller and its HTTP proxy; returns the proxy's address."""
        from ray import serve

        port = port or free_port()
        serve.start(proxy_location="HeadOnly", http_options={"host": LOOPBACK, "port": port})
        return f"http://{LOOPBACK}:{port}"

    def stop(self) -> None:
        """Serve first, so that engines stop in order, then every process of Ray, then its folder."""
        import ray
        from ray import serve

        if ray.is_initialized():
            with suppress(ray.exceptions.RayError, TimeoutError):
                serve.shutdown()  # type: ignore[no-untyped-call]
            ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)
