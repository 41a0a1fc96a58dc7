"""The forward pass of Gemma 4 26B-A4B in NumPy, written from the pages of spec/ alone, and compared with every golden.

    python spec/forward.py            every case: each tap within 1e-5 relative RMS, the same experts
    python spec/forward.py CASE ...   these (ids under golden/cases)

It proves that the pages suffice: whoever wrote it had seen neither ref/ nor the oracle. Sections in brackets are those of spec/model.md.
Everything is float64 but the angles of RoPE, which the page defines in float32. It needs NumPy, h5py and PyYAML (those of
golden/oracle/requirements.txt), and the checkpoints that `gemma4-check agreement` leaves in build/checkpoints.
"""

import json
import pathlib
import sys

import h5py
import numpy as np
import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 1e-5  # relative RMS (spec/cases.md) of any tap


# --- 2 dimensions ---


class Config:
    """2.1 and 2.2: the text model's keys as attributes, and what differs from layer to layer."""

    def __init__(self, root):
        self.prefix = "model.language_model." if "text_config" in root else "model."
        self.text = root.get("text_config", root)

    def __getattr__(self, key):
        return self.text[key]

    def kind(self, layer):
        full = layer % 6 == 5 or layer == self.num_hidden_layers - 1
        return self.layer_types[layer] if self.text.get("layer_types") else "full_attention" if full else "sliding_attention"

    def key_is_value(self, layer):
        return self.kind(layer) == "full_attention" and self.text.get("attention_k_eq_v", False)

    def heads(self, layer):
        """(KV heads G, head dim D)."""
        kv_heads, head_dim = self.num_key_value_heads, self.head_dim
        if "per_layer_config" in self.text:
            own = (self.per_layer_config or {}).get(str(layer), {})
            return own.get("num_key_value_heads", kv_heads), own.get("head_dim", head_dim)
        if self.kind(layer) == "full_attention":
            head_dim = self.global_head_dim
        if self.key_is_value(layer):
            kv_heads = self.text.get("num_global_key_value_heads") or kv_heads
        return kv_heads, head_dim

    def rope(self, layer):
        """(theta, the share of pairs that rotate)."""
        absent = {"sliding_attention": {"rope_theta": 10000}, "full_attention": {"rope_theta": 1000000, "partial_rotary_factor": 0.25}}
        values = (self.text.get("rope_parameters") or absent)[self.kind(layer)]
        return values["rope_theta"], values.get("partial_rotary_factor", 1)


# --- 3 operators ---


def rms_norm(x, eps, weight=1.0):
    """3.2, over the last axis; without a weight, the unit RMSNorm."""
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def gelu_tanh(x):
    """3.3"""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    """3.4, over the last axis."""
    e = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return e / np.sum(e, axis=-1, keepdims=True)


def rope(x, positions, theta, share):
    """3.5: x is [T, heads, D], positions is [T]."""
    half = x.shape[-1] // 2
    pairs = int(share * half)
    exponent = 2 * np.arange(pairs, dtype=np.float32) / np.float32(x.shape[-1])
    frequency = np.float32(1) / np.power(np.float64(theta), exponent.astype(np.float64)).astype(np.float32)
    angle = positions.astype(np.float32)[:, None, None] * frequency  # float32
    cos, sin = np.cos(angle.astype(np.float64)), np.sin(angle.astype(np.float64))
    first, second, y = x[..., :pairs], x[..., half:half + pairs], x.copy()
    y[..., :pairs] = first * cos - second * sin
    y[..., half:half + pairs] = second * cos + first * sin
    return y


# --- 4 the forward pass: tap(name, value) keeps a value under its name and returns it; w(name) is a tensor of the layer ---


def attention(config, layer, w, h, positions, tap):
    """4.2: h is [T, d]; returns attn.residual."""
    T, H, (G, D), eps = len(h), config.num_attention_heads, config.heads(layer), config.rms_norm_eps
    x = tap("attn.norm", rms_norm(h, eps, w("input_layernorm.weight")))
    q = tap("attn.q", (x @ w("self_attn.q_proj.weight").T).reshape(T, H, D))  # (3.1)
    k = tap("attn.k", (x @ w("self_attn.k_proj.weight").T).reshape(T, G, D))
    v = tap("attn.v", k if config.key_is_value(layer) else (x @ w("self_attn.v_proj.weight").T).reshape(T, G, D))
    q = tap("attn.q_norm", rms_norm(q, eps, w("self_attn.q_norm.weight")))
    k = tap("attn.k_norm", rms_norm(k, eps, w("self_attn.k_norm.weight")))
    v = tap("attn.v_norm", rms_norm(v, eps))
    q = tap("attn.q_rope", rope(q, positions, *config.rope(layer)))
    k = tap("attn.k_rope", rope(k, positions, *config.rope(layer)))

    back = positions[:, None] - positions[None, :]  # how far the key of each column lies behind the query of each row
    visible = (back >= 0) & ((back < config.sliding_window) | (config.kind(layer) == "full_attention"))
    kv_head = np.arange(H) // (H // G)  # of each query head
    scores = tap("attn.scores", np.einsum("ihd,jhd->ihj", q, k[:, kv_head]))
    probs = tap("attn.probs", softmax(np.where(visible[:, None, :], scores, -np.inf)))
    context = tap("attn.context", np.einsum("ihj,jhd->ihd", probs, v[:, kv_head]))
    a = tap("attn.out", context.reshape(T, H * D) @ w("self_attn.o_proj.weight").T)
    a = tap("attn.post_norm", rms_norm(a, eps, w("post_attention_layernorm.weight")))
    return tap("attn.residual", h + a)


def dense_mlp(w, r, eps, tap):
    """4.3"""
    m = tap("mlp.norm", rms_norm(r, eps, w("pre_feedforward_layernorm.weight")))
    gate, up = tap("mlp.gate", m @ w("mlp.gate_proj.weight").T), tap("mlp.up", m @ w("mlp.up_proj.weight").T)
    m = tap("mlp.out", tap("mlp.act", gelu_tanh(gate) * up) @ w("mlp.down_proj.weight").T)
    return tap("mlp.post_norm", rms_norm(m, eps, w("post_feedforward_layernorm_1.weight")))


def router(w, r, K, eps, tap):
    """4.4: (ids, weights), [T, K] both, in the order of the logits."""
    z = tap("router.norm", rms_norm(r, eps) * w("router.scale") * r.shape[-1] ** -0.5)
    logits = tap("router.logits", z @ w("router.proj.weight").T)
    probs = tap("router.probs", softmax(logits))
    ids = tap("router.topk_ids", np.argsort(-logits, axis=-1, kind="stable")[:, :K])
    chosen = np.take_along_axis(probs, ids, axis=-1)
    norm = tap("router.topk_norm", chosen / np.sum(chosen, axis=-1, keepdims=True))
    return ids, tap("router.topk_weights", norm * w("router.per_expert_scale")[ids])


def experts(w, r, ids, weights, M, eps, tap):
    """4.5: each position's K experts, one after the other."""
    x = tap("moe.norm", rms_norm(r, eps, w("pre_feedforward_layernorm_2.weight")))
    gate_up, down = w("experts.gate_up_proj"), w("experts.down_proj")
    act, out = np.empty((*ids.shape, M)), np.zeros_like(x)
    for t, i in np.ndindex(ids.shape):
        both = gate_up[ids[t, i]] @ x[t]
        act[t, i] = gelu_tanh(both[:M]) * both[M:]
        out[t] += weights[t, i] * (down[ids[t, i]] @ act[t, i])
    tap("moe.act", act)
    return tap("moe.post_norm", rms_norm(tap("moe.out", out), eps, w("post_feedforward_layernorm_2.weight")))


def forward(config, weight, tokens, first_position):
    """{tap: value}: weight(name) is a tensor of the checkpoint (7), tokens is [T]."""
    taps, eps = {}, config.rms_norm_eps

    def tap(name, value):
        taps[name] = value
        return value

    positions = tap("positions", first_position + np.arange(len(tap("tokens", tokens))))
    table = weight("embed_tokens.weight")
    h = tap("embed", table[tokens] * np.sqrt(config.hidden_size))  # (4.1)
    for layer in range(config.num_hidden_layers):
        here = lambda name, value, n=layer: tap(f"layers.{n}.{name}", value)
        w = lambda name, n=layer: weight(f"layers.{n}.{name}")
        r = attention(config, layer, w, here("input", h), positions, here)
        m = dense_mlp(w, r, eps, here)
        ids, weights = router(w, r, config.top_k_experts, eps, here)
        o = experts(w, r, ids, weights, config.moe_intermediate_size, eps, here)
        y = here("ffn.post_norm", rms_norm(here("ffn.sum", m + o), eps, w("post_feedforward_layernorm.weight")))  # (4.6)
        h = here("output", here("ffn.residual", r + y) * w("layer_scalar"))
    logits = tap("logits_raw", tap("final_norm", rms_norm(h, eps, weight("norm.weight"))) @ table.T)  # (4.7)
    cap = config.text.get("final_logit_softcapping")
    tap("logits", cap * np.tanh(logits / cap) if cap else logits)
    return taps


# --- 7 a checkpoint, and the golden that its taps are compared with ---


def open_checkpoint(folder):
    """(config, function from a tensor's name without its prefix to its values)."""
    config = Config(json.loads((folder / "config.json").read_text()))
    data = np.memmap(folder / "model.safetensors", np.uint8, "r")
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8:start]))

    def weight(name):
        entry = header[config.prefix + name]
        begin, end = entry["data_offsets"]
        raw = data[start + begin:start + end]
        values = raw.view({"BF16": "<u2", "F16": "<f2", "F32": "<f4"}[entry["dtype"]])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        return values.astype(np.float64).reshape(entry["shape"])

    return config, weight


def error_of(name, dataset, taps):
    """The relative RMS between a dataset of the golden and the tap; infinite where a shape or an id differs, or a value is NaN."""
    rows = dataset.attrs.get("rows", slice(None))
    expected, mine = dataset[()], taps[name][rows]
    if name.endswith("attn.scores"):  # masked entries may hold anything
        masked = taps[name.replace("scores", "probs")][rows] == 0
        expected, mine = np.where(masked, 0, expected), np.where(masked, 0, mine)
    if mine.shape != expected.shape or expected.dtype.kind in "iu":
        return 0.0 if np.array_equal(mine, expected) else np.inf
    error = np.linalg.norm(mine - expected.astype(np.float64)) / np.linalg.norm(expected.astype(np.float64))
    return error if np.isfinite(error) else np.inf


def compare(case):
    """{tap: error} over the golden's datasets."""
    folders = [ROOT / place / "checkpoints" / case["checkpoint"]["name"] for place in ("golden", "build")]
    config, weight = open_checkpoint(next((x for x in folders if (x / "model.safetensors").exists()), folders[-1]))
    taps, errors = forward(config, weight, np.array(case["tokens"]), case["first_position"]), {}

    def visit(path, item):
        name = path.replace("/", ".")
        if isinstance(item, h5py.Dataset):
            errors[name] = error_of(name, item, taps)

    with h5py.File(ROOT / "golden/cases" / case["golden"]["file"]) as golden:
        golden.visititems(visit)
    return errors


def main():
    """Compares every case, or those that are named."""
    failed, ids = 0, sys.argv[1:] or sorted(path.stem for path in (ROOT / "golden/cases").glob("*.yaml"))
    for name in ids:
        try:
            errors = compare(yaml.safe_load((ROOT / f"golden/cases/{name}.yaml").read_text()))
            worst = max(errors, key=errors.get)
            failed += errors[worst] > LIMIT
            status = "FAIL" if errors[worst] > LIMIT else "ok  "
            print(f"{status}  {name}: {len(errors)} taps, worst relative RMS {errors[worst]:.1e} at {worst}", flush=True)
        except (OSError, KeyError, ValueError) as error:
            failed += 1
            print(f"FAIL  {name}: {type(error).__name__}: {error}", flush=True)
    print(f"spec/forward.py: {len(ids) - failed} of {len(ids)} cases agree with their goldens within {LIMIT:g}")
    sys.exit(0 if ids and not failed else 1)


if __name__ == "__main__":
    main()
