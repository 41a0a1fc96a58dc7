"""Where transformers' Gemma 4 can be changed from outside: the operations that lie inside its modules.

Each function changes the model that it is given and nothing else: every replacement is an attribute of that model's own modules, or a
name of modeling_gemma4 that is put back as soon as the module returns. What is replaced is what an engine's own kernel would
do, so taps.py, attached afterwards, records what that engine would hold.
"""

import contextlib
import types

import torch
from torch import nn
from transformers import DynamicCache
from transformers.models.gemma4 import modeling_gemma4


@contextlib.contextmanager
def replaced(name, value):
    """modeling_gemma4.NAME is `value` within this context."""
    original = getattr(modeling_gemma4, name)
    setattr(modeling_gemma4, name, value)
    try:
        yield original
    finally:
        setattr(modeling_gemma4, name, original)


def replace_within(module, name, value):
    """modeling_gemma4.NAME is `value` whenever the module runs."""
    original = module.forward

    def forward(*args, **kwargs):
        with replaced(name, value):
            return original(*args, **kwargs)

    module.forward = forward


# --- RoPE ----------------------------------------------------------------------------------------------------------------


def replace_rotation(layer, rotate):
    """rotate(x [1,chunk,heads,D], cos [1,chunk,D], sin) -> x rotated, for the queries and then the keys of this layer."""
    replace_within(layer.self_attn, "apply_rotary_pos_emb", lambda x, cos, sin, unsqueeze_dim=1: rotate(x, cos, sin))


def replace_angles(layer, angles):
    """angles(positions [1,chunk]) -> [1,chunk,D/2]: what this layer's pairs turn by."""

    def embeddings(_attention, args, kwargs):
        half = angles(kwargs["position_ids"]).float()
        both = torch.cat((half, half), dim=-1)
        dtype = kwargs["hidden_states"].dtype
        return args, {**kwargs, "position_embeddings": (both.cos().to(dtype), both.sin().to(dtype))}

    layer.self_attn.register_forward_pre_hook(embeddings, with_kwargs=True)


# --- attention ---------------------------------------------------------------------------------------------------------


def replace_attention(layer, attention):
    """attention(module, query, key, value, mask, scaling) -> (context [1,chunk,H,D], probs, scores), in place of the eager function.

    query is [1,H,chunk,D], key and value [1,G,n,D], mask [1,1,chunk,n], added to the scores [1,H,chunk,n]."""

    def forward(module, query, key, value, mask, scaling=None, **_):
        context, probs, module.own_scores = attention(module, query, key, value, mask, scaling)  # for taps.py
        return context, probs

    replace_within(layer.self_attn, "eager_attention_forward", forward)


def attend(query, key, value, mask, scaling=1.0, softmax=None, matmul=torch.matmul):
    """Eager attention over as many key heads as query heads; returns (context [1,chunk,H,D], probs [1,H,chunk,n], scores)."""
    scores = matmul(query, key.transpose(2, 3)) * scaling
    masked = scores if mask is None else scores + mask
    probs = softmax(masked) if softmax else torch.softmax(masked, dim=-1, dtype=torch.float32)
    probs = probs.to(query.dtype)
    return matmul(probs, value).transpose(1, 2).contiguous(), probs, scores


def replace_mask(layer, visible):
    """visible(query [chunk,1], key [1,n], begin, end) -> bool [chunk,n]: which keys a query sees.

    query and key are positions counted from 0, the chunk is begin to end - 1. The model's cache must keep all keys: keep_all_keys."""

    def mask(_attention, args, kwargs):
        hidden, cache = kwargs["hidden_states"], kwargs["past_key_values"]
        begin = cache.get_seq_length(layer.self_attn.layer_idx)
        end = begin + hidden.shape[1]
        seen = visible(torch.arange(begin, end)[:, None], torch.arange(end)[None, :], begin, end)
        added = torch.where(seen, 0.0, torch.finfo(hidden.dtype).min).to(hidden.dtype)[None, None]
        return args, {**kwargs, "attention_mask": added}

    layer.self_attn.register_forward_pre_hook(mask, with_kwargs=True)


# --- cache --------------------------------------------------------------------------------------------------------------


def keep_all_keys(model):
    """Sliding layers keep every key, as full layers do: what a query sees is then the mask's business alone."""
    model.make_cache = DynamicCache


def replace_cache_update(model, update):
    """update(layer index, all keys [1,G,n,D], all values, begin) -> (keys, values) that attention reads; chunk begins at `begin`."""

    def make_cache():
        cache = DynamicCache()
        original = cache.update

        def patched(keys, values, layer, *args, **kwargs):
            begin = cache.get_seq_length(layer)
            return update(layer, *original(keys, values, layer, *args, **kwargs), begin)

        cache.update = patched
        return cache

    model.make_cache = make_cache


# --- matrix products ----------------------------------------------------------------------------------------------------


def replace_matmul(model, matmul, in_attention=True):
    """matmul(a [...,n,k], b [...,k,m]) computes every matrix product of the model: projections, experts, head and, if so, attention."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.forward = types.MethodType(lambda linear, x: matmul(x, linear.weight.t()), module)

    def attention(module, query, key, value, mask, scaling):
        key, value = (modeling_gemma4.repeat_kv(t, module.num_key_value_groups) for t in (key, value))
        return attend(query, key, value, mask, scaling, matmul=matmul)

    for layer in model.model.layers:
        if in_attention:
            replace_attention(layer, attention)
        replace_experts(layer, matmul)


def replace_experts(layer, matmul=torch.matmul, prepare=None, gate_up=None, down=None, finish=None):
    """The experts' loop written out, with any of its steps replaced.

    prepare(rows [S,d], weights [S]) -> rows; gate_up(experts, rows, ids [S]) -> [S,2M]; down(experts, act [S,M], ids) -> [S,d];
    finish(outputs [S,d], weights, ids) -> [S,d]: what is summed over a token's experts. S: the choices of all tokens, by expert."""

    def project(weights, rows, ids):
        return matmul(rows[:, None, :], weights[ids].transpose(1, 2))[:, 0]

    def forward(experts, x, ids, weights):
        k = ids.shape[-1]
        expert, order = torch.sort(ids.reshape(-1))
        weight, rows = weights.reshape(-1)[order], x[order // k]
        rows = prepare(rows, weight) if prepare else rows
        projected = gate_up(experts, rows, expert) if gate_up else project(experts.gate_up_proj, rows, expert)
        act = experts._apply_gate(projected)
        out = down(experts, act, expert) if down else project(experts.down_proj, act, expert)
        out = finish(out, weight, expert) if finish else out * weight[:, None]
        return out[torch.argsort(order)].view(x.shape[0], k, -1).sum(dim=1).to(x.dtype)

    layer.experts.forward = types.MethodType(forward, layer.experts)
