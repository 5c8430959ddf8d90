"""From a spec to Ray Serve: each model is an application of its own, with its own route.

    serve run backend.app:build name=my-model engine=llamacpp source=/models/my.gguf max_model_len=4096

and `import_path: backend.app:build` with the same fields as `args:` in a serveConfigV2 file.
"""

from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from backend.autoscale import autoscaling_config
from backend.placement import actor_options, placement_group
from backend.replica import EngineReplica
from backend.spec import ClusterSpec, ModelSpec

# Beyond the drain: the engine's own end, and whatever Ray takes.
STOP_S = 15.0


def build(spec: ModelSpec) -> Application:
    """The Serve application of one model. Serve makes the spec from an `args` mapping and says what is wrong in it."""
    scaling = autoscaling_config(spec)
    replicas = {"autoscaling_config": scaling} if scaling else {"num_replicas": spec.num_replicas}
    deployment: Deployment = serve.deployment(
        name=EngineReplica.__name__,
        **replicas,
        ray_actor_options=actor_options(spec.resources),
        **placement_group(spec),
        max_surge_percent=spec.max_surge_percent,
        # Serve's own route shares the engine's queue with the gateway; it is no place to hold requests back.
        max_ongoing_requests=max(100, 4 * spec.max_num_seqs),
        health_check_period_s=1.0,
        health_check_timeout_s=30.0,
        graceful_shutdown_wait_loop_s=0.2,
        graceful_shutdown_timeout_s=spec.drain_timeout_s + STOP_S,
    )(EngineReplica)
    return deployment.bind(spec)


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
