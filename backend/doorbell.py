"""How a model without replicas is found and woken: a record that says it sleeps, and the gateways' word of demand.

Synchronous, for Serve's autoscaling is; bounded, for it runs in Serve's controller.
"""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict

from redis.exceptions import RedisError

from backend import redis_address
from backend.directory import EXPIRY_S, PREFIX, Record

ASK_EVERY_S = 0.5
TIMEOUT_S = 0.25
# A Redis that does not answer must not cost the controller a timeout in each of its rounds.
PATIENCE_S = 5.0

log = logging.getLogger(__name__)


class Doorbell:
    """
    Args:
        url: of Redis.
        records: what the directory says of the model while it sleeps.
    """

    def __init__(self, url: str, records: Sequence[Record]) -> None:
        self._redis = redis_address.blocking_client(url, TIMEOUT_S)
        self._records = records
        self._rung = False
        self._next = 0.0

    def rung(self) -> bool:
        """Whether requests wait for the model. Renews its records on the way; asks Redis only now and then."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + ASK_EVERY_S
            try:
                self._rung = self._ask()
            except (RedisError, OSError) as error:
                # Its words may repeat what was sent, the password too.
                log.warning(
                    "%s sleeps and Redis cannot tell of demand (%s)", self._records[0].model, type(error).__name__
                )
                self._next = time.monotonic() + PATIENCE_S
        return self._rung

    def _ask(self) -> bool:
        with self._redis.pipeline(transaction=False) as commands:
            for record in self._records:
                commands.set(f"{PREFIX}:replica:{record.id}", json.dumps(asdict(record)), ex=EXPIRY_S, get=True)
                commands.sadd(f"{PREFIX}:replicas", record.id)
            commands.exists(*[f"{PREFIX}:demand:{record.model}" for record in self._records])
            *before, waiting = commands.execute()
            if None in before:
                for record in self._records:
                    commands.publish(f"{PREFIX}:changes", record.id)
                commands.execute()
        return bool(waiting)
