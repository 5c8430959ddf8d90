"""The folder where this product keeps what it writes: converted models and engine logs."""

import os
from pathlib import Path


def home() -> Path:
    """LLMGW_HOME, or `.llmgw` in the working directory; absolute."""
    return Path(os.environ.get("LLMGW_HOME", ".llmgw")).absolute()
