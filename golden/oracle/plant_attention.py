"""Planted mistakes of attention: V, head groups, scale, softmax, kernels, weights."""

import torch
from torch import nn
from transformers.models.gemma4 import modeling_gemma4

import seams
from faults import DECODE, FULL, KEYS, SLIDING, fault


# --- V ---------------------------------------------------------------------------------------------------------------------


@fault("keqv-v-after-knorm-rope", "attention", "attn.v_norm", kind=FULL)
def keqv_v_after_knorm_rope(model, layers):
    for layer in layers:
        held, norm = {}, layer.self_attn.v_norm.forward

        def keep_rope(_m, _args, kwargs, held=held):
            held["cos"], held["sin"] = kwargs["position_embeddings"]

        def from_key(_v, held=held, norm=norm):
            return norm(modeling_gemma4.apply_rotary_pos_emb(held["key"], held["cos"], held["sin"], unsqueeze_dim=2))

        layer.self_attn.register_forward_pre_hook(keep_rope, with_kwargs=True)
        layer.self_attn.k_norm.register_forward_hook(lambda _m, _args, k, held=held: held.update(key=k))
        layer.self_attn.v_norm.forward = from_key


@fault("keqv-v-after-knorm-rope@k-norm", "attention", "attn.v_norm", kind=FULL)
def keqv_v_after_knorm(model, layers):
    for layer in layers:
        held, norm = {}, layer.self_attn.v_norm.forward
        layer.self_attn.k_norm.register_forward_hook(lambda _m, _args, k, held=held: held.update(key=k))
        layer.self_attn.v_norm.forward = lambda _v, held=held, norm=norm: norm(held["key"])


@fault("keqv-unimplemented", "attention", "attn.v", kind=FULL)
def keqv_unimplemented(model, layers):
    for layer in layers:
        k_proj = layer.self_attn.k_proj
        layer.self_attn.v_proj = nn.Linear(k_proj.in_features, k_proj.out_features, bias=False, dtype=k_proj.weight.dtype)
        layer.self_attn.v_proj.weight.zero_()


@fault("keqv-on-sliding-layers", "attention", "attn.v", kind=SLIDING)
def keqv_on_sliding_layers(model, layers):
    for layer in layers:
        layer.self_attn.v_proj = None


# --- which KV head a query head reads -------------------------------------------------------------------------------------


def regroup(layer, key_head, value_head=None, acts=lambda chunk: True):
    """Query head h reads key head key_head(h, H, G) and value head value_head(h, H, G), in chunks of which acts(length)."""

    def attention(module, query, key, value, mask, scaling):
        H, G = query.shape[1], key.shape[1]
        right = [h // (H // G) for h in range(H)]
        if acts(query.shape[2]):
            keys = [key_head(h, H, G) for h in range(H)]
            values = [(value_head or key_head)(h, H, G) for h in range(H)]
        else:
            keys = values = right
        return seams.attend(query, key[:, keys], value[:, values], mask, scaling)

    seams.replace_attention(layer, attention)


def other_kinds_groups(model, layer):
    """The number of KV heads of the other kind of layer. A model need have no sliding one: the config says what it would have."""
    if layer.self_attn.layer_type == FULL:
        return model.config.to_dict()["num_key_value_heads"]
    other = next(i for i in model.model.layers if i.self_attn.layer_type == FULL).self_attn
    return model.config.num_attention_heads // other.num_key_value_groups


@fault("global-kv-heads-from-local", "attention", "attn.scores", kind=FULL, needs=KEYS, cases=("moe128-prompt", "wide256-prompt"))
def global_kv_heads_from_local(model, layers):
    for layer in layers:
        groups = other_kinds_groups(model, layer)
        regroup(layer, lambda h, H, G, groups=groups: h // (H // groups) % G)


@fault("qk-norm-per-layer-kv-geometry-decode", "cache", "attn.scores", needs=DECODE)
def qk_norm_per_layer_kv_geometry_decode(model, layers):
    for layer in layers:
        groups = other_kinds_groups(model, layer)
        regroup(layer, lambda h, H, G, groups=groups: h // (H // groups) % G, acts=lambda chunk: chunk == 1)


@fault("kv-grouping-modulo", "attention", "attn.scores")
def kv_grouping_modulo(model, layers):
    for layer in layers:
        regroup(layer, lambda h, H, G: h % G)


@fault("kv-grouping-first-head", "attention", "attn.scores")
def kv_grouping_first_head(model, layers):
    for layer in layers:
        regroup(layer, lambda h, H, G: 0)


@fault("v-head-off-by-one", "attention", "attn.context")
def v_head_off_by_one(model, layers):
    for layer in layers:
        regroup(layer, lambda h, H, G: h // (H // G), lambda h, H, G: (h // (H // G) + 1) % G)


# --- scores and softmax ---------------------------------------------------------------------------------------------------


@fault("attn-scale-inv-sqrt-d", "attention", "attn.scores", needs=KEYS)
def attn_scale_inv_sqrt_d(model, layers):
    for layer in layers:
        layer.self_attn.scaling = layer.self_attn.head_dim ** -0.5


@fault("attn-scale-27b-exception", "attention", "attn.scores", needs=KEYS, cases=("moe128-prompt", "wide256-prompt"))
def attn_scale_27b_exception(model, layers):
    for layer in layers:
        layer.self_attn.scaling = (model.config.hidden_size / model.config.num_attention_heads) ** -0.5


@fault("attn-softcap-50-inherited", "attention", "attn.probs", needs=KEYS, leaves_out=("*.attn.scores",))
def attn_softcap_50_inherited(model, layers):
    for layer in layers:  # eager attention takes a soft-cap
        layer.self_attn.register_forward_pre_hook(
            lambda _m, args, kwargs: (args, {**kwargs, "softcap": 50.0}), with_kwargs=True)


def replace_softmax(layer, softmax):
    def attention(module, query, key, value, mask, scaling):
        key, value = (modeling_gemma4.repeat_kv(t, module.num_key_value_groups) for t in (key, value))
        return seams.attend(query, key, value, mask, scaling, softmax)

    seams.replace_attention(layer, attention)


@fault("softmax-off-by-one", "attention", "attn.probs")
def softmax_off_by_one(model, layers):
    def softmax(scores):
        with_sink = torch.cat((scores.float(), torch.zeros_like(scores[..., :1], dtype=torch.float32)), dim=-1)
        return torch.softmax(with_sink, dim=-1)[..., :-1]

    for layer in layers:
        replace_softmax(layer, softmax)


@fault("flash-hd512-zero", "attention", "attn.context", kind=FULL)
def flash_hd512_zero(model, layers):
    for layer in layers:
        def attention(module, query, key, value, mask, scaling):
            key, value = (modeling_gemma4.repeat_kv(t, module.num_key_value_groups) for t in (key, value))
            context, *rest = seams.attend(query, key, value, mask, scaling)
            return torch.zeros_like(context), *rest

        seams.replace_attention(layer, attention)


# --- weights ----------------------------------------------------------------------------------------------------------------


@fault("o-proj-heads-interleaved", "attention", "attn.out")
def o_proj_heads_interleaved(model, layers):
    for layer in layers:
        attention, o_proj = layer.self_attn, layer.self_attn.o_proj.forward
        attention.o_proj.forward = lambda x, D=attention.head_dim, o_proj=o_proj: o_proj(
            x.unflatten(-1, (-1, D)).transpose(-1, -2).flatten(-2))


@fault("qk-weights-permuted", "attention", "attn.q")
def qk_weights_permuted(model, layers):
    for layer in layers:
        D = layer.self_attn.head_dim
        for projection in layer.self_attn.q_proj, layer.self_attn.k_proj:
            rows = projection.weight.unflatten(0, (-1, 2, D // 2))  # [heads, half, pair, d]
            projection.weight.copy_(rows.transpose(1, 2).flatten(0, 2).clone())
