"""Runs a Gemma 4 model of transformers and records every tap of the tap table (spec/taps.md) by hooks.

The model's own code computes everything; the hooks only copy what its modules read and return. Four taps lie between
modules, where no hook can reach; they are recomputed from recorded tensors with the model's own operation in the same dtype:

    attn.scores         matmul(q_rope, k_rope) * scaling, as eager_attention_forward begins
    router.topk_norm    gathered router.probs divided by their sum; checked: times per_expert_scale it is topk_weights
    ffn.residual        attn.residual + ffn.post_norm;              checked: times layer_scalar it is the layer's output
    attn.v              on layers where V is K: attn.k

run() then computes the same thing again without hooks and requires the same logits bit for bit.
"""

import contextlib

import torch
from transformers import DynamicCache
from transformers.models.gemma4 import modeling_gemma4


class HooksChangedTheResult(RuntimeError):
    """The logits with and without hooks differ: no tap of this run can be trusted."""


def run(model, tokens, first_position=0, schedule=None, strict=True):
    """One forward pass over `tokens`; returns {tap name: torch.Tensor}, in dataflow order.

    tokens          list of T ids
    first_position  the absolute position of tokens[0]; only RoPE sees it
    schedule        chunk lengths that sum to T, fed one after the other through one DynamicCache; None: [T]
    strict          False for a changed model: recomputed taps are not checked against what the unchanged one does next

    Every tensor's first axis is the position, whatever the schedule. attn.scores and attn.probs exist with eager attention
    only; keys that the cache no longer holds are 0 there. Ids are int32, everything else has the dtype in which the model
    holds it (router.probs and what follows from it are float32 in a bfloat16 model).
    """
    schedule = schedule or [len(tokens)]
    if sum(schedule) != len(tokens) or min(schedule) < 1:
        raise ValueError(f"schedule {schedule} does not cover {len(tokens)} tokens")
    if not all(0 <= token < model.config.vocab_size for token in tokens):
        raise ValueError(f"tokens: expected ids from 0 to {model.config.vocab_size - 1}, found {min(tokens)} to {max(tokens)}")

    recorder = Recorder(model, len(tokens), strict)
    with recorder.attached():
        logits = forward(model, tokens, first_position, schedule, recorder)
    if not torch.equal(logits, forward(model, tokens, first_position, schedule)):
        raise HooksChangedTheResult("logits with hooks differ from logits without")

    taps = {"tokens": torch.tensor(tokens, dtype=torch.int32),
            "positions": first_position + torch.arange(len(tokens), dtype=torch.int32)}
    taps.update(recorder.taps())
    taps["logits"] = logits
    return taps


def forward(model, tokens, first_position, schedule, recorder=None):
    """Feeds the chunks through the model's own cache; returns the logits [T,V] of all positions."""
    make_cache = getattr(model, "make_cache", None)  # a changed model may bring its own
    cache = make_cache() if make_cache else DynamicCache(config=model.config)
    if recorder:
        recorder.watch_cache(cache)
    logits, begin = [], 0
    for length in schedule:
        if recorder:
            recorder.begin, recorder.end = begin, begin + length
        ids = torch.tensor([tokens[begin:begin + length]])
        positions = torch.arange(first_position + begin, first_position + begin + length)[None]
        logits.append(model(input_ids=ids, position_ids=positions, past_key_values=cache).logits[0])
        begin += length
    return torch.cat(logits)


class Recorder:
    """Collects taps chunk by chunk. begin and end: the positions (from 0) of the chunk that is being computed."""

    def __init__(self, model, length, strict=True):
        self.model, self.length, self.strict = model, length, strict
        self.begin = self.end = 0
        self.chunks = {}  # tap name -> list of tensors [chunk, ...]
        self.residuals = {}  # "layers.N." -> the attention residual itself, not a copy: what the layer adds to at its end

    def taps(self):
        """{tap name: tensor [T, ...]} in dataflow order, after the last chunk."""
        names = [n for n in tap_order(self.model.config.num_hidden_layers) if n in self.chunks]
        assert set(names) == set(self.chunks), set(self.chunks) - set(names)
        return {n: torch.cat(self.chunks[n]) for n in names}

    def last(self, name):
        """The tensor of the present chunk."""
        return self.chunks[name][-1]

    def record(self, name, tensor, *shape):
        """Keeps a copy of `tensor` as [chunk, *shape]: the copy, because some modules work in place."""
        self.chunks.setdefault(name, []).append(tensor.detach().clone().reshape(self.end - self.begin, *shape))

    def record_recomputed(self, name, value, expected, found):
        """Keeps a value that no module returned; strict: only if what follows from it agrees with what the model did."""
        if self.strict and not torch.equal(expected.reshape(found.shape), found):
            raise HooksChangedTheResult(f"{name}: the recomputed value contradicts the model's next step")
        self.record(name, value, *value.shape[1:])

    # --- hooks -------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def attached(self):
        """Within this context every forward pass of the model is recorded."""
        self.handles, self.gates = [], []
        text = self.model.model
        self.on_output(text.embed_tokens, "embed", self.model.config.hidden_size)
        for i, layer in enumerate(text.layers):
            self.attach_layer(f"layers.{i}.", layer)
        self.on_output(text.norm, "final_norm", self.model.config.hidden_size)
        self.on_output(self.model.lm_head, "logits_raw", self.model.config.vocab_size)
        try:
            with self.attention_watched():
                yield self
        finally:
            for handle in self.handles:
                handle.remove()
            for layer in text.layers:
                layer.experts._apply_gate = self.gates.pop(0)

    def on_output(self, module, name, *shape):
        self.handles.append(module.register_forward_hook(lambda _m, _in, out: self.record(name, out, *shape)))

    def on_input(self, module, name, *shape):
        self.handles.append(module.register_forward_pre_hook(lambda _m, args: self.record(name, args[0], *shape)))

    def attach_layer(self, at, layer):
        """Hooks one Gemma4TextDecoderLayer; `at` is "layers.N."."""
        c, attention, mlp = self.model.config, layer.self_attn, layer.mlp
        d, F, E, D = c.hidden_size, mlp.intermediate_size, c.num_experts, attention.head_dim
        H = c.num_attention_heads
        G = H // attention.num_key_value_groups

        self.on_input(layer, at + "input", d)
        self.on_output(layer.input_layernorm, at + "attn.norm", d)
        self.on_output(attention.q_proj, at + "attn.q", H, D)
        self.on_output(attention.k_proj, at + "attn.k", G, D)
        self.on_output(attention.v_proj or attention.k_proj, at + "attn.v", G, D)
        self.on_output(attention.q_norm, at + "attn.q_norm", H, D)
        self.on_output(attention.k_norm, at + "attn.k_norm", G, D)
        self.on_output(attention.v_norm, at + "attn.v_norm", G, D)
        # k_rope: watch_cache(); q_rope, scores, probs: attention_watched()
        self.on_input(attention.o_proj, at + "attn.context", H, D)
        self.on_output(attention.o_proj, at + "attn.out", d)
        self.on_output(layer.post_attention_layernorm, at + "attn.post_norm", d)
        self.on_input(layer.pre_feedforward_layernorm, at + "attn.residual", d)
        self.handles.append(layer.pre_feedforward_layernorm.register_forward_pre_hook(
            lambda _m, args: self.residuals.update({at: args[0].reshape(-1, d)})))

        self.on_output(layer.pre_feedforward_layernorm, at + "mlp.norm", d)
        self.on_output(mlp.gate_proj, at + "mlp.gate", F)
        self.on_output(mlp.up_proj, at + "mlp.up", F)
        self.on_input(mlp.down_proj, at + "mlp.act", F)
        self.on_output(mlp.down_proj, at + "mlp.out", d)
        self.on_output(layer.post_feedforward_layernorm_1, at + "mlp.post_norm", d)

        self.on_input(layer.router.proj, at + "router.norm", d)
        self.on_output(layer.router.proj, at + "router.logits", E)
        self.handles.append(layer.router.register_forward_hook(
            lambda router, _in, out: self.record_routing(at, router, out)))

        self.on_output(layer.pre_feedforward_layernorm_2, at + "moe.norm", d)
        self.watch_gate(at, layer.experts)
        self.on_output(layer.experts, at + "moe.out", d)
        self.on_output(layer.post_feedforward_layernorm_2, at + "moe.post_norm", d)

        self.on_input(layer.post_feedforward_layernorm, at + "ffn.sum", d)
        self.on_output(layer.post_feedforward_layernorm, at + "ffn.post_norm", d)
        self.handles.append(layer.register_forward_hook(
            lambda layer, _in, out: self.record_layer_output(at, layer, out)))

    def record_routing(self, at, router, output):
        """The router returns (softmax over all experts, weights of the chosen, ids of the chosen)."""
        probs, weights, ids = output
        self.record(at + "router.probs", probs, probs.shape[-1])
        self.record(at + "router.topk_ids", ids.to(torch.int32), ids.shape[-1])
        topk = getattr(router, "topk_norm", None)  # a changed router may show its own
        if topk is None:
            topk = probs.gather(-1, ids)
            topk = topk / topk.sum(dim=-1, keepdim=True)
        self.record_recomputed(at + "router.topk_norm", topk, topk * router.per_expert_scale[ids], weights)
        self.record(at + "router.topk_weights", weights, weights.shape[-1])

    def record_layer_output(self, at, layer, output):
        residual = self.residuals.pop(at) + self.last(at + "ffn.post_norm")
        self.record_recomputed(at + "ffn.residual", residual, residual * layer.layer_scalar, output)
        self.record(at + "output", output, output.shape[-1])

    def watch_gate(self, at, experts):
        """Records gelu(gate) * up, which the experts compute in one batch, sorted by expert."""
        original = experts._apply_gate

        def apply_gate(gate_up):
            act = original(gate_up)
            ids = self.last(at + "router.topk_ids").long()  # [T,K]
            _, order = torch.sort(ids.reshape(-1))  # the same sort as in transformers' grouped_mm_experts_forward
            by_choice = torch.empty_like(act)
            by_choice[order] = act
            self.record(at + "moe.act", by_choice, ids.shape[-1], act.shape[-1])
            return act

        if experts.config._experts_implementation != "grouped_mm":
            raise ValueError(f"experts implementation {experts.config._experts_implementation}: expected grouped_mm")
        experts._apply_gate = apply_gate
        self.gates.append(original)

    def watch_cache(self, cache):
        """Records the keys that the model hands to the cache: what the cache makes of them is no tap."""
        original = cache.update

        def update(keys, values, layer, *args, **kwargs):
            self.record(f"layers.{layer}.attn.k_rope", keys[0].transpose(0, 1), keys.shape[1], keys.shape[3])
            return original(keys, values, layer, *args, **kwargs)

        cache.update = update

    @contextlib.contextmanager
    def attention_watched(self):
        """Every attention module asks this table for its attention function; for a while it gets one that also records."""
        table = modeling_gemma4.ALL_ATTENTION_FUNCTIONS
        original = table.get_interface

        def get_interface(implementation, default):
            function = original(implementation, default)

            def recording(module, query, key, value, mask, **kwargs):
                output, probs = function(module, query, key, value, mask, **kwargs)
                self.record_attention(module, query, key, probs, kwargs["scaling"])
                return output, probs

            return recording

        table.get_interface = get_interface
        try:
            yield
        finally:
            del table.get_interface

    def record_attention(self, module, query, key, probs, scaling):
        """query [1,H,chunk,D]; key [1,G,n,D] and probs [1,H,chunk,n]: the n newest positions, those of the chunk last."""
        at, chunk = f"layers.{module.layer_idx}.attn.", query.shape[2]
        self.record(at + "q_rope", query[0].transpose(0, 1), query.shape[1], query.shape[3])
        if probs is None:  # fused attention holds neither
            return
        scores = vars(module).pop("own_scores", None)  # a changed model may show its own
        if scores is None:
            all_keys = modeling_gemma4.repeat_kv(key, module.num_key_value_groups)
            scores = torch.matmul(query, all_keys.transpose(2, 3)) * scaling
        for name, square in ("scores", scores), ("probs", probs):
            placed = square.new_zeros(square.shape[1], chunk, self.length)
            placed[:, :, self.end - key.shape[2]:self.end] = square[0]
            self.record(at + name, placed.transpose(0, 1), *placed.shape[::2])


# The tap table's order, which "first divergence" follows.
LAYER_TAPS = """
    input attn.norm attn.q attn.k attn.v attn.q_norm attn.k_norm attn.v_norm attn.q_rope attn.k_rope attn.scores attn.probs
    attn.context attn.out attn.post_norm attn.residual
    mlp.norm mlp.gate mlp.up mlp.act mlp.out mlp.post_norm
    router.norm router.logits router.probs router.topk_ids router.topk_norm router.topk_weights
    moe.norm moe.act moe.out moe.post_norm
    ffn.sum ffn.post_norm ffn.residual output
""".split()


def tap_order(layers):
    """The names of all taps of a model, tokens and logits apart, in dataflow order."""
    names = ["embed"]
    for i in range(layers):
        names += [f"layers.{i}.{tap}" for tap in LAYER_TAPS]
    return names + ["final_norm", "logits_raw"]


def smallest_gap(taps, layers, top_k):
    """The smallest distance between the router logits of rank K and K+1: (gap, layer, position), over all layers and
    positions. How far an engine's logits may be off before it chooses another expert."""
    best = None
    for i in range(layers):
        ranked = taps[f"layers.{i}.router.logits"].double().sort(dim=-1, descending=True).values
        gaps = ranked[:, top_k - 1] - ranked[:, top_k]
        position = int(gaps.argmin())
        if best is None or float(gaps[position]) < best[0]:
            best = (float(gaps[position]), i, position)
    return best
