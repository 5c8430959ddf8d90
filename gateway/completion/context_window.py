"""Turns away prompts that cannot fit a model's context, before any engine is asked.

A prompt has at least as many tokens as words, for every tokenizer that cuts at white space (byte-level BPE with the
GPT-2 split, SentencePiece, WordPiece). That bound costs no tokenizer; what passes it and is still too long is the
engine's to refuse, with the same error.
"""

from gateway.completion.endpoint import Endpoint
from gateway.completion.request import Call
from gateway.errors import ContextLengthExceeded


def check_fits(call: Call, max_model_len: int | None) -> None:
    """Raises ContextLengthExceeded when the prompt surely exceeds `max_model_len` tokens."""
    # A token is at least one byte, so a short body needs no look; and of a prompt that is to be cut none is too long.
    if max_model_len is None or len(call.body) <= max_model_len or call.payload.get("truncate_prompt_tokens"):
        return
    counts = [len(text.split()) for text in call.prompts()]
    # The messages of a chat fill one context; the inputs of a batch have one each.
    tokens = sum(counts) if call.endpoint is Endpoint.CHAT else max(counts, default=0)
    if tokens > max_model_len:
        raise exceeded(call, max_model_len, f"the prompt has at least {tokens}")


def exceeded(call: Call, max_model_len: int | None, detail: str) -> ContextLengthExceeded:
    limit = f"This model's maximum context length is {max_model_len} tokens" if max_model_len else "Prompt too long"
    return ContextLengthExceeded(f"{limit}; {detail}. Please shorten it.", param=call.endpoint.prompt)
