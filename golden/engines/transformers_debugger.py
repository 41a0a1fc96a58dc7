"""Runs transformers' own model debugger on a case; its folder is read by gemma4-check --map transformers-debugger.

    transformers_debugger.py --case golden/cases/tiny-prompt.yaml --out DIR [--excerpt FILE]

--excerpt also copies what the map takes of layers 0 and 5 and outside the layers into one safetensors file, under the files' names: a committed
one of them is what the unit tests read (golden/dumps).
"""
import argparse
import fnmatch
import pathlib

import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from transformers.model_debugging_utils import model_addition_debugger_context

HERE = pathlib.Path(__file__).resolve().parent


def wanted(name):
    """Whether a rule of the map takes it in one of two layers, a sliding and a full one. Logits before the soft-cap are left out."""
    rules = yaml.safe_load((HERE.parent / "maps" / "transformers-debugger.yaml").read_text())["taps"]
    patterns = [rule["from"].replace("{N}", layer) for tap, rule in rules.items() if tap != "logits_raw" for layer in ("0", "5")]
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--excerpt")
    options = parser.parse_args()
    case = yaml.safe_load(pathlib.Path(options.case).read_text())
    checkpoint = pathlib.Path(options.case).parent.parent / "checkpoints" / case["checkpoint"]["name"]
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad(), model_addition_debugger_context(model, debug_path=options.out, do_prune_layers=False, use_repr=False):
        model(input_ids=torch.tensor([case["tokens"]]))
    if options.excerpt:
        files = sorted(f for f in pathlib.Path(options.out).glob("*.safetensors") if wanted(f.stem))
        save_file({f.stem: load_file(f)["data"] for f in files}, options.excerpt)


if __name__ == "__main__":
    main()
