"""Handlebars templates, which Semantic Kernel knows, load with the first one that is used.

`pybars` compiles its grammar when it is imported, which Semantic Kernel does for everybody: a third of a gateway's
start, for what few skills have.
"""

import importlib
import sys
from types import ModuleType
from typing import Any

_USER = "semantic_kernel.prompt_template.handlebars_prompt_template"


def defer() -> None:
    """Before Semantic Kernel is imported."""
    if "pybars" not in sys.modules and _USER not in sys.modules:
        sys.modules["pybars"] = later = ModuleType("pybars")
        vars(later).update(Compiler=_compiler, PybarsError=Exception)


def _compiler() -> Any:
    """Puts the real ones where Semantic Kernel has the names from `defer`."""
    user = sys.modules[_USER]
    if user.Compiler is _compiler:
        del sys.modules["pybars"]
        pybars = importlib.import_module("pybars")
        vars(user).update(Compiler=pybars.Compiler, PybarsError=pybars.PybarsError)
    return user.Compiler()
