"""Planted mistakes of the experts and of the dense MLP."""

import math

import numpy as np
import torch
from torch import nn

import seams
from faults import DECODE, fault


class Activation(nn.Module):
    """A function as a module, as transformers keeps its activations."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


# --- what the experts and the dense MLP read ----------------------------------------------------------------------------


def read_instead(norm, source):
    """The norm reads the tensor that source() gives, whatever it is handed."""
    original = norm.forward
    norm.forward = lambda x: original(source().reshape(x.shape))


def keep_output(module):
    held = {}
    module.register_forward_hook(lambda _m, _args, out: held.update(out=out))
    return lambda: held["out"]


def keep_input(module):
    held = {}
    module.register_forward_pre_hook(lambda _m, args: held.update(x=args[0].clone()))
    return lambda: held["x"]


@fault("branches-sequential", "experts", "moe.norm")
def branches_sequential(model, layers):
    for layer in layers:
        read_instead(layer.pre_feedforward_layernorm_2, keep_output(layer.post_feedforward_layernorm_1))


@fault("branches-sequential@mlp-out", "experts", "moe.norm")
def branches_sequential_mlp_out(model, layers):
    for layer in layers:
        read_instead(layer.pre_feedforward_layernorm_2, keep_output(layer.mlp))


@fault("branch-reads-layer-input@experts", "experts", "moe.norm")
def branch_reads_layer_input_experts(model, layers):
    for layer in layers:
        read_instead(layer.pre_feedforward_layernorm_2, keep_input(layer))


@fault("branch-reads-layer-input@dense", "dense", "mlp.norm")
def branch_reads_layer_input_dense(model, layers):
    for layer in layers:
        read_instead(layer.pre_feedforward_layernorm, keep_input(layer))


# --- the experts' activation ----------------------------------------------------------------------------------------------


@fault("experts-silu", "experts", "moe.act")
def experts_silu(model, layers):
    for layer in layers:
        layer.experts.act_fn = nn.SiLU()


@fault("experts-silu@decode", "experts", "moe.act", needs=DECODE)
def experts_silu_decode(model, layers):
    """Only on the fast path that serves one token at a time."""
    for layer in layers:
        right, held = layer.experts.act_fn, {}
        layer.experts.register_forward_pre_hook(lambda _m, args, held=held: held.update(rows=args[0].shape[0]))
        layer.experts.act_fn = Activation(
            lambda x, right=right, held=held: nn.functional.silu(x) if held["rows"] == 1 else right(x))


@fault("experts-gelu-erf", "experts", "moe.act")
def experts_gelu_erf(model, layers):
    for layer in layers:
        layer.experts.act_fn = nn.GELU()


@fault("experts-quick-gelu", "experts", "moe.act")
def experts_quick_gelu(model, layers):
    for layer in layers:
        layer.experts.act_fn = Activation(quick_gelu)


@fault("experts-act-missing", "experts", "moe.act")
def experts_act_missing(model, layers):
    for layer in layers:
        layer.experts.act_fn = nn.Identity()


def replace_gate(layer, act):
    """act(gate [S,M], up [S,M]) -> [S,M]"""
    layer.experts._apply_gate = lambda gate_up: act(*gate_up.chunk(2, dim=-1))


@fault("experts-gptoss-constants", "experts", "moe.act")
def experts_gptoss_constants(model, layers):
    for layer in layers:
        replace_gate(layer, lambda gate, up: quick_gelu(gate.clamp(max=7.0)) * (up.clamp(-7.0, 7.0) + 1))


@fault("fused-split-missing-on-host", "experts", "moe.act")
def fused_split_missing_on_host(model, layers):
    for layer in layers:
        replace_gate(layer, lambda gate, up, act=layer.experts.act_fn: act(gate))


# --- the experts' weights -------------------------------------------------------------------------------------------------


@fault("gate-up-swapped", "experts", "moe.act")
def gate_up_swapped(model, layers):
    for layer in layers:
        weight = layer.experts.gate_up_proj
        weight.copy_(weight.roll(layer.experts.intermediate_dim, dims=1))


@fault("gate-up-swapped@interleaved", "experts", "moe.act")
def gate_up_interleaved(model, layers):
    for layer in layers:
        weight = layer.experts.gate_up_proj
        weight.copy_(torch.cat((weight[:, 0::2], weight[:, 1::2]), dim=1))


def transposed(weight):
    """[E, rows, cols] whose memory is read as [E, cols, rows]"""
    E, rows, cols = weight.shape
    return weight.clone().view(E, cols, rows).transpose(1, 2)


@fault("expert-transpose", "experts", "moe.act")
def expert_transpose(model, layers):
    for layer in layers:
        layer.experts.gate_up_proj.copy_(transposed(layer.experts.gate_up_proj))
        layer.experts.down_proj.copy_(transposed(layer.experts.down_proj))


@fault("expert-transpose@down", "experts", "moe.out")
def expert_transpose_down(model, layers):
    for layer in layers:
        layer.experts.down_proj.copy_(transposed(layer.experts.down_proj))


@fault("expert-keys-dropped", "experts", "moe.act")
def expert_keys_dropped(model, layers):
    for layer in layers:
        layer.experts.gate_up_proj.zero_()
        layer.experts.down_proj.zero_()


@fault("experts-off-by-one", "experts", "moe.act")
def experts_off_by_one(model, layers):
    for layer in layers:
        for weight in layer.experts.gate_up_proj, layer.experts.down_proj:
            weight.copy_(weight.roll(-1, dims=0))


@fault("expert-quant-tail", "experts", "moe.out", cases=("tiny-prompt", "moe128-prompt"))
def expert_quant_tail(model, layers):
    """A group is 128 inputs in the real model; here a quarter of the width."""
    for layer in layers:
        M = layer.experts.intermediate_dim
        layer.experts.down_proj[:, :, M - M // 4:] = 0


@fault("ffn-moe-f16-accumulate", "experts", "moe.act")
def ffn_moe_f16_accumulate(model, layers):
    def dot(rows, weight):
        """Each fused multiply-add rounds once, to float16: in numpy, as torch goes from float64 to float16 by way of float32."""
        x, w = rows.double().numpy(), weight.double().numpy()
        total = np.zeros(w.shape[:2])
        for i in range(x.shape[1]):
            total = (total + x[:, i:i + 1] * w[:, :, i]).astype(np.float16).astype(np.float64)
        return torch.from_numpy(total).to(rows.dtype)

    for layer in layers:
        seams.replace_experts(layer, gate_up=lambda experts, rows, ids: dot(rows, experts.gate_up_proj[ids]),
                              down=lambda experts, act, ids: dot(act, experts.down_proj[ids]))


# --- the experts' sum -----------------------------------------------------------------------------------------------------


def reweigh(layer, weigh):
    """weigh(ids [T,K], weights [T,K]) -> the weights of the sum."""
    layer.experts.register_forward_pre_hook(lambda _m, args: (args[0], args[1], weigh(args[1], args[2])))


@fault("routing-weights-ignored", "experts", "moe.out")
def routing_weights_ignored(model, layers):
    for layer in layers:
        reweigh(layer, lambda ids, weights: torch.ones_like(weights))


@fault("routing-weight-twice", "experts", "moe.out")
def routing_weight_twice(model, layers):
    for layer in layers:
        reweigh(layer, lambda ids, weights: weights ** 2)


@fault("routing-weight-on-input", "experts", "moe.act")
def routing_weight_on_input(model, layers):
    for layer in layers:
        seams.replace_experts(layer, prepare=lambda rows, weight: (rows * weight[:, None]).to(rows.dtype),
                              finish=lambda out, weight, ids: out)


@fault("last-expert-dropped", "experts", "moe.out")
def last_expert_dropped(model, layers):
    for layer in layers:
        reweigh(layer, lambda ids, weights: torch.cat((weights[:, :-1], torch.zeros_like(weights[:, -1:])), dim=-1))


@fault("first-expert-only", "experts", "moe.out")
def first_expert_only(model, layers):
    for layer in layers:
        reweigh(layer, lambda ids, weights: torch.cat((weights[:, :1], torch.zeros_like(weights[:, 1:])), dim=-1))


@fault("router-capacity-drop", "experts", "moe.out")
def router_capacity_drop(model, layers):
    def drop(ids, weights):
        capacity = math.ceil(ids.numel() / model.config.num_experts)
        earlier = (ids.reshape(-1)[None, :] == ids.reshape(-1)[:, None]).tril(-1).sum(dim=-1)  # of the same expert
        return weights * (earlier < capacity).reshape(ids.shape)

    for layer in layers:
        reweigh(layer, drop)


# --- dense MLP --------------------------------------------------------------------------------------------------------------


@fault("mlp-silu", "dense", "mlp.act")
def mlp_silu(model, layers):
    for layer in layers:
        layer.mlp.act_fn = nn.SiLU()


@fault("mlp-gelu-erf", "dense", "mlp.act")
def mlp_gelu_erf(model, layers):
    for layer in layers:
        layer.mlp.act_fn = nn.GELU()


@fault("mlp-quick-gelu", "dense", "mlp.act")
def mlp_quick_gelu(model, layers):
    for layer in layers:
        layer.mlp.act_fn = Activation(quick_gelu)


@fault("mlp-act-missing", "dense", "mlp.act")
def mlp_act_missing(model, layers):
    for layer in layers:
        layer.mlp.act_fn = nn.Identity()


@fault("mlp-gate-up-swapped", "dense", "mlp.act")
def mlp_gate_up_swapped(model, layers):
    for layer in layers:
        mlp = layer.mlp
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.act_fn(mlp.up_proj(x)) * mlp.gate_proj(x))


@fault("mlp-gate-up-swapped@weights", "dense", "mlp.gate")
def mlp_weights_exchanged(model, layers):
    for layer in layers:
        layer.mlp.gate_proj, layer.mlp.up_proj = layer.mlp.up_proj, layer.mlp.gate_proj


# --- decode only -----------------------------------------------------------------------------------------------------------


@fault("layer-scalar-dropped@decode", "stream", "output", needs=DECODE)
def layer_scalar_dropped_decode(model, layers):
    """Only on the path that serves one token at a time."""
    for layer in layers:
        scalar = layer.layer_scalar.clone()

        def load(layer, args, scalar=scalar):
            layer.layer_scalar.copy_(torch.ones_like(scalar) if args[0].shape[1] == 1 else scalar)

        layer.register_forward_pre_hook(load)


@fault("v-norm-missing@decode", "norms", "attn.v_norm", needs=DECODE)
def v_norm_missing_decode(model, layers):
    """Only on the path that serves one token at a time."""
    for layer in layers:
        norm = layer.self_attn.v_norm.forward
        layer.self_attn.v_norm.forward = lambda v, norm=norm: v if v.shape[1] == 1 else norm(v)
