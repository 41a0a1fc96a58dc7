"""Planted mistakes of RoPE."""

import itertools

import torch

import seams
from faults import CHUNKS, CHUNKS_BEYOND_WINDOW, FAR, FULL, KEYS, SLIDING, fault


def frequencies(model, kind):
    """[D/2]: the angle per position of every lane pair of a kind of layer."""
    return getattr(model.model.rotary_emb, f"{kind}_inv_freq").float()


def theta(model, kind):
    return model.config.rope_parameters[kind]["rope_theta"]


def rotating_pairs(model):
    """How many lane pairs of a full layer rotate."""
    return int((frequencies(model, FULL) != 0).sum())


def rotate_pairs(x, cos, sin, first, second):
    """Rotates lanes first[i] and second[i] of x [1,chunk,heads,D] by the i-th angle of cos, sin [1,chunk,D]."""
    n = len(first)
    c, s = cos[..., None, :n], sin[..., None, :n]
    y = x.clone()
    y[..., first] = x[..., first] * c - x[..., second] * s
    y[..., second] = x[..., second] * c + x[..., first] * s
    return y


def right_rotation(x, cos, sin):
    half = x.shape[-1] // 2
    return rotate_pairs(x, cos, sin, torch.arange(half), torch.arange(half, 2 * half))


def rotate_queries_and_keys_differently(layer, rotate_q, rotate_k):
    """The model rotates the queries first, then the keys."""
    turn = itertools.cycle((rotate_q, rotate_k))
    seams.replace_rotation(layer, lambda x, cos, sin: next(turn)(x, cos, sin))


# --- pairing ---------------------------------------------------------------------------------------------------------------


@fault("rope-pairing-contiguous", "rope", "attn.q_rope", kind=FULL, needs=KEYS)
def rope_pairing_contiguous(model, layers):
    pairs = rotating_pairs(model)
    for layer in layers:
        seams.replace_rotation(
            layer, lambda x, cos, sin: rotate_pairs(x, cos, sin, torch.arange(pairs), torch.arange(pairs, 2 * pairs)))


@fault("rope-pairing-interleaved", "rope", "attn.q_rope", needs=KEYS)
def rope_pairing_interleaved(model, layers):
    for layer in layers:
        seams.replace_rotation(
            layer, lambda x, cos, sin: rotate_pairs(x, cos, sin, torch.arange(0, x.shape[-1], 2), torch.arange(1, x.shape[-1], 2)))


@fault("rope-reversed", "rope", "attn.q_rope", needs=KEYS)
def rope_reversed(model, layers):
    for layer in layers:
        seams.replace_rotation(layer, lambda x, cos, sin: right_rotation(x, cos, -sin))


# --- frequencies -----------------------------------------------------------------------------------------------------------


def replace_frequencies(layers, f):
    for layer in layers:
        seams.replace_angles(layer, lambda positions: positions[..., None].float() * f)


@fault("rope-exponent-rotary-dim", "rope", "attn.q_rope", kind=FULL, needs=KEYS)
def rope_exponent_rotary_dim(model, layers):
    pairs, f = rotating_pairs(model), torch.zeros_like(frequencies(model, FULL))
    f[:pairs] = theta(model, FULL) ** (-torch.arange(pairs).float() / pairs)
    replace_frequencies(layers, f)


@fault("rope-full-rotation-on-global", "rope", "attn.q_rope", kind=FULL, needs=KEYS)
def rope_full_rotation_on_global(model, layers):
    half = len(frequencies(model, FULL))
    replace_frequencies(layers, theta(model, FULL) ** (-torch.arange(half).float() / half))


@fault("rope-dim-halved", "rope", "attn.q_rope", kind=SLIDING, needs=KEYS)
def rope_dim_halved(model, layers):
    """Rotary width head_dim/2: pairs (i, i + head_dim/4), exponent over head_dim/2."""
    quarter = len(frequencies(model, SLIDING)) // 2
    f = torch.zeros_like(frequencies(model, SLIDING))
    f[:quarter] = theta(model, SLIDING) ** (-torch.arange(quarter).float() / quarter)
    replace_frequencies(layers, f)
    for layer in layers:
        seams.replace_rotation(
            layer, lambda x, cos, sin: rotate_pairs(x, cos, sin, torch.arange(quarter), torch.arange(quarter, 2 * quarter)))


@fault("rope-freqs-fp16", "rope", "attn.q_rope", needs=FAR)
def rope_freqs_fp16(model, layers):
    for layer in layers:
        replace_frequencies([layer], frequencies(model, layer.self_attn.layer_type).half().float())


@fault("rope-angles-bf16", "rope", "attn.q_rope", needs=FAR)
def rope_angles_bf16(model, layers):
    for layer in layers:
        f = frequencies(model, layer.self_attn.layer_type)
        seams.replace_angles(layer, lambda positions, f=f: (positions[..., None].bfloat16().float() * f).bfloat16())


@fault("rope-global-applied-to-local", "rope", "attn.q_rope", kind=SLIDING, needs=KEYS)
def rope_global_applied_to_local(model, layers):
    """One table of frequencies, the full layers', for both kinds; sliding layers use as much of it as they have pairs."""
    replace_frequencies(layers, frequencies(model, FULL)[:len(frequencies(model, SLIDING))])


@fault("rope-global-applied-to-local@theta", "rope", "attn.q_rope", kind=SLIDING, needs=KEYS)
def rope_theta_of_full_layers(model, layers):
    half = len(frequencies(model, SLIDING))
    replace_frequencies(layers, theta(model, FULL) ** (-torch.arange(half).float() / half))


@fault("rope-scaling-wrong-layer-kind", "rope", "attn.q_rope", kind=SLIDING, needs=KEYS)
def rope_scaling_wrong_layer_kind(model, layers):
    replace_frequencies(layers, frequencies(model, SLIDING) / 8)


# --- positions --------------------------------------------------------------------------------------------------------------


def replace_positions(model, layers, position):
    for layer in layers:
        f = frequencies(model, layer.self_attn.layer_type)
        seams.replace_angles(layer, lambda positions, f=f: position(positions)[..., None].float() * f)


@fault("rope-position-off-by-one", "rope", "attn.q_rope")
def rope_position_off_by_one(model, layers):
    replace_positions(model, layers, lambda positions: positions + 1)


@fault("rope-position-restarts-in-chunk", "rope", "attn.q_rope", needs=CHUNKS)
def rope_position_restarts_in_chunk(model, layers):
    replace_positions(model, layers, lambda positions: positions - positions[..., :1])


@fault("rope-first-position-ignored", "rope", "attn.q_rope", needs=FAR)
def rope_first_position_ignored(model, layers):
    replace_positions(model, layers, lambda positions: positions - positions[..., :1])  # right only for a whole prefill


@fault("ring-slot-as-position@rope", "cache", "attn.q_rope", kind=SLIDING, needs=CHUNKS_BEYOND_WINDOW)
def ring_slot_as_position(model, layers):
    replace_positions(model, layers, lambda positions: positions % model.config.sliding_window)


# --- what is rotated, and when ------------------------------------------------------------------------------------------


@fault("rope-missing", "rope", "attn.q_rope", needs=KEYS)
def rope_missing(model, layers):
    for layer in layers:
        seams.replace_rotation(layer, lambda x, cos, sin: x)


@fault("rope-missing@k", "rope", "attn.k_rope", needs=KEYS)
def rope_missing_k(model, layers):
    for layer in layers:
        rotate_queries_and_keys_differently(layer, right_rotation, lambda x, cos, sin: x)


@fault("qk-norm-rope-fused-partial-lanes", "rope", "attn.q_rope", kind=FULL, needs=KEYS)
def qk_norm_rope_fused_partial_lanes(model, layers):
    for layer in layers:
        seams.replace_rotation(
            layer, lambda x, cos, sin: torch.cat((right_rotation(x[:, :, :1], cos, sin), x[:, :, 1:]), dim=2))


@fault("rope-on-v", "rope", "attn.v_norm", needs=KEYS)
def rope_on_v(model, layers):
    for layer in layers:
        held, norm = {}, layer.self_attn.v_norm.forward

        def keep(_m, _args, kwargs, held=held):
            held["cos"], held["sin"] = kwargs["position_embeddings"]

        layer.self_attn.register_forward_pre_hook(keep, with_kwargs=True)
        layer.self_attn.v_norm.forward = lambda v, held=held, norm=norm: right_rotation(norm(v), held["cos"], held["sin"])


@fault("rope-before-qk-norm", "rope", "attn.q_rope", needs=KEYS, leaves_out=("*.attn.q_norm", "*.attn.k_norm"))
def rope_before_qk_norm(model, layers):
    for layer in layers:
        q_norm, k_norm = layer.self_attn.q_norm.forward, layer.self_attn.k_norm.forward
        layer.self_attn.q_norm.forward = layer.self_attn.k_norm.forward = lambda x: x
        rotate_queries_and_keys_differently(
            layer, lambda x, cos, sin, norm=q_norm: norm(right_rotation(x, cos, sin)),
            lambda x, cos, sin, norm=k_norm: norm(right_rotation(x, cos, sin)))
