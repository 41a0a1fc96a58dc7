"""Loads a checkpoint directory into transformers' Gemma4ForCausalLM, the published text decoder."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is ever downloaded

import torch
import transformers
from transformers import AutoConfig, Gemma4ForCausalLM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
torch.set_grad_enabled(False)


def load(directory, dtype="float32", attention="eager"):
    """Returns the model of DIR/config.json + DIR/*.safetensors in evaluation mode.

    dtype      a key of DTYPES: the type of weights and activations. RoPE's frequencies stay float32, as from_pretrained
               leaves them; the embedding scale sqrt(d) is rounded to dtype, as from_pretrained does.
    attention  "eager" (scores and probabilities exist) or "sdpa" (fused).

    Everything goes through from_pretrained. The multimodal layout needs two hints, since Gemma4ForCausalLM is the
    text-only class: the decoder's part of the config, and the prefix of its tensors. ValueError if a tensor is missing,
    wrongly shaped, or in the file without a place in the model (vision and audio towers apart).
    """
    config = AutoConfig.from_pretrained(directory)
    text = config.get_text_config()
    hints = {}
    if text is not config:
        hints = {"config": text, "key_mapping": {r"^model\.language_model\.": "model."}}
    model, report = Gemma4ForCausalLM.from_pretrained(
        directory, dtype=DTYPES[dtype], attn_implementation=attention, output_loading_info=True, **hints)

    towers = ("model.vision_tower.", "model.embed_vision.", "model.audio_tower.", "model.embed_audio.")
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(k for k in report["unexpected_keys"] if not k.startswith(towers)),
        "mismatched": sorted(str(k) for k in report["mismatched_keys"]),
        "errors": list(report["error_msgs"]),
    }
    if any(wrong.values()):
        raise ValueError(f"{directory}: {'; '.join(f'{k}: {v}' for k, v in wrong.items() if v)}")
    return model.eval()
