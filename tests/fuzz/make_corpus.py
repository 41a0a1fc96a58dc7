"""Writes the seeds of tests/fuzz/corpus: one small valid input or a few of each kind. Run once; the files are committed. Needs no packages."""
import io
import os
import struct
import zipfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def write(target, name, content):
    os.makedirs(os.path.join(HERE, target), exist_ok=True)
    with open(os.path.join(HERE, target, name), "wb") as f:
        f.write(content if isinstance(content, bytes) else content.encode())


def safetensors(tensors, metadata):
    """tensors: name, dtype, shape, bytes."""
    entries, offset, data = [], 0, b""
    if metadata:
        entries.append('"__metadata__":{%s}' % ",".join(f'"{k}":"{v}"' for k, v in metadata.items()))
    for name, dtype, shape, content in tensors:
        entries.append('"%s":{"dtype":"%s","shape":%s,"data_offsets":[%d,%d]}' % (name, dtype, str(shape).replace(" ", ""), offset, offset + len(content)))
        offset += len(content)
        data += content
    header = ("{" + ",".join(entries) + "}").encode()
    header += b" " * (-(len(header) + 8) % 8)
    return struct.pack("<Q", len(header)) + header + data


def npy(descr, shape, content, version=1):
    header = ("{'descr': '%s', 'fortran_order': False, 'shape': %s, }" % (descr, shape)).encode()
    size = "<H" if version == 1 else "<I"
    header += b" " * (-(len(header) + 7 + struct.calcsize(size)) % 64) + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack(size, len(header)) + header + content


def floats(count):
    return struct.pack(f"<{count}f", *[i / 4 for i in range(count)])


def ints(*values):
    return struct.pack(f"<{len(values)}i", *values)


def gguf(values, tensors, version=3):
    """values: key, type, packed; tensors: name, type's number, shape (outermost first), bytes."""
    def text(t):
        return struct.pack("<Q", len(t)) + t.encode()

    def pad(b):
        return b + bytes(-len(b) % 32)
    head, data = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)), b""
    for key, kind, packed in values:
        head += text(key) + struct.pack("<I", kind) + packed
    for name, kind, shape, content in tensors:
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape)) + struct.pack("<IQ", kind, len(data))
        data = pad(data + content)
    return pad(head) + data


# ggml's types: number, values and bytes of a block.
F32, F16, BF16 = (0, 1, 4), (1, 1, 2), (30, 1, 2)
BLOCKS_32 = [(2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (8, 32, 34), (20, 32, 18), (39, 32, 17)]
BLOCKS_256 = [(10, 256, 84), (11, 256, 110), (12, 256, 144), (13, 256, 176), (14, 256, 210), (23, 256, 136), (40, 64, 36)]


def gguf_model(d, heads, dims, kv, layers, experts, moe, mlp, vocab, blocks, vector, split=False):
    """A whole model: a matrix takes the next of `blocks` that its columns are a multiple of, else F16."""
    turn = [0]

    def tensor(name, *shape):
        rows, cols, fitting = 1, shape[-1], [b for b in blocks if shape[-1] % b[1] == 0]
        for length in shape[:-1]:
            rows *= length
        kind = vector if len(shape) == 1 else fitting[turn[0] % len(fitting)] if fitting else F16
        turn[0] += 1
        size = rows * cols // kind[1] * kind[2]
        return name, kind[0], shape, bytes((i * 37 + turn[0]) % 64 for i in range(size))
    tensors = [tensor("token_embd.weight", vocab, d)]
    for n, sliding in enumerate(layers):
        q, g, b = heads * dims[not sliding], kv[not sliding] * dims[not sliding], f"blk.{n}."
        tensors += [tensor(b + name + ".weight", d) for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm_1", "pre_ffw_norm_2",
                                                                 "post_ffw_norm_2", "post_ffw_norm")]
        tensors += [tensor(b + "attn_q.weight", q, d), tensor(b + "attn_k.weight", g, d), tensor(b + "attn_output.weight", d, q),
                    tensor(b + "attn_q_norm.weight", dims[not sliding]), tensor(b + "attn_k_norm.weight", dims[not sliding]),
                    tensor(b + "ffn_gate.weight", mlp, d), tensor(b + "ffn_up.weight", mlp, d), tensor(b + "ffn_down.weight", d, mlp),
                    tensor(b + "ffn_gate_inp.weight", experts, d), tensor(b + "ffn_gate_inp.scale", d), tensor(b + "ffn_down_exps.scale", experts),
                    tensor(b + "ffn_down_exps.weight", experts, d, moe), tensor(b + "layer_output_scale.weight", 1)]
        tensors += [tensor(b + f"ffn_{part}_exps.weight", experts, moe, d) for part in ("gate", "up")] if split else \
            [tensor(b + "ffn_gate_up_exps.weight", experts, 2 * moe, d)]
        if split:
            tensors.append((b + "ffn_up_exps.scale", 0, (experts,), floats(experts)))
        if sliding:
            tensors.append(tensor(b + "attn_v.weight", g, d))
    tensors.append(tensor("output_norm.weight", d))
    tensors.append(("rope_freqs.weight", 0, (dims[1] // 2,), struct.pack(f"<{dims[1] // 2}f", 1, *[1e30] * (dims[1] // 2 - 1))))

    def number(key, value):
        return "gemma4." + key, 4, struct.pack("<I", value)

    def real(key, value):
        return "gemma4." + key, 6, struct.pack("<f", value)
    values = [("general.architecture", 8, struct.pack("<Q", 6) + b"gemma4"), number("block_count", len(layers)), number("embedding_length", d),
              number("feed_forward_length", mlp), number("context_length", 64), number("attention.head_count", heads),
              ("gemma4.attention.head_count_kv", 9, struct.pack("<IQ", 5, len(layers)) + ints(*[kv[not s] for s in layers])),
              number("attention.key_length", dims[1]), number("attention.key_length_swa", dims[0]), real("attention.layer_norm_rms_epsilon", 1e-6),
              number("attention.sliding_window", 4),
              ("gemma4.attention.sliding_window_pattern", 9, struct.pack("<IQ", 7, len(layers)) + bytes(int(s) for s in layers)),
              real("rope.freq_base", 1e6), real("rope.freq_base_swa", 1e4), number("expert_count", experts), number("expert_used_count", 2),
              number("expert_feed_forward_length", moe), real("final_logit_softcapping", 30)]
    return gguf(values, tensors)


def npz(members, method):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, content in members:
            z.writestr(zipfile.ZipInfo(name + ".npy"), content, method)
    return out.getvalue()


MAP = "format: gemma4-map\nversion: 1\nengine: x\ntaps:\n"
META = {"format": "gemma4-activations", "format_version": "1", "dtype": "float32"}
TAPS = [("tokens", "I32", [3], ints(2, 3, 5)), ("embed", "F32", [3, 4], floats(12)), ("layers.0.attn.q", "BF16", [3, 2, 4], bytes(48)),
        ("layers.1.router.topk_ids", "I32", [3, 2], ints(0, 1, 1, 2, 3, 0)), ("logits", "F16", [3, 8], bytes(48))]

write("document", "yaml", "a: 1\nb: [1, 2.5e-3, 'x', \"y\", ~, true]\nc:\n  d: |\n    text\n  e: >-\n    folded\n")
write("document", "json", '{"a": {"b": [1, -2, 1e-6, null, true, "\\u00e9"]}, "c": ""}')
write("document", "flow", "{a: [b, {c: d}], ? e : f}\n")
write("document", "refused", "a: &x 1\nb: *x\nc: !t 2\n")
write("config", "text-only", '{"model_type":"gemma4_text","hidden_size":16,"num_hidden_layers":6,"num_attention_heads":4,"num_key_value_heads":2,'
      '"head_dim":8,"num_global_key_value_heads":1,"global_head_dim":16,"attention_k_eq_v":true,"sliding_window":4,"intermediate_size":24,'
      '"enable_moe_block":true,"num_experts":4,"top_k_experts":2,"moe_intermediate_size":8,"vocab_size":32,"max_position_embeddings":64,'
      '"rms_norm_eps":1e-06,"final_logit_softcapping":30.0,"hidden_size_per_layer_input":0}')
write("manifest", "empty", "id: x\n")
write("map", "small", MAP + "  tokens: {from: 'ids'}\n  layers.{N}.attn.q: {from: 'Qcur-{N+1}', axes: 'd h t', slice: {h: [0, -1]}, layers: [0, 1], scale: 1.0}\n"
      "  logits: {from: '*lm_head', axes: '1 t d', rows: [-1]}\nignore: ['*_cache']\n")
write("map", "split", MAP + "  layers.{N}.mlp.gate: {from: 'gate_up-{N}', split: [mlp.gate, mlp.up]}\n")
write("dump-list", "list", "format: gemma4-dumps\nversion: 1\ndumps:\n  - {file: a.h5, case: tiny-prompt, dtype: float32, require: layers}\n  - {file: b.h5, model: x}\n")
write("tokens", "tokens", "2,197,214,34")
write("tokens", "schedule", "10,1,1")
write("options", "words", "--model\nx\n--out=y\nz")
write("safetensors", "taps", safetensors(TAPS, META))
write("safetensors", "none", safetensors([], {}))
write("activations", "taps", safetensors(TAPS, META))
write("activations", "positions", safetensors(TAPS[:2] + [("positions", "I32", [3], ints(4, 5, 6))], {**META, "rows.embed": "0,1,2"}))
for kind in ("npy", "foreign"):
    write(kind, "floats", npy("<f4", "(3, 4)", floats(12)))
    write(kind, "version2", npy("<i8", "(2,)", bytes(16), 2))
    write(kind, "scalar", npy("<f2", "()", bytes(2)))
for kind in ("npz", "foreign"):
    members = [("tokens", npy("<i4", "(3,)", ints(2, 3, 5))), ("embed", npy("<f4", "(3, 4)", floats(12)))]
    write(kind, "stored", npz(members, zipfile.ZIP_STORED))
    write(kind, "deflated", npz(members, zipfile.ZIP_DEFLATED))
write("foreign", "safetensors", safetensors(TAPS, {}))
CUT = b"---- 8< ----\n"
write("import", "safetensors", (MAP + "  embed: {from: 'embed'}\n  logits: {from: 'logits'}\n  tokens: {from: 'tokens'}\n").encode() + CUT + safetensors(TAPS, {}))
write("import", "axes", (MAP + "  layers.{N}.attn.q: {from: 'q-{N}', axes: 'd h t', layers: [0]}\n").encode() + CUT +
      safetensors([("q-0", "F32", [4, 2, 3], floats(24))], {}))
write("import", "stacked", (MAP + "  layers.{N}.output: {from: 'h', axes: 'n+1 t d'}\n").encode() + CUT + safetensors([("h", "F32", [3, 3, 4], floats(36))], {}))
write("import", "npz", (MAP + "  embed: {from: 'embed', slice: {d: [0, 4]}, rows: last}\n").encode() + CUT + npz(members, zipfile.ZIP_DEFLATED))
# Each byte is a choice of targets_hdf5.c: version; how many datasets; then name, kind, rank, lengths, type, layout ...
write("hdf5", "none", bytes(3))
write("hdf5", "embed", bytes([0, 1, 0, 3, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0]))
write("hdf5", "chunked", bytes([1, 2, 3, 3, 3, 0, 1, 2, 0, 0, 7, 1, 1, 1, 5, 0, 0, 6, 3, 2, 0, 1, 0, 0, 2, 2, 1, 1, 3, 0]))
write("hdf5", "damaged", bytes([0, 1, 0, 3, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]))
write("gguf", "none", gguf([], []))
write("gguf", "kinds", gguf([("a.bool", 7, b"\1"), ("a.double", 12, struct.pack("<d", 0.5)), ("a.long", 11, struct.pack("<q", -1)),
                            ("a.strings", 9, struct.pack("<IQ", 8, 2) + struct.pack("<Q", 1) + b"x" + struct.pack("<Q", 0)),
                            ("general.alignment", 4, struct.pack("<I", 32))], [("x.weight", 0, (2, 3), floats(6))], 2))
write("gguf", "plain", gguf_model(4, 2, (4, 8), (2, 1), (True, False), 4, 3, 3, 8, [F16, BF16, F32], F32))
write("gguf", "blocks-of-32", gguf_model(32, 2, (16, 32), (2, 1), (True, False), 2, 2, 2, 4, BLOCKS_32, BF16, split=True))
write("gguf", "blocks-of-256", gguf_model(256, 2, (2, 4), (1, 1), (False,), 2, 1, 2, 4, BLOCKS_256, F16))
INDEX = '{"metadata":{},"weight_map":{"embed":"a.safetensors","logits":"b.safetensors"}}'
write("index", "two", INDEX.encode() + CUT + safetensors(TAPS[1:2], {}) + CUT + safetensors(TAPS[4:], {}))
write("folders", "npy", b"embed.npy\n" + npy("<f4", "(3, 4)", floats(12)) + CUT + b"tokens.npy\n" + npy("<i4", "(3,)", ints(2, 3, 5)))
write("folders", "raw", b"x.bin\n" + floats(8) + CUT + b"x-tokens.bin\n" + ints(2, 3, 5))
write("folders", "data", b"embed.safetensors\n" + safetensors([("data", "F32", [3, 4], floats(12))], {}) + CUT + b"q.safetensors\n" +
      safetensors([("data", "BF16", [3, 2, 4], bytes(48))], {}))
write("folders", "passes", b"Pass2.safetensors\n" + safetensors(TAPS[:2], {}) + CUT + b"Pass10.safetensors\n" + safetensors(TAPS[:2], {}))
write("names", "taps", safetensors(TAPS, {}))
write("names", "hooks", safetensors([("blocks.0.ln1.hook_normalized", "F32", [1, 3, 4], floats(12)), ("blocks.1.hook_resid_pre", "F32", [1, 3, 4], floats(12)),
                                     ("blocks.0.hook_resid_pre", "F32", [1, 3, 4], floats(12))], {}))
write("names", "debugger", safetensors([("model.layers.0.self_attn.q_proj.output", "F32", [1, 3, 8], floats(24)),
                                        ("model.layers.1.self_attn.q_proj.output", "F32", [1, 3, 8], floats(24)), ("lm_head.output", "F32", [1, 3, 8], floats(24))], {}))
write("hdf5-foreign", "embed", bytes([0, 1, 0, 3, 2, 0, 2, 0, 0, 0, 0, 0, 0, 0]))
write("hdf5-foreign", "chunked", bytes([1, 2, 3, 3, 3, 0, 1, 2, 0, 0, 7, 1, 1, 1, 5, 0, 0, 6, 3, 2, 0, 1, 0, 0, 2, 2, 1, 1, 3, 0]))
# The ladder's first rungs, in their own words: 12 tokens each, a vocabulary of 256.
RUNGS = {"linear-head": (2, 150, 104, 177, 100, 53, 110, 117, 51, 44, 96, 237), "head": (2, 44, 8, 124, 59, 190, 241, 242, 244, 208, 149, 181)}
LISTED = [("logprobs.ids", "I32", [12, 2], ints(*range(24))), ("logprobs.values", "F32", [12, 2], floats(24))]


def rung(name, tensors, prefix=""):
    return [(prefix + n, *rest) for n, *rest in [("tokens", "I32", [12], ints(*RUNGS[name])), *tensors]]


write("ladder", "listed", b"linear-head.safetensors\n" + safetensors(rung("linear-head", LISTED), {**META, "case": "linear-head", "engine": "x"}) + CUT +
      b"head.safetensors\n" + safetensors(rung("head", LISTED), META))
write("ladder", "logits", b"linear-head.safetensors\n" + safetensors(rung("linear-head", [("logits", "F16", [12, 256], bytes(6144))]), META) + CUT +
      b"stranger.h5\nx")
write("ladder", "embed", b"linear-head.safetensors\n" + safetensors(rung("linear-head", [("embed", "BF16", [12, 96], bytes(2304)), *LISTED]), META))
write("ladder-groups", "two", safetensors([t for name in RUNGS for t in rung(name, LISTED, name + ".")], {**META, "head.dtype": "bfloat16", "head.case": "head"}))
write("judge", "listed", safetensors(rung("linear-head", LISTED), META))
write("judge", "taps", safetensors(rung("linear-head", [("embed", "BF16", [12, 96], bytes(2304)), ("layers.0.router.topk_ids", "I32", [12, 3], ints(*[0, 1, 2] * 12)),
                                                        ("layers.0.router.logits", "F16", [12, 8], bytes(192)), *LISTED]), {**META, "dtype": "bfloat16"}))
write("hdf5-ladder", "logits", bytes([0, 1, 1, 3, 2, 0, 6, 0, 0, 0, 0, 0, 0, 0]))
write("hdf5-ladder", "listed", bytes([1, 2, 7, 3, 2, 0, 1, 0, 0, 2, 0, 0, 0, 8, 3, 2, 0, 1, 0, 0, 0, 0, 0, 0]))
