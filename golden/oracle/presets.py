"""The config.json of each synthetic preset (spec/synth.md, "Presets").

The three layouts in which Gemma 4 configs occur are all used, so that a reader of configs meets each of them:

tiny      multimodal: the decoder's config under "text_config", full layers by global_head_dim and
          num_global_key_value_heads
moe128    text-only, full layers by "per_layer_config", as transformers 5.23 writes it
wide256   text-only, full layers by global_head_dim and num_global_key_value_heads
26b-a4b   multimodal, the published dimensions
"""

import json
import os

SLIDING, FULL = "sliding_attention", "full_attention"

DIMENSIONS = {
    "tiny": dict(layout="multimodal", layer_types=([SLIDING] * 5 + [FULL]) * 2, hidden_size=64,
                 heads=4, kv_heads=2, full_kv_heads=1, head_dim=16, full_head_dim=32, window=16,
                 dense=96, expert=32, experts=16, top_k=4, vocabulary=256),
    "moe128": dict(layout="per_layer", layer_types=[SLIDING, FULL] * 2, hidden_size=64,
                   heads=16, kv_heads=8, full_kv_heads=2, head_dim=32, full_head_dim=64, window=16,
                   dense=64, expert=32, experts=128, top_k=8, vocabulary=512),
    "wide256": dict(layout="text", layer_types=[SLIDING, FULL] * 2, hidden_size=256,
                    heads=8, kv_heads=4, full_kv_heads=2, head_dim=32, full_head_dim=64, window=32,
                    dense=256, expert=256, experts=8, top_k=2, vocabulary=512),
    "26b-a4b": dict(layout="multimodal", layer_types=([SLIDING] * 5 + [FULL]) * 5, hidden_size=2816,
                    heads=16, kv_heads=8, full_kv_heads=2, head_dim=256, full_head_dim=512, window=1024,
                    dense=2112, expert=704, experts=128, top_k=8, vocabulary=262144),
}


def text_config(p):
    """The decoder's config from one row of DIMENSIONS."""
    config = {
        "model_type": "gemma4_text",
        "vocab_size": p["vocabulary"],
        "hidden_size": p["hidden_size"],
        "intermediate_size": p["dense"],
        "num_hidden_layers": len(p["layer_types"]),
        "layer_types": p["layer_types"],
        "num_attention_heads": p["heads"],
        "num_key_value_heads": p["kv_heads"],
        "head_dim": p["head_dim"],
    }
    if p["layout"] == "per_layer":
        override = {"head_dim": p["full_head_dim"], "num_key_value_heads": p["full_kv_heads"]}
        config["per_layer_config"] = {
            str(i): dict(override) for i, kind in enumerate(p["layer_types"]) if kind == FULL}
    else:
        config["num_global_key_value_heads"] = p["full_kv_heads"]
        config["global_head_dim"] = p["full_head_dim"]
    config.update({
        "attention_k_eq_v": True,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "sliding_window": p["window"],
        "use_bidirectional_attention": "vision",
        "rope_parameters": {
            FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1000000.0},
            SLIDING: {"rope_type": "default", "rope_theta": 10000.0},
        },
        "enable_moe_block": True,
        "num_experts": p["experts"],
        "top_k_experts": p["top_k"],
        "moe_intermediate_size": p["expert"],
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-06,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 262144,
        "hidden_size_per_layer_input": 0,
        "vocab_size_per_layer_input": p["vocabulary"],
        "num_kv_shared_layers": 0,
        "use_double_wide_mlp": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": 2,
        "eos_token_id": [1, 106],
        "pad_token_id": 0,
        "dtype": "bfloat16",
    })
    return config


def preset_config(name, layers=None):
    """The whole config.json of a preset as a dict; `layers` keeps only that many of the first layers."""
    p = dict(DIMENSIONS[name])
    if layers is not None:
        p["layer_types"] = p["layer_types"][:layers]
    text = text_config(p)
    if p["layout"] == "multimodal":
        return {
            "architectures": ["Gemma4ForConditionalGeneration"],
            "model_type": "gemma4",
            "dtype": "bfloat16",
            "tie_word_embeddings": True,
            "text_config": text,
        }
    return {"architectures": ["Gemma4ForCausalLM"], **text}


def write_config(config, directory):
    """Writes DIR/config.json, indented by 2, with a final newline."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, "config.json"), "w", encoding="utf-8", newline="\n") as f:
        f.write(json.dumps(config, indent=2) + "\n")
