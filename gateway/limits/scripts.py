"""The Lua scripts of this folder; those that count a minute begin with `window.lua`."""

from importlib import resources

from gateway.redis_script import Script


def script(*names: str) -> Script:
    """The texts of these, one after the other."""
    folder = resources.files("gateway.limits")
    return Script("".join(folder.joinpath(f"{name}.lua").read_text() for name in names))
