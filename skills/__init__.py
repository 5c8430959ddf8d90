"""Skills: one file is one Semantic Kernel plugin, `build(services)`, served at `POST /skills/{file name}/{function}`.

`build` returns a `KernelPlugin`, or an object with `@kernel_function` methods whose parameters are plain JSON types
with a description (`Annotated[str, "..."]`). File, function and parameter names are identifiers. The model of a prompt
function is the gateway's. The first line of the module's docstring is the plugin's description.
"""

from datetime import datetime
from typing import Protocol


class Services(Protocol):
    """What a skill may ask of the gateway."""

    def now(self) -> datetime:
        """The time, in UTC."""


class InvalidArgument(ValueError):
    """The caller's argument cannot be used; the message, which the caller sees, says why.

    Args:
        parameter: the name of the function's parameter.
    """

    def __init__(self, message: str, *, parameter: str) -> None:
        super().__init__(message)
        self.parameter = parameter
