"""The forward pass of spec/model.md in NumPy, written from that page alone and compared with every golden.

    python spec/forward.py            every golden/cases/*.yaml: each tap within 1e-5 relative RMS, the same experts
    python spec/forward.py CASE       one of them

It proves that the page suffices: it shares no code with the reference, nor with the oracle, and cites the page's sections as the reference does.
Everything is float64 but the angles of RoPE, which the page defines in float32. It needs NumPy, h5py and PyYAML (those of
golden/oracle/requirements.txt), and the checkpoints that `gemma4-check agreement` leaves in build/checkpoints.
"""

import fnmatch
import glob
import json
import os
import sys

import h5py
import numpy as np
import yaml

LIMIT = 1e-5  # relative RMS of any tap


# --- 3 operators ---


def rmsnorm(x, w, eps):
    """3.2, over the last axis; w is None for the unit norm."""
    y = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return y if w is None else y * w


def gelu_tanh(x):
    """3.3"""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    """3.4, over the last axis."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def rope(x, positions, theta, factor):
    """3.5: x is [T, heads, D]."""
    D = x.shape[-1]
    pairs = int(factor * D / 2)
    j = np.arange(pairs)
    exponent = (2 * j).astype(np.float32) / np.float32(D)
    frequency = np.float32(1) / (theta ** exponent.astype(np.float64)).astype(np.float32)
    angle = positions.astype(np.float32)[:, None] * frequency  # float32
    cos, sin = np.cos(angle.astype(np.float64))[:, None, :], np.sin(angle.astype(np.float64))[:, None, :]
    a, b = x[..., j], x[..., j + D // 2]
    y = x.copy()
    y[..., j] = a * cos - b * sin
    y[..., j + D // 2] = b * cos + a * sin
    return y


# --- 2 dimensions ---


def layer_geometry(c, n):
    """(is it a full layer, G, D) of layer n."""
    last = c["num_hidden_layers"] - 1
    default = "full_attention" if n % 6 == 5 or n == last else "sliding_attention"
    full = c.get("layer_types", {n: default})[n] == "full_attention"
    G, D = c["num_key_value_heads"], c["head_dim"]
    if "per_layer_config" in c:
        own = (c["per_layer_config"] or {}).get(str(n), {})
        return full, own.get("num_key_value_heads", G), own.get("head_dim", D)
    if full:
        G, D = c["num_global_key_value_heads"] if c["attention_k_eq_v"] else G, c["global_head_dim"]
    return full, G, D


def rope_parameters(c, full):
    """(theta, partial_rotary_factor) of one kind of layer."""
    default = {"sliding_attention": {"rope_theta": 10000}, "full_attention": {"rope_theta": 1000000, "partial_rotary_factor": 0.25}}
    kind = c.get("rope_parameters", default)["full_attention" if full else "sliding_attention"]
    return kind["rope_theta"], kind.get("partial_rotary_factor", 1)


# --- 4 the forward pass ---


def attention(c, n, w, h, positions, tap):
    """4.2: h is [T, d]; returns attn.residual."""
    full, G, D = layer_geometry(c, n)
    T, H, eps = len(h), c["num_attention_heads"], c["rms_norm_eps"]
    x = tap("attn.norm", rmsnorm(h, w("input_layernorm.weight"), eps))
    q = tap("attn.q", (x @ w("self_attn.q_proj.weight").T).reshape(T, H, D))
    k = tap("attn.k", (x @ w("self_attn.k_proj.weight").T).reshape(T, G, D))
    shared = full and c["attention_k_eq_v"]
    v = tap("attn.v", k if shared else (x @ w("self_attn.v_proj.weight").T).reshape(T, G, D))
    q = tap("attn.q_norm", rmsnorm(q, w("self_attn.q_norm.weight"), eps))
    k = tap("attn.k_norm", rmsnorm(k, w("self_attn.k_norm.weight"), eps))
    v = tap("attn.v_norm", rmsnorm(v, None, eps))
    theta, factor = rope_parameters(c, full)
    q = tap("attn.q_rope", rope(q, positions, theta, factor))
    k = tap("attn.k_rope", rope(k, positions, theta, factor))

    i, j = np.arange(T)[:, None], np.arange(T)[None, :]
    visible = j <= i if full else (j <= i) & (j > i - c["sliding_window"])
    head = np.arange(H) // (H // G)  # the KV head of each query head
    scores = tap("attn.scores", np.einsum("ihd,jhd->ihj", q, k[:, head]))
    probs = tap("attn.probs", softmax(np.where(visible[:, None, :], scores, -np.inf)))
    context = tap("attn.context", np.einsum("ihj,jhd->ihd", probs, v[:, head]))
    a = tap("attn.out", context.reshape(T, H * D) @ w("self_attn.o_proj.weight").T)
    a = tap("attn.post_norm", rmsnorm(a, w("post_attention_layernorm.weight"), eps))
    return tap("attn.residual", h + a)


def dense_mlp(w, r, eps, tap):
    """4.3"""
    m = tap("mlp.norm", rmsnorm(r, w("pre_feedforward_layernorm.weight"), eps))
    g = tap("mlp.gate", m @ w("mlp.gate_proj.weight").T)
    u = tap("mlp.up", m @ w("mlp.up_proj.weight").T)
    m = tap("mlp.out", tap("mlp.act", gelu_tanh(g) * u) @ w("mlp.down_proj.weight").T)
    return tap("mlp.post_norm", rmsnorm(m, w("post_feedforward_layernorm_1.weight"), eps))


def router(w, r, K, eps, tap):
    """4.4: (ids, weights), [T, K] both."""
    z = tap("router.norm", rmsnorm(r, None, eps) * w("router.scale") * r.shape[-1] ** -0.5)
    logits = tap("router.logits", z @ w("router.proj.weight").T)
    P = tap("router.probs", softmax(logits))
    ids = tap("router.topk_ids", np.argsort(-logits, axis=-1, kind="stable")[:, :K])
    chosen = np.take_along_axis(P, ids, axis=-1)
    norm = tap("router.topk_norm", chosen / chosen.sum(axis=-1, keepdims=True))
    return ids, tap("router.topk_weights", norm * w("router.per_expert_scale")[ids])


def experts(w, r, ids, weights, M, eps, tap):
    """4.5"""
    x = tap("moe.norm", rmsnorm(r, w("pre_feedforward_layernorm_2.weight"), eps))
    gate_up, down = w("experts.gate_up_proj"), w("experts.down_proj")
    act = np.empty((*ids.shape, M))
    for t, k in np.ndindex(ids.shape):
        gu = gate_up[ids[t, k]] @ x[t]
        act[t, k] = gelu_tanh(gu[:M]) * gu[M:]
    tap("moe.act", act)
    out = [sum(weights[t, k] * (down[ids[t, k]] @ act[t, k]) for k in range(ids.shape[1])) for t in range(len(x))]
    return tap("moe.post_norm", rmsnorm(tap("moe.out", np.array(out)), w("post_feedforward_layernorm_2.weight"), eps))


def forward(c, weight, tokens, first_position):
    """{tap: array}: c is the text config, weight(name) a tensor of the checkpoint (7)."""
    taps = {}
    eps = c["rms_norm_eps"]

    def keep(name, value):
        taps[name] = value
        return value

    positions = first_position + np.arange(len(tokens))
    E = weight("embed_tokens.weight")
    h = keep("embed", E[tokens] * np.sqrt(E.shape[1]))  # 4.1
    for n in range(c["num_hidden_layers"]):
        tap = lambda name, value, n=n: keep(f"layers.{n}.{name}", value)
        w = lambda name, n=n: weight(f"layers.{n}.{name}")
        r = attention(c, n, w, tap("input", h), positions, tap)
        m = dense_mlp(w, r, eps, tap)
        ids, weights = router(w, r, c["top_k_experts"], eps, tap)
        o = experts(w, r, ids, weights, c["moe_intermediate_size"], eps, tap)
        y = tap("ffn.post_norm", rmsnorm(tap("ffn.sum", m + o), w("post_feedforward_layernorm.weight"), eps))  # 4.6
        h = tap("output", tap("ffn.residual", r + y) * w("layer_scalar"))
    x = keep("final_norm", rmsnorm(h, weight("norm.weight"), eps))  # 4.7
    L = keep("logits_raw", x @ E.T)
    cap = c.get("final_logit_softcapping")
    keep("logits", cap * np.tanh(L / cap) if cap else L)
    return taps


# --- a checkpoint, and what it is compared with ---


def open_checkpoint(directory):
    """(text config, function from a tensor's name without its prefix to its values)."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as f:
        config = json.load(f)
    data = np.memmap(os.path.join(directory, "model.safetensors"), dtype=np.uint8, mode="r")
    start = 8 + int(data[:8].view("<u8")[0])
    header = json.loads(bytes(data[8:start]))
    prefix = "model.language_model." if "text_config" in config else "model."

    def weight(name):
        entry = header[prefix + name]
        begin, end = entry["data_offsets"]
        raw = data[start + begin:start + end]
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view({"F16": "<f2", "F32": "<f4"}[entry["dtype"]])
        return values.astype(np.float64).reshape(entry["shape"])

    return config.get("text_config", config), weight


def compare(taps, golden):
    """(worst relative RMS, its tap, number of taps) over a golden's datasets; ValueError where one differs."""
    found = {}
    golden.visititems(lambda path, item: found.update({path.replace("/", "."): item}) if isinstance(item, h5py.Dataset) else None)
    worst, where = 0.0, ""
    for name in sorted(set(found) - {"tokens", "positions"}):
        dataset = found[name]
        expected, mine = dataset[()], taps[name][dataset.attrs.get("rows", slice(None))]
        if fnmatch.fnmatch(name, "*.attn.scores"):  # masked entries may hold anything
            masked = taps[name.replace("scores", "probs")][dataset.attrs.get("rows", slice(None))] == 0
            expected, mine = np.where(masked, 0, expected), np.where(masked, 0, mine)
        if mine.shape != expected.shape:
            raise ValueError(f"{name}: {mine.shape}, the golden holds {expected.shape}")
        if expected.dtype.kind in "iu":  # in the order of their logits, as the golden's are: what follows is in that order
            if not np.array_equal(mine, expected):
                raise ValueError(f"{name}: other experts than the golden's")
            continue
        error = np.linalg.norm(mine - expected.astype(np.float64)) / np.linalg.norm(expected.astype(np.float64))
        if not error <= LIMIT:  # NaN fails
            raise ValueError(f"{name}: relative RMS {error:.2e}, beyond {LIMIT:g}")
        worst, where = max((worst, where), (float(error), name))
    return worst, where, len(found) - 2


def main():
    """Compares every case, or one."""
    failed, cases = 0, sorted(glob.glob(f"golden/cases/{sys.argv[1] if len(sys.argv) > 1 else '*'}.yaml"))
    for path in cases:
        with open(path, encoding="utf-8") as f:
            case = yaml.safe_load(f)
        folders = [f"{root}/checkpoints/{case['checkpoint']['name']}" for root in ("golden", "build")]
        folder = next((x for x in folders if os.path.exists(f"{x}/model.safetensors")), folders[-1])
        try:
            config, weight = open_checkpoint(folder)
            taps = forward(config, weight, np.array(case["tokens"]), case["first_position"])
            with h5py.File(os.path.join(os.path.dirname(path), case["golden"]["file"])) as golden:
                worst, where, count = compare(taps, golden)
            print(f"ok    {case['id']}: {count} taps, worst relative RMS {worst:.1e} at {where}", flush=True)
        except (OSError, KeyError, ValueError) as error:
            failed += 1
            print(f"FAIL  {case['id']}: {type(error).__name__}: {error}", flush=True)
    print(f"spec/forward.py: {len(cases) - failed} of {len(cases)} cases agree with their goldens within {LIMIT:g}")
    sys.exit(0 if cases and not failed else 1)


if __name__ == "__main__":
    main()
