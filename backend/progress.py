"""What `python -m backend` says on its standard output: one JSON object per line, and nothing else.

{"event": "checked"}
{"event": "step", "name": "ray" | "serve", "seconds": 5.8}
{"event": "replica", "model": "smollm2-135m-instruct", "seconds": 4.1}
{"event": "ready", "http": "http://127.0.0.1:8000"}
{"event": "updated"}                                   the cluster file was edited, and what it says now runs
{"event": "rejected", "message": "one line"}           it was, and what ran before still does
{"event": "failed", "message": "one line"}
"""

import json
import os
import sys
import time
from typing import Any, TextIO


class Progress:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._since = time.monotonic()

    @classmethod
    def claim_stdout(cls) -> "Progress":
        """Takes the standard output for itself; what libraries and child processes print goes to standard error."""
        stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return cls(stream)

    def checked(self) -> None:
        self._emit(event="checked")

    def step(self, name: str) -> None:
        self._emit(event="step", name=name, seconds=self._lap())

    def deploying(self) -> None:
        self._lap()

    def replica(self, model: str) -> None:
        self._emit(event="replica", model=model, seconds=round(time.monotonic() - self._since, 2))

    def ready(self, http: str) -> None:
        self._emit(event="ready", http=http)

    def updated(self) -> None:
        self._emit(event="updated")

    def rejected(self, message: str) -> None:
        self._emit(event="rejected", message=" ".join(message.split()))

    def failed(self, message: str) -> None:
        self._emit(event="failed", message=" ".join(message.split()))

    def _lap(self) -> float:
        before, self._since = self._since, time.monotonic()
        return round(self._since - before, 2)

    def _emit(self, **event: Any) -> None:
        print(json.dumps(event), file=self._stream, flush=True)
