"""A sentence-transformers BERT (config.json, model.safetensors, vocab.txt) as a GGUF file, written once and kept.

llama.cpp wants WordPiece tokens with U+2581 before whole words and the `##` of the others dropped, mean pooling and no
causal attention in the metadata, and F16 only in the 2-D weights of the blocks (an F16 `token_types` aborts it).
"""

import hashlib
import json
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from backend.home import home

RECIPE = "1"
ARCHITECTURE = "bert"


def converted(folder: Path) -> Path:
    """The GGUF of a model folder, converted now if it is not in the data directory yet.

    The name holds a hash of the weights, the vocabulary and the converter, so that a change of any makes a new file; it
    appears under its name only when it is whole, however many processes convert at the same time.
    """
    digest = hashlib.sha256(f"{RECIPE} {version('gguf')}".encode())
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    target = home() / "models" / f"{ARCHITECTURE}-{digest.hexdigest()[:16]}.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_suffix(f".{os.getpid()}.part")
        _convert(folder, unfinished)
        unfinished.replace(target)
    return target


def _convert(folder: Path, target: Path) -> None:
    # Late: numpy, gguf and safetensors cost a second, and only the first start needs them.
    import gguf
    import numpy as np
    from safetensors.numpy import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != ARCHITECTURE:
        raise ValueError(
            f"{folder}: model_type is {config.get('model_type')!r}, only {ARCHITECTURE!r} can be converted"
        )
    writer = gguf.GGUFWriter(target, ARCHITECTURE)
    _write_metadata(writer, config)
    _write_vocabulary(writer, (folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        if (mapped := names.get_name(name.removeprefix("bert."), try_suffixes=(".weight", ".bias"))) is None:
            continue  # the position indices and the pooler head take no part in mean pooling
        half = tensor.ndim == 2 and mapped.startswith("blk.")
        writer.add_tensor(mapped, tensor.astype(np.float16 if half else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _write_metadata(writer: Any, config: dict[str, Any]) -> None:
    import gguf

    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def _write_vocabulary(writer: Any, vocabulary: list[str]) -> None:
    import gguf

    special = {token: vocabulary.index(token) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")}
    writer.add_tokenizer_model(ARCHITECTURE)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(list(_pieces(vocabulary, special)))
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in vocabulary]
    )
    writer.add_token_type_count(2)
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_bos_token_id(special["[CLS]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_eos_token_id(special["[SEP]"])
    writer.add_mask_token_id(special["[MASK]"])


def _pieces(vocabulary: list[str], special: dict[str, int]) -> Iterator[str]:
    for token in vocabulary:
        if token in special:
            yield token
        else:
            yield token.removeprefix("##") if token.startswith("##") else f"\u2581{token}"
