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
