"""LangServe's client, without the finalizer that can hang a process.

When a RemoteRunnable is collected, langserve 0.3.3 starts a thread and waits for it. Collected while another thread is
being started, that waits for a lock which its own thread holds.
"""

from typing import Any
from unittest.mock import patch

from langserve import RemoteRunnable


def remote_runnable(url: str, **options: Any) -> RemoteRunnable[Any, Any]:
    with patch("langserve.client._close_clients", lambda sync_client, _: sync_client.close()):
        return RemoteRunnable(url, **options)
