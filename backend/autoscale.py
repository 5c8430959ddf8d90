"""How many replicas a model gets: by the load that its engines report, and from none by the demand at the gateways.

Serve calls the policy in each round of its controller, and applies the bounds and delays of its `autoscaling_config`.
"""

import os
from math import ceil
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from backend import directory
from backend.doorbell import Doorbell
from backend.spec import ModelSpec

# The name of the metric between `EngineReplica.record_autoscaling_stats` and the policy.
LOAD = "llmgw_load"
# Serve's replicas report every ten seconds.
LOOK_BACK_S = 20.0


class LoadPolicy:
    """
    Args:
        spec: a ModelSpec with `autoscaling`, as JSON: Serve keeps a policy's arguments so.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        model = ModelSpec.model_validate(spec)
        url = os.environ.get("LLMGW_REDIS_URL")
        self._target = model.target_load
        self._doorbell = Doorbell(url, directory.records(model, "asleep", directory.State.ASLEEP)) if url else None

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The replicas that the load asks for, at least one when a model without any is wanted; and no state."""
        loads = (context.aggregated_metrics or {}).get(LOAD, {})
        # Serve's own route holds requests back while there is no replica; no engine has them in its load.
        wanted = ceil((sum(loads.values()) + context.total_queued_requests) / self._target)
        if not context.running_replicas and self._doorbell:
            wanted = max(wanted, self._doorbell.rung())
        return wanted, {}


def autoscaling_config(spec: ModelSpec) -> AutoscalingConfig | None:
    """Serve's configuration for a model that is to be scaled, else None."""
    scaling = spec.autoscaling
    if scaling is None:
        return None
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]
        policy_function=f"{__name__}:{LoadPolicy.__name__}",
        policy_kwargs={"spec": spec.model_dump(mode="json", exclude_unset=True)},
    )
    return AutoscalingConfig(
        min_replicas=scaling.min_replicas,
        max_replicas=scaling.max_replicas,
        upscale_delay_s=scaling.upscale_delay_s,
        downscale_delay_s=scaling.downscale_delay_s,
        look_back_period_s=LOOK_BACK_S,
        policy=policy,
    )
