"""Google DeepMind's gemma (JAX): flax's captured intermediates, what each module returns. Its loader takes Google's own checkpoints only,
so the tensors of the published layout are renamed and turned here; the configuration is config.json's."""

import importlib.machinery
import importlib.metadata
import json
import os
import sys
import types

# kauldron, whose annotations gemma uses, wants TensorFlow for the name of its tensors alone: an empty class stands for it.
STAND_IN = types.ModuleType("tensorflow")
STAND_IN.Tensor, STAND_IN.__spec__ = type("Tensor", (), {}), importlib.machinery.ModuleSpec("tensorflow", None)
sys.modules.setdefault("tensorflow", STAND_IN)

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from gemma.gm.nn.gemma4 import _config, _modules, _transformer

KINDS = {"sliding_attention": _modules.AttentionType.LOCAL_SLIDING, "full_attention": _modules.AttentionType.GLOBAL}


def version():
    return importlib.metadata.version("gemma") + ", jax " + jax.__version__


def config_of(c):
    full, sliding = c["rope_parameters"]["full_attention"], c["rope_parameters"]["sliding_attention"]
    return _config.TransformerConfig(
        num_embed=c["vocab_size"], embed_dim=c["hidden_size"], hidden_dim=c["intermediate_size"], num_heads=c["num_attention_heads"],
        head_dim=c["head_dim"], num_kv_heads=c["num_key_value_heads"], final_logit_softcap=c["final_logit_softcapping"],
        num_global_kv_heads=c["num_global_key_value_heads"], use_post_attn_norm=True, use_post_ffw_norm=True, qk_norm_with_scale=True,
        attention_types=tuple(KINDS[kind] for kind in c["layer_types"]), global_key_size=c["global_head_dim"], k_eq_v_global=True,
        global_rope_proportion=full["partial_rotary_factor"], local_rope_proportion=1.0, sliding_window_size=c["sliding_window"],
        local_base_frequency=sliding["rope_theta"], global_base_frequency=full["rope_theta"], enable_moe=True,
        num_experts=c["num_experts"], expert_dim=c["moe_intermediate_size"], top_k_experts=c["top_k_experts"],
        moe_dense_hidden_dim=c["intermediate_size"])


def heads(weight, head_dim):
    """[heads * head_dim, d] as [heads, d, head_dim]."""
    return weight.reshape(-1, head_dim, weight.shape[1]).transpose(0, 2, 1)


def layer_of(w, c, kind):
    """One layer's tensors of the published layout as this model's parameters."""
    d, full = c["hidden_size"], kind == "full_attention"
    head_dim = c["global_head_dim"] if full else c["head_dim"]
    norm = lambda name: {"scale": w[name + ".weight"]}
    attn = {"q_einsum": {"w": heads(w["self_attn.q_proj.weight"], head_dim)},
            "attn_vec_einsum": {"w": w["self_attn.o_proj.weight"].T.reshape(-1, head_dim, d)},
            "query_norm": norm("self_attn.q_norm"), "key_norm": norm("self_attn.k_norm")}
    k = heads(w["self_attn.k_proj.weight"], head_dim)
    attn.update({"k_einsum": {"w": k}} if full else {"kv_einsum": {"w": np.stack([k, heads(w["self_attn.v_proj.weight"], head_dim)])}})
    return {
        "attn": attn, "skip_scale": w["layer_scalar"].reshape(1), "pre_attention_norm": norm("input_layernorm"),
        "post_attention_norm": norm("post_attention_layernorm"), "pre_ffw2_norm": norm("pre_feedforward_layernorm"),
        "mlp2": {"gating_einsum": np.stack([w["mlp.gate_proj.weight"], w["mlp.up_proj.weight"]]), "linear": w["mlp.down_proj.weight"].T},
        "post_ffw2_norm": norm("post_feedforward_layernorm_1"), "pre_ffw_norm": norm("pre_feedforward_layernorm_2"),
        "mlp": {"router_logits": {"w": w["router.proj.weight"].T}, "router_scale": w["router.scale"],
                "per_expert_scale": w["router.per_expert_scale"],
                "gating_einsum": {"w": w["experts.gate_up_proj"].reshape(c["num_experts"], 2, -1, d)},
                "linear": {"w": w["experts.down_proj"].transpose(0, 2, 1)}},
        "post_ffw1_norm": norm("post_feedforward_layernorm_2"), "post_ffw_norm": norm("post_feedforward_layernorm"),
    }


def load(checkpoint, dtype):
    with open(os.path.join(checkpoint, "config.json"), encoding="utf-8") as f:
        c = json.load(f)
    c = c.get("text_config", c)
    weights = {name.replace("model.language_model.", "model."): value for name, value in
               load_file(os.path.join(checkpoint, "model.safetensors")).items()}
    params = {"embedder": {"input_embedding": weights["model.embed_tokens.weight"]}, "final_norm": {"scale": weights["model.norm.weight"]}}
    for n, kind in enumerate(c["layer_types"]):
        prefix = f"model.layers.{n}."
        params[f"layer_{n}"] = layer_of({k[len(prefix):]: v for k, v in weights.items() if k.startswith(prefix)}, c, kind)
    params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float32)).astype(dtype), params)
    return _transformer.Transformer(config=config_of(c), dtype=dtype), params, dtype


def name_of(path):
    """layer_0.attn.q_einsum; with #1 behind it for a second module in the same scope."""
    keys = [key.key for key in path if hasattr(key, "key")]
    call = [key.idx for key in path if hasattr(key, "idx")][0]
    return ".".join(k for k in keys if k != "__call__") + (f"#{call}" if call else "")


def run(loaded, tokens, first_position, schedule):
    model, params, dtype = loaded
    found, at, n = {}, 0, len(tokens)
    cache = model.config.init_cache(1, jnp.dtype(dtype), cache_length=n) if len(schedule) > 1 else None
    for length in schedule:
        rows = np.arange(at, at + length)
        seen = np.arange(n)[None, :] <= rows[:, None]
        out, state = model.apply({"params": params}, jnp.array([tokens[at:at + length]]), positions=jnp.array([first_position + rows]),
                                 attention_mask=jnp.array(seen[None]), cache=cache, capture_intermediates=True, mutable=["intermediates"])
        cache = out.cache
        for path, value in jax.tree_util.tree_leaves_with_path(state["intermediates"]):
            if name_of(path) and getattr(value, "ndim", 0) > 2 and value.shape[:2] == (1, length):
                found.setdefault(name_of(path), []).append(value)
        found.setdefault("logits", []).append(out.logits)
        at += length
    return {name: np.concatenate([np.array(c, np.float32).reshape(c.shape[1], -1) for c in chunks])
            for name, chunks in found.items() if len(chunks) == len(schedule)}
