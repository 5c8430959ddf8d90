"""Commands that are packed in their own way are what hiredis packs."""

import hiredis
import pytest

from gateway.redis_form import Form


@pytest.mark.parametrize(
    ("parts", "values"),
    [
        (("PING",), ()),
        (("GET", None), (b"key",)),
        (("SET", None, None, "NX", "GET", "PX", None), (b"{llmgw}:cache:1", b"\0w 1 stream usage", b"5000")),
        (("SET", None, None, "EX", None), (b"", bytes(range(256)) * 9, b"1")),
        (("%d%b", None, "%"), (b"%s %d",)),
        (("caf\u00e9", None), ("\u00fc".encode(),)),
    ],
)
def test_a_form_packs_as_hiredis_does(parts, values):
    left = iter(values)
    command = tuple(part.encode() if part is not None else next(left) for part in parts)
    assert Form(*parts).packed(*values) == hiredis.pack_command(command)
