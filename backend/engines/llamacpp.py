"""llama.cpp: GGUF files on CPUs, chat and embeddings, one process per replica (`_llamacpp_server.py`).

A folder with a BERT in Hugging Face's form is a source too: the server turns it into a GGUF once (`_bert_gguf.py`).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict, Field

from backend.engines import _gguf_header
from backend.engines.base import Engine, Launch, Load, Place, sample
from backend.sources import locate, size

if TYPE_CHECKING:
    from backend.spec import ModelSpec

MIB = 2**20
PROCESS_BYTES = 150 * MIB


class LlamaCppOptions(BaseModel):
    """What a model's `options` may say when its engine is llamacpp."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_answer_tokens: int | None = Field(
        default=None, gt=0, description="of an answer whose request names no bound; default: what the context holds"
    )


class LlamaCpp(Engine):
    tasks: ClassVar[frozenset[str]] = frozenset({"chat", "embeddings"})
    options: ClassVar[type[BaseModel]] = LlamaCppOptions

    def launch(self, spec: "ModelSpec", place: Place) -> Launch:
        argv = [sys.executable, "-m", "backend.engines._llamacpp_server"]
        argv += ["--model", str(locate(spec.source)), "--alias", spec.name]
        argv += ["--host", place.host, "--port", str(place.port), "--threads", str(place.threads)]
        argv += ["--context", str(spec.max_model_len), "--parallel", str(spec.max_num_seqs)]
        if most := LlamaCppOptions.model_validate(spec.options).max_answer_tokens:
            argv += ["--max-answer", str(most)]
        return Launch(tuple([*argv, "--embeddings"] if spec.task == "embeddings" else argv))

    def load(self, metrics: str) -> Load:
        waiting = sample(metrics, "llamacpp:requests_deferred") + sample(metrics, "llamacpp:requests_waiting")
        return Load(sample(metrics, "llamacpp:requests_processing"), waiting)

    def capabilities(self, spec: "ModelSpec") -> tuple[str, ...]:
        # Whether tools work is up to the chat template in the file; SmolLM2's has none for them.
        return () if spec.task == "embeddings" else ("continue", "logprobs")

    def memory(self, spec: "ModelSpec") -> int:
        source = locate(spec.source)
        context = spec.max_model_len * spec.max_num_seqs
        return size(source) + context * _kv_bytes_per_token(source) + PROCESS_BYTES


def _kv_bytes_per_token(source: Path) -> int:
    """What llama.cpp keeps of one token: a key and a value of 16-bit floats for each KV head of each layer."""
    if source.is_dir():  # a BERT encodes in one pass and keeps nothing
        return 0
    fields = _gguf_header.read(source)
    architecture = fields.get("general.architecture")

    def number(key: str) -> int:
        return int(fields.get(f"{architecture}.{key}", 0))

    heads = number("attention.head_count")
    width = number("attention.key_length") or number("embedding_length") // max(heads, 1)
    kv_heads = number("attention.head_count_kv") or heads
    return 2 * 2 * number("block_count") * kv_heads * width


ENGINE = LlamaCpp()
