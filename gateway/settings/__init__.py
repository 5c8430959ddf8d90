"""The gateway's settings, and the only reader of the environment and of the YAML.

Precedence: arguments, then `LLMGW_*` in the environment, then the `gateway:` section of the cluster file, then the
defaults below. The cluster file's `models:` belong to the backend; the gateway takes their names, to know what it is
expected to serve.
"""

from gateway.settings.cluster_file import ConfigError
from gateway.settings.key import Instant, Key
from gateway.settings.settings import Settings, Timeout, is_loopback
from gateway.settings.upstream import Upstream

__all__ = ["ConfigError", "Instant", "Key", "Settings", "Timeout", "Upstream", "is_loopback"]
