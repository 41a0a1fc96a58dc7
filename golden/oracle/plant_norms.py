"""Planted mistakes of the RMSNorms."""

import types

import torch
from transformers.models.gemma4.modeling_gemma4 import Gemma4RMSNorm

from faults import fault


def norms_of(model, layers):
    """The RMSNorms of those layers, and the final one if they are all."""
    norms = [m for layer in layers for m in layer.modules() if isinstance(m, Gemma4RMSNorm)]
    return norms + [model.model.norm] if len(layers) == len(model.model.layers) else norms


def replace_norm(norm, unit, weigh=lambda y, weight: y * weight):
    """unit(x [..., n] in float32, eps) -> x divided by its root mean square; weigh(that, weight) -> the norm's output."""

    def forward(norm, x):
        y = unit(x.float(), norm.eps)
        return (weigh(y, norm.weight.float()) if norm.with_scale else y).type_as(x)

    norm.forward = types.MethodType(forward, norm)


def right_unit(x, eps):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)


def drop(norm):
    norm.forward = lambda x: x


def exchange(a, b):
    """Each norm gets the other's weight."""
    a.weight, b.weight = b.weight, a.weight


# --- every norm -----------------------------------------------------------------------------------------------------------


@fault("rmsnorm-one-plus-w", "norms", "attn.norm")
def rmsnorm_one_plus_w(model, layers):
    for norm in norms_of(model, layers):
        replace_norm(norm, right_unit, lambda y, weight: y * (1 + weight))


@fault("rmsnorm-one-plus-w@qk", "norms", "attn.q_norm")
def rmsnorm_one_plus_w_qk(model, layers):
    for layer in layers:
        for norm in layer.self_attn.q_norm, layer.self_attn.k_norm:
            replace_norm(norm, right_unit, lambda y, weight: y * (1 + weight))


@fault("rmsnorm-low-precision-reduce", "norms", "attn.norm")
def rmsnorm_low_precision_reduce(model, layers):
    def unit(x, eps):
        total = torch.zeros_like(x[..., :1], dtype=torch.float64)
        for i in range(x.shape[-1]):
            total = (total + x[..., i:i + 1].double() ** 2).bfloat16().double()
        return x * torch.rsqrt(total.float() / x.shape[-1] + eps)

    for norm in norms_of(model, layers):
        replace_norm(norm, unit)


@fault("rmsnorm-downcast-before-weight", "norms", "attn.norm")
def rmsnorm_downcast_before_weight(model, layers):
    for norm in norms_of(model, layers):
        replace_norm(norm, right_unit, lambda y, weight: y.bfloat16().float() * weight)


@fault("rmsnorm-as-layernorm", "norms", "attn.norm")
def rmsnorm_as_layernorm(model, layers):
    for norm in norms_of(model, layers):
        replace_norm(norm, lambda x, eps: right_unit(x - x.mean(-1, keepdim=True), eps))


@fault("rmsnorm-eps-wrong", "norms", "attn.norm")
def rmsnorm_eps_wrong(model, layers):
    for norm in norms_of(model, layers):
        norm.eps = 1e-5


@fault("rmsnorm-weight-missing", "norms", "attn.norm")
def rmsnorm_weight_missing(model, layers):
    for norm in norms_of(model, layers):
        norm.with_scale = False


# --- attention's norms ------------------------------------------------------------------------------------------------


@fault("input-norm-missing", "norms", "attn.norm")
def input_norm_missing(model, layers):
    for layer in layers:
        drop(layer.input_layernorm)


@fault("qk-norm-missing", "norms", "attn.q_norm")
def qk_norm_missing(model, layers):
    for layer in layers:
        drop(layer.self_attn.q_norm)
        drop(layer.self_attn.k_norm)


@fault("qk-norm-swapped", "norms", "attn.q_norm")
def qk_norm_swapped(model, layers):
    for layer in layers:
        exchange(layer.self_attn.q_norm, layer.self_attn.k_norm)


@fault("qk-norm-over-all-heads", "norms", "attn.q_norm")
def qk_norm_over_all_heads(model, layers):
    for layer in layers:
        for norm in layer.self_attn.q_norm, layer.self_attn.k_norm:
            replace_norm(norm, lambda x, eps: x * torch.rsqrt(x.pow(2).mean((-2, -1), keepdim=True) + eps))


@fault("v-norm-missing", "norms", "attn.v_norm")
def v_norm_missing(model, layers):
    for layer in layers:
        drop(layer.self_attn.v_norm)


@fault("v-norm-has-weight", "norms", "attn.v_norm")
def v_norm_has_weight(model, layers):
    for layer in layers:
        # k_norm's weight, and not what another mistake makes of k_norm
        layer.self_attn.v_norm.forward = types.MethodType(Gemma4RMSNorm.forward, layer.self_attn.k_norm)


@fault("post-attention-norm-missing", "norms", "attn.post_norm")
def post_attention_norm_missing(model, layers):
    for layer in layers:
        drop(layer.post_attention_layernorm)


# --- the norms of the feed-forward half -----------------------------------------------------------------------------


@fault("rmsnorm-base-ffn-norms-dropped", "norms", "mlp.norm")
def rmsnorm_base_ffn_norms_dropped(model, layers):
    for layer in layers:
        drop(layer.pre_feedforward_layernorm)
        drop(layer.post_feedforward_layernorm)


@fault("pre-ffn-norm-is-post-attn-norm", "norms", "mlp.norm")
def pre_ffn_norm_is_post_attn_norm(model, layers):
    for layer in layers:
        layer.pre_feedforward_layernorm.weight = layer.post_attention_layernorm.weight


@fault("post-attn-and-post-ffn-norms-swapped", "norms", "attn.post_norm")
def post_attn_and_post_ffn_norms_swapped(model, layers):
    for layer in layers:
        exchange(layer.post_attention_layernorm, layer.post_feedforward_layernorm)


@fault("branch-pre-norms-swapped", "norms", "mlp.norm")
def branch_pre_norms_swapped(model, layers):
    for layer in layers:
        exchange(layer.pre_feedforward_layernorm, layer.pre_feedforward_layernorm_2)


@fault("branch-post-norms-swapped", "norms", "mlp.post_norm")
def branch_post_norms_swapped(model, layers):
    for layer in layers:
        exchange(layer.post_feedforward_layernorm_1, layer.post_feedforward_layernorm_2)


@fault("branch-post-norms-missing", "norms", "mlp.post_norm")
def branch_post_norms_missing(model, layers):
    for layer in layers:
        drop(layer.post_feedforward_layernorm_1)
        drop(layer.post_feedforward_layernorm_2)


@fault("branch-input-norm-fused", "norms", "moe.norm")
def branch_input_norm_fused(model, layers):
    for layer in layers:
        layer.pre_feedforward_layernorm_2.weight = layer.pre_feedforward_layernorm.weight


@fault("branch-input-norm-fused@router", "norms", "router.norm")
def branch_input_norm_fused_router(model, layers):
    for layer in layers:
        layer.router.norm.forward = layer.pre_feedforward_layernorm.forward
