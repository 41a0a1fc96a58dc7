"""Mistakes that are in no catalogue must be located, and what the engine computes must be said; or nothing, where nothing can be.

    python uncatalogued.py --check ../../build/gemma4-check [--fault NAME] [--dtype D] [--jobs 2]

Near neighbours of catalogued mistakes (another theta, a window of two more, another eps) and damage of no pattern (one head, one lane, one
expert), planted into transformers and judged with all taps in float32. Each must be rejected, first_divergence must be the tap at
which it enters, and every cause that claims to explain it must say what was planted; of two, nothing can be said. One line per miss and one summary line; exit status 0 only without a miss.
"""

import argparse
import os
import sys
import types

import torch
from torch import nn

import manifest
import plant_masks
import plant_norms
import plant_rope
import plant_router
import plant_stream
import runs
import seams
import taps
from faults import FULL, SLIDING
from plant_experts import Activation, reweigh

FAULTS = {}  # name -> (what must be said, or None; first tap, case, install(model))


def uncatalogued(name, said, first, case="tiny-prompt"):
    def enter(install):
        FAULTS[name] = (said, first, case, install)
        return install

    return enter


def of_kind(model, kind=None):
    return [layer for layer in model.model.layers if kind in (None, layer.self_attn.layer_type)]


# --- near neighbours -----------------------------------------------------------------------------------------------------


@uncatalogued("theta-5e5-on-full-layers", "rope_theta = 500000 ", "layers.5.attn.q_rope")
def theta_5e5(model):
    pairs, f = plant_rope.rotating_pairs(model), torch.zeros_like(plant_rope.frequencies(model, FULL))
    f[:pairs] = 5e5 ** (-torch.arange(pairs).float() / len(f))
    plant_rope.replace_frequencies(of_kind(model, FULL), f)


@uncatalogued("theta-2e4-on-sliding-layers", "rope_theta = 20000 ", "layers.0.attn.q_rope")
def theta_2e4(model):
    half = len(plant_rope.frequencies(model, SLIDING))
    plant_rope.replace_frequencies(of_kind(model, SLIDING), 2e4 ** (-torch.arange(half).float() / half))


@uncatalogued("rope-pair-shifted-by-one-lane", None, "layers.0.attn.q_rope")
def pair_shifted(model):
    def rotate(x, cos, sin):
        half = x.shape[-1] // 2
        return plant_rope.rotate_pairs(x, cos, sin, torch.arange(half), half + (torch.arange(half) + 1) % half)

    for layer in of_kind(model, SLIDING):
        seams.replace_rotation(layer, rotate)


@uncatalogued("positions-scaled-by-0.9", "rope.position_scale = 0.9 ", "layers.0.attn.q_rope")
def positions_scaled(model):
    plant_rope.replace_positions(model, of_kind(model), lambda positions: positions * 0.9)


@uncatalogued("window-plus-2", "sliding_window = 18 ", "layers.0.attn.probs", "tiny-window-crossings")
def window_plus_2(model):
    window = model.config.sliding_window + 2
    plant_masks.replace_masks(model, of_kind(model, SLIDING),
                              lambda query, key, begin, end, right: plant_masks.windowed(query, key, window))


@uncatalogued("window-halved", "sliding_window = 8 ", "layers.0.attn.probs", "tiny-window-crossings")
def window_halved(model):
    window = model.config.sliding_window // 2
    plant_masks.replace_masks(model, of_kind(model, SLIDING),
                              lambda query, key, begin, end, right: plant_masks.windowed(query, key, window))


@uncatalogued("first-key-hidden", "attn.mask = first 1 keys hidden", "layers.0.attn.probs")
def first_key_hidden(model):
    plant_masks.replace_masks(model, of_kind(model), lambda query, key, begin, end, right: right & ((key > 0) | (query == 0)))


@uncatalogued("eps-3e-5", "rms_norm_eps", "layers.0.attn.norm")
def eps_3e_5(model):
    for norm in plant_norms.norms_of(model, of_kind(model)):
        norm.eps = 3e-5


@uncatalogued("softcap-29", "final_logit_softcapping = 29 ", "logits")
def softcap_29(model):
    model.config.final_logit_softcapping = 29.0


@uncatalogued("attention-scale-0.97", "attn.scale = 0.97 ", "layers.0.attn.scores")
def attention_scale(model):
    for layer in of_kind(model):
        layer.self_attn.scaling = 0.97


@uncatalogued("gelu-constant-0.0547", "gelu_tanh with x^3 times 0.0547", "layers.0.moe.act")
def gelu_constant(model):
    for layer in of_kind(model):
        layer.experts.act_fn = Activation(
            lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.054715 * x ** 3))))


@uncatalogued("experts-gelu-sigmoid-1.6", "x sigmoid(a x) 1.6", "layers.0.moe.act")
def gelu_sigmoid(model):
    for layer in of_kind(model):
        layer.experts.act_fn = Activation(lambda x: x * torch.sigmoid(1.6 * x))


@uncatalogued("mlp-leaky-relu", "leaky_relu 0.05", "layers.0.mlp.act")
def mlp_leaky_relu(model):
    for layer in of_kind(model):
        layer.mlp.act_fn = nn.LeakyReLU(0.05)


@uncatalogued("second-expert-dropped", "experts.missing = [1]", "layers.0.moe.out")
def second_expert_dropped(model):
    for layer in of_kind(model):
        reweigh(layer, lambda ids, weights: weights * (torch.arange(ids.shape[-1]) != 1))


@uncatalogued("routing-weights-square-root", "p^0.5", "layers.0.router.topk_norm")
def routing_weights_square_root(model):
    def route(router, probs, best, ids):
        weights = plant_router.normalised(best.sqrt())
        return weights, weights * router.per_expert_scale[ids], ids

    plant_router.replace_routing(of_kind(model), route)


@uncatalogued("per-expert-scale-of-neighbour", "rolled by -1", "layers.0.router.topk_weights")
def per_expert_scale_of_neighbour(model):
    for layer in of_kind(model):
        layer.router.per_expert_scale.copy_(layer.router.per_expert_scale.roll(1))


@uncatalogued("router-scale-squared", "w^2", "layers.0.router.norm")
def router_scale_squared(model):
    for layer in of_kind(model):
        layer.router.scale.pow_(2)


@uncatalogued("branches-weighted-0.6-0.4", "residual.factors = [1.2, 0.8]", "layers.0.ffn.sum")
def branches_weighted(model):
    for layer in of_kind(model):
        plant_stream.replace_sum(layer, lambda dense, routed: 1.2 * dense + 0.8 * routed)


@uncatalogued("layer-scalar-of-previous-layer", "weight.layer of layer_scalar = N-1", "layers.1.output")
def layer_scalar_of_previous(model):
    scalars = [layer.layer_scalar.clone() for layer in of_kind(model)]
    for layer in of_kind(model)[1:]:
        layer.layer_scalar.copy_(scalars[layer.layer_idx - 1])


@uncatalogued("q-norm-of-previous-layer", "weight.layer of q_norm = N-1", "layers.1.attn.q_norm")
def q_norm_of_previous(model):
    weights = [layer.self_attn.q_norm.weight.clone() for layer in of_kind(model)]
    for layer in of_kind(model)[1:]:
        if weights[layer.layer_idx - 1].shape == layer.self_attn.q_norm.weight.shape:
            layer.self_attn.q_norm.weight.copy_(weights[layer.layer_idx - 1])


# --- damage of no pattern -------------------------------------------------------------------------------------------------


@uncatalogued("one-key-head-zero", "weight.zero of k_proj = heads 0-0", "layers.3.attn.k")
def one_key_head_zero(model):
    attention = model.model.layers[3].self_attn
    attention.k_proj.weight[:attention.head_dim] = 0


@uncatalogued("one-lane-sign-flipped", "result.factors = [5: -1, others 1]", "layers.2.attn.v")
def one_lane_flipped(model):
    model.model.layers[2].self_attn.v_proj.weight[5].neg_()


@uncatalogued("one-row-of-down-proj-zero", "lanes 17-17", "layers.4.mlp.out")
def one_row_zero(model):
    model.model.layers[4].mlp.down_proj.weight[17] = 0


@uncatalogued("two-rows-of-gate-exchanged", "lanes 3<-40, 40<-3", "layers.1.mlp.gate")
def two_rows_exchanged(model):
    weight = model.model.layers[1].mlp.gate_proj.weight
    weight[[3, 40]] = weight[[40, 3]]


@uncatalogued("experts-of-one-layer-reversed", "rows experts reversed", "layers.6.moe.act")
def experts_reversed(model):
    experts = model.model.layers[6].experts
    experts.gate_up_proj.copy_(experts.gate_up_proj.flip(0))
    experts.down_proj.copy_(experts.down_proj.flip(0))


@uncatalogued("one-token-row-of-embedding-wrong", None, "embed")
def one_token_wrong(model):
    embed = model.model.embed_tokens
    original = embed.forward
    embed.forward = lambda ids: original(torch.where(ids == 214, 215, ids))


@uncatalogued("o-proj-transposed-halves", "columns halves exchanged", "layers.0.attn.out")
def o_proj_halves(model):
    for layer in of_kind(model):
        weight = layer.self_attn.o_proj.weight
        weight.copy_(weight.roll(weight.shape[1] // 2, dims=1))


@uncatalogued("norm-clamped-at-2", "result.clamped = 2", "layers.0.mlp.norm")
def norm_clamped(model):
    for layer in of_kind(model):
        norm = layer.pre_feedforward_layernorm
        norm.forward = types.MethodType(lambda norm, x, original=norm.forward: original(x).clamp(-2, 2), norm)


def measure(task):
    """(name, dtype, what is wrong or None)"""
    name, dtype, program, out = task
    said, first, case_id, install = FAULTS[name]
    path, dump = os.path.join(manifest.CASES, case_id + ".yaml"), os.path.join(out, f"uncatalogued-{os.getpid()}.h5")
    try:
        case = manifest.read(path)
        m = runs.fresh_model(case, dtype)
        install(m)
        recorded = taps.run(m, case["tokens"], case["first_position"], strict=False)
        runs.write_dump(dump, recorded, "all", case, dtype, [len(case["tokens"])])
        result = runs.check(program, path, dump)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        return name, dtype, f"{type(error).__name__}: {error}"
    found = (result["first_divergence"] or {}).get("tap")
    sentences = [cause["sentence"] for cause in result["causes"] if cause["explained"]]
    wrong = [] if result["status"] == 1 else ["not detected"]
    wrong += [] if found == first else [f"expected {first}, found {found}"]
    wrong += ["nothing said"] if said and not sentences else []
    wrong += [f"said {sentence}" for sentence in sentences if not said or said not in sentence]
    return name, dtype, "; ".join(wrong) or None


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", required=True, metavar="PATH", help="the gemma4-check program")
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), metavar="NAME", help="only this fault")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default=os.path.join(manifest.REPOSITORY, "build", "planted"))
    args = parser.parse_args()

    os.makedirs(args.out, exist_ok=True)
    tasks = [(name, args.dtype, args.check, args.out) for name in args.fault or FAULTS]
    right = 0
    for name, dtype, wrong in runs.in_parallel(measure, tasks, args.jobs):
        right += wrong is None
        if wrong:
            print(f"MISS  {name} {dtype}: {wrong}", flush=True)
    print(f"uncatalogued: {right} of {len(tasks)} faults located at the right tap and said to be what they are, or left unsaid ({args.dtype}, all taps)")
    sys.exit(0 if tasks and right == len(tasks) else 1)


if __name__ == "__main__":
    main()
