"""From a spec to Ray Serve: each model is an application of its own, with its own route.

    serve run backend.app:build name=my-model engine=llamacpp source=/models/my.gguf max_model_len=4096

and `import_path: backend.app:build` with the same fields as `args:` in a serveConfigV2 file.
"""

from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from backend.replica import EngineReplica
from backend.spec import ClusterSpec, ModelSpec, Resources


def build(spec: ModelSpec) -> Application:
    """The Serve application of one model. Serve makes the spec from an `args` mapping and says what is wrong in it."""
    deployment: Deployment = serve.deployment(
        name=EngineReplica.__name__,
        num_replicas=spec.num_replicas,
        ray_actor_options=actor_options(spec.resources),
        # Serve's own route shares the engine's queue with the gateway; it is no place to hold requests back.
        max_ongoing_requests=max(100, 4 * spec.max_num_seqs),
        health_check_period_s=1.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=20.0,
    )(EngineReplica)
    return deployment.bind(spec)


def actor_options(resources: Resources) -> dict[str, Any]:
    """A reservation in the words of `ray_actor_options`."""
    options: dict[str, Any] = {"num_cpus": resources.num_cpus, "num_gpus": resources.num_gpus}
    if resources.custom:
        options["resources"] = dict(resources.custom)
    if resources.accelerator_type:
        options["accelerator_type"] = resources.accelerator_type
    return options


def serve_config(cluster: ClusterSpec) -> dict[str, Any]:
    """The same cluster as a serveConfigV2 document: for `serve deploy`, or the RayService of KubeRay."""
    return {
        "applications": [
            {
                "name": spec.name,
                "route_prefix": spec.route_prefix,
                "import_path": "backend.app:build",
                "args": spec.model_dump(mode="json", exclude_unset=True),
            }
            for spec in cluster.models
        ]
    }
