"""llama.cpp: GGUF files on CPUs, chat and embeddings, one process per replica (`_llamacpp_server.py`).

A folder with a BERT in Hugging Face's form is a source too: the server turns it into a GGUF once (`_bert_gguf.py`).
"""

import sys
from typing import TYPE_CHECKING, ClassVar

from backend.engines.base import Engine, Launch, Load, sample
from backend.sources import locate, size

if TYPE_CHECKING:
    from backend.spec import ModelSpec

MIB = 2**20
PROCESS_BYTES = 150 * MIB


class LlamaCpp(Engine):
    tasks: ClassVar[frozenset[str]] = frozenset({"chat", "embeddings"})

    def launch(self, spec: "ModelSpec", port: int, threads: int) -> Launch:
        argv = [sys.executable, "-m", "backend.engines._llamacpp_server"]
        argv += ["--model", str(locate(spec.source)), "--alias", spec.name, "--port", str(port)]
        argv += ["--context", str(spec.max_model_len), "--parallel", str(spec.max_num_seqs), "--threads", str(threads)]
        return Launch(tuple([*argv, "--embeddings"] if spec.task == "embeddings" else argv))

    def load(self, metrics: str) -> Load:
        waiting = sample(metrics, "llamacpp:requests_deferred") + sample(metrics, "llamacpp:requests_waiting")
        return Load(sample(metrics, "llamacpp:requests_processing"), waiting)

    def capabilities(self, spec: "ModelSpec") -> tuple[str, ...]:
        # Whether tools work is up to the chat template in the file; SmolLM2's has none for them.
        return () if spec.task == "embeddings" else ("continue", "logprobs")

    def memory(self, spec: "ModelSpec") -> int:
        # The KV cache is not known before the file is read; for models of this size it is of the order of the weights.
        return 4 * size(locate(spec.source)) + PROCESS_BYTES


ENGINE = LlamaCpp()
