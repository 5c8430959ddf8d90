"""A claim: the word of a worker that it is making an answer, in the place where the answer will be.

    0x00 <worker> <number> <"stream" or "whole"> <"usage" or "plain">

It is set with the command that asks for the answer, if there is none, and the answer itself takes its place. It expires
unless its worker renews it.
"""

from gateway.cache.entry import BadEntry

LEASE_MS = 5_000
# Where an entry has its version.
MARK = b"\0"
_FORMS = {"stream": True, "whole": False}
_USAGES = {"usage": True, "plain": False}


class Claim:
    """
    Attributes:
        data: as it is in Redis; no two are the same.
        worker: who made it.
        stream: the answer comes as events.
        usage: it will say what was used.
    """

    __slots__ = ("data", "stream", "usage", "worker")

    def __init__(self, data: bytes, worker: str, stream: bool, usage: bool) -> None:
        self.data = data
        self.worker = worker
        self.stream = stream
        self.usage = usage

    @classmethod
    def of(cls, worker: str, number: int, *, stream: bool, usage: bool) -> "Claim":
        form, told = "stream" if stream else "whole", "usage" if usage else "plain"
        return cls(f"\0{worker} {number} {form} {told}".encode(), worker, stream, usage)

    @property
    def name(self) -> str:
        """What workers call it when they write to each other."""
        return self.data.decode("ascii")

    @classmethod
    def parse(cls, data: bytes) -> "Claim":
        """Raises BadEntry."""
        try:
            worker, _, form, told = data.decode("ascii").removeprefix("\0").split(" ")
            return cls(data, worker, _FORMS[form], _USAGES[told])
        except (ValueError, KeyError) as error:
            raise BadEntry("not a claim") from error
