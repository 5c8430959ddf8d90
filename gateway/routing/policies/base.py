"""The seam between the router and its policies."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from gateway.context import RequestContext
from gateway.routing.standing import Standing


class Prompt(Protocol):
    """What is asked, as far as a policy looks at it."""

    def prompts(self) -> Iterator[str]:
        """The texts of the prompt, the first first."""


class Policy(Protocol):
    """Which of several replicas is asked first. One instance serves all models of a worker."""

    def order(
        self, standings: Sequence[Standing], context: RequestContext, prompt: Prompt, now: float
    ) -> Sequence[Standing]:
        """The same ones, at least two and all of one model, in the order in which they are to be asked."""
