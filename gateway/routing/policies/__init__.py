"""One file here is one routing policy: its class is POLICY, and its file name, with hyphens, is what settings and
requests call it.

Discovery imports every module of this folder but for `base`, the seam itself.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules

from gateway.routing.policies.base import Policy
from gateway.settings import ConfigError


def policies() -> Mapping[str, Policy]:
    """A new instance of each, by name.

    Raises:
        ConfigError: a module of this folder fails to load or has no POLICY; the message names it.
    """
    return {name.replace("_", "-"): _load(name) for _, name, _ in iter_modules(__path__) if name != "base"}


def _load(name: str) -> Policy:
    try:
        policy: Policy = import_module(f"{__name__}.{name}").POLICY()
    except Exception as error:
        raise ConfigError(f"{__path__[0]}/{name}.py: {type(error).__name__}: {error}") from error
    return policy
