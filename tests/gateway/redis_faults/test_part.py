"""What a part of the gateway says of Redis, on a real link to a real one."""

import logging

from gateway.metrics import Metrics
from gateway.redis_part import RedisPart
from tests.gateway.limits.links import answers, linked
from tests.polling import eventually

log = logging.getLogger(__name__)


async def test_a_reply_that_is_read_after_its_connection_was_lost_is_no_news(redis_server, caplog):
    caplog.set_level("INFO", __name__)
    async with linked(redis_server.url) as link:
        part = RedisPart("cache", Metrics(), log, "in use", "not in use", link)
        assert await link.call("ECHO", "before")
        redis_server.kill()
        await eventually(lambda: not link.live)
        part.fails("no connection")
        part.works()  # who had the reply comes to it only now
        assert not part.working
        redis_server.start()
        await eventually(lambda: answers(link))
        part.works()
        assert part.working
    said = [record.getMessage() for record in caplog.records if record.name == __name__]
    assert said == ["not in use (no connection)", "in use (Redis answers)"]
