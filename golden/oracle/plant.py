"""Known porting mistakes, planted into the published implementation one at a time.

FAULTS maps a cause's id to a function (model, layers) that makes the model compute that mistake and nothing else wrong. The
mistake acts in the given layers (indices), as far as it concerns them: a mistake of full layers leaves sliding ones alone.
Each is installed by hooks or by changing a parameter, before taps.py adds its own hooks, so a dump holds what the faulty
engine holds.
"""

import torch
from torch import nn
from transformers.models.gemma4 import modeling_gemma4

FULL, SLIDING = "full_attention", "sliding_attention"


def plant(model, fault, layers=None):
    """Plants one fault; layers None: everywhere. ValueError for an unknown id."""
    if fault not in FAULTS:
        raise ValueError(f"unknown fault {fault}; known: {', '.join(sorted(FAULTS))}")
    FAULTS[fault](model, range(model.config.num_hidden_layers) if layers is None else layers)


def chosen(model, layers, kind=None):
    """The decoder layers at those indices, of one kind if given."""
    types = model.config.layer_types
    return [model.model.layers[i] for i in layers if kind is None or types[i] == kind]


# --- embedding, norms, layer_scalar, head ------------------------------------------------------------------------------


def embed_scale_missing(model, layers):
    model.model.embed_tokens.embed_scale.fill_(1.0)


def rmsnorm_one_plus_w(model, layers):
    norms = [m for layer in chosen(model, layers) for m in layer.modules()]
    if len(layers) == model.config.num_hidden_layers:
        norms.append(model.model.norm)
    for norm in norms:
        if isinstance(norm, modeling_gemma4.Gemma4RMSNorm) and norm.with_scale:
            norm.weight += 1.0


def layer_scalar_dropped(model, layers):
    for layer in chosen(model, layers):
        layer.layer_scalar.fill_(1.0)


def layer_scalar_on_delta(model, layers):
    for layer in chosen(model, layers):
        scalar = layer.layer_scalar.clone()
        layer.layer_scalar.fill_(1.0)
        layer.register_forward_hook(
            lambda _layer, args, out, scalar=scalar: args[0] + scalar * (out - args[0]))


def softcap_missing(model, layers):
    model.config.final_logit_softcapping = None


def softcap_twice(model, layers):
    def again(_model, _args, output):
        cap = model.config.final_logit_softcapping
        output.logits = torch.tanh(output.logits / cap) * cap
        return output

    model.register_forward_hook(again)


# --- attention -------------------------------------------------------------------------------------------------------


def attn_scale_inv_sqrt_d(model, layers):
    for layer in chosen(model, layers):
        layer.self_attn.scaling = layer.self_attn.head_dim ** -0.5


def attn_softcap_50_inherited(model, layers):
    for layer in chosen(model, layers):  # eager attention takes a soft-cap
        layer.self_attn.register_forward_pre_hook(
            lambda _m, args, kwargs: (args, {**kwargs, "softcap": 50.0}), with_kwargs=True)


def v_norm_missing(model, layers):
    for layer in chosen(model, layers):
        layer.self_attn.v_norm = nn.Identity()


def keqv_v_after_knorm_rope(model, layers):
    for layer in chosen(model, layers, FULL):
        held = {}

        def keep_rope(_m, args, kwargs, held=held):
            held["cos"], held["sin"] = kwargs["position_embeddings"]

        def keep_key(_m, _args, k, held=held):
            held["key"] = k

        def use_key(_m, _args, held=held):
            return modeling_gemma4.apply_rotary_pos_emb(held["key"], held["cos"], held["sin"], unsqueeze_dim=2)

        layer.self_attn.register_forward_pre_hook(keep_rope, with_kwargs=True)
        layer.self_attn.k_norm.register_forward_hook(keep_key)
        layer.self_attn.v_norm.register_forward_pre_hook(use_key)


def set_window(model, window):
    """Masks and cache both read the config's window; the per-layer one goes to fused attention."""
    model.config.sliding_window = window
    for layer in chosen(model, range(model.config.num_hidden_layers), SLIDING):
        layer.self_attn.sliding_window = window


def window_off_by_one_wide(model, layers):
    set_window(model, model.config.sliding_window + 1)


def window_not_passed(model, layers):
    set_window(model, model.config.max_position_embeddings)


# --- RoPE ------------------------------------------------------------------------------------------------------------


def rope_pairs(config):
    """How many lane pairs of a full layer rotate."""
    full = config.layer_types.index(FULL)
    factor = config.rope_parameters[FULL].get("partial_rotary_factor", 1.0)
    return int(factor * config.per_layer_config[full].head_dim // 2)


def rope_pairing_contiguous(model, layers):
    """Full layers rotate the pairs (i, i + pairs) of the first 2*pairs lanes in place of (i, i + head_dim/2)."""
    pairs = rope_pairs(model.config)
    original = modeling_gemma4.apply_rotary_pos_emb
    faulty_now = []  # not empty while a faulty layer's attention runs

    def apply_rotary_pos_emb(x, cos, sin, unsqueeze_dim=1):
        if not faulty_now:
            return original(x, cos, sin, unsqueeze_dim)
        c, s = (t.unsqueeze(unsqueeze_dim)[..., :pairs] for t in (cos, sin))
        a, b, rest = x[..., :pairs], x[..., pairs:2 * pairs], x[..., 2 * pairs:]
        return torch.cat((a * c - b * s, b * c + a * s, rest), dim=-1)

    modeling_gemma4.apply_rotary_pos_emb = apply_rotary_pos_emb
    for layer in chosen(model, layers, FULL):
        layer.self_attn.register_forward_pre_hook(lambda _m, _args: faulty_now.append(True))
        layer.self_attn.register_forward_hook(lambda _m, _args, _out: faulty_now.clear(), always_call=True)


def set_full_frequencies(model, layers, frequencies):
    """Full layers rotate with these head_dim/2 frequencies."""

    def embeddings(x, positions):
        angles = positions[..., None].float() * torch.cat((frequencies, frequencies))
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)

    for layer in chosen(model, layers, FULL):
        layer.self_attn.register_forward_pre_hook(
            lambda _m, args, kwargs: (args, {**kwargs, "position_embeddings":
                                             embeddings(kwargs["hidden_states"], kwargs["position_ids"])}),
            with_kwargs=True)


def rope_exponent_rotary_dim(model, layers):
    pairs, theta = rope_pairs(model.config), model.config.rope_parameters[FULL]["rope_theta"]
    frequencies = torch.zeros_like(model.model.rotary_emb.full_attention_inv_freq)
    frequencies[:pairs] = theta ** (-torch.arange(pairs).float() / pairs)
    set_full_frequencies(model, layers, frequencies)


def rope_full_rotation_on_global(model, layers):
    theta = model.config.rope_parameters[FULL]["rope_theta"]
    half = len(model.model.rotary_emb.full_attention_inv_freq)
    set_full_frequencies(model, layers, theta ** (-torch.arange(half).float() / half))


# --- router and experts ----------------------------------------------------------------------------------------------


def router_double_norm(model, layers):
    for layer in chosen(model, layers):
        norm = layer.pre_feedforward_layernorm_2.forward  # the method itself: no hook takes it for the experts' norm
        layer.router.register_forward_pre_hook(lambda _m, args, norm=norm: (norm(args[0]),))


def router_norm_or_root_scale_missing(model, layers):
    for layer in chosen(model, layers):
        layer.router.scalar_root_size = 1.0


def per_expert_scale_missing(model, layers):
    for layer in chosen(model, layers):
        layer.router.per_expert_scale.fill_(1.0)


def per_expert_scale_twice(model, layers):
    for layer in chosen(model, layers):
        layer.router.per_expert_scale.pow_(2)


def topk_not_renormalised(model, layers):
    def skip_division(router, _args, output):
        probs, _weights, ids = output
        return probs, probs.gather(-1, ids) * router.per_expert_scale[ids], ids

    for layer in chosen(model, layers):
        layer.router.register_forward_hook(skip_division)


def experts_gelu_erf(model, layers):
    for layer in chosen(model, layers):
        layer.experts.act_fn = nn.GELU()


def experts_silu(model, layers):
    for layer in chosen(model, layers):
        layer.experts.act_fn = nn.SiLU()


def gate_up_swapped(model, layers):
    for layer in chosen(model, layers):
        weight = layer.experts.gate_up_proj
        weight.copy_(weight.roll(layer.experts.intermediate_dim, dims=1))


def branches_sequential(model, layers):
    for layer in chosen(model, layers):
        held = {}

        def keep_dense(_m, _args, out, held=held):
            held["dense"] = out

        def use_dense(_m, args, held=held):
            return (held["dense"].reshape(args[0].shape),)

        layer.post_feedforward_layernorm_1.register_forward_hook(keep_dense)
        layer.pre_feedforward_layernorm_2.register_forward_pre_hook(use_dense)


def dense_branch_ignored(model, layers):
    for layer in chosen(model, layers):
        held = {}

        def keep_routed(_m, _args, out, held=held):
            held["routed"] = out

        def use_routed(_m, _args, held=held):
            return (held["routed"],)

        layer.post_feedforward_layernorm_2.register_forward_hook(keep_routed)
        layer.post_feedforward_layernorm.register_forward_pre_hook(use_routed)


FAULTS = {
    "embed-scale-missing": embed_scale_missing,
    "rmsnorm-one-plus-w": rmsnorm_one_plus_w,
    "layer-scalar-dropped": layer_scalar_dropped,
    "layer-scalar-on-delta": layer_scalar_on_delta,
    "softcap-missing": softcap_missing,
    "softcap-twice": softcap_twice,
    "attn-scale-inv-sqrt-d": attn_scale_inv_sqrt_d,
    "attn-softcap-50-inherited": attn_softcap_50_inherited,
    "v-norm-missing": v_norm_missing,
    "keqv-v-after-knorm-rope": keqv_v_after_knorm_rope,
    "window-off-by-one-wide": window_off_by_one_wide,
    "window-not-passed": window_not_passed,
    "rope-pairing-contiguous": rope_pairing_contiguous,
    "rope-exponent-rotary-dim": rope_exponent_rotary_dim,
    "rope-full-rotation-on-global": rope_full_rotation_on_global,
    "router-double-norm": router_double_norm,
    "router-norm-or-root-scale-missing": router_norm_or_root_scale_missing,
    "per-expert-scale-missing": per_expert_scale_missing,
    "per-expert-scale-twice": per_expert_scale_twice,
    "topk-not-renormalised": topk_not_renormalised,
    "experts-gelu-erf": experts_gelu_erf,
    "experts-silu": experts_silu,
    "gate-up-swapped": gate_up_swapped,
    "branches-sequential": branches_sequential,
    "dense-branch-ignored": dense_branch_ignored,
}
