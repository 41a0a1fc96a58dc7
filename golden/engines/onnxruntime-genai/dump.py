"""The graph that onnxruntime-genai's builder makes, in ONNX Runtime, its inner values made outputs of it, under their names.

ONNX Runtime has no operator MoE with this graph's activation (geglu) on a CPU. So the experts alone are computed here, in numpy from the
graph's own weights and the operator's definition: what MoE returns is an input of the graph, which is run once more for each layer."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import re
import runpy
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
import onnxruntime_genai

SHOWN = re.compile(r"/model/(layers[./]\d+/.*(MatMul|SimplifiedLayerNormalization|Mul|RotaryEmbedding|GroupQueryAttention|MoE|Add)/output_0"
                   r"|layers\.\d+/\w*norm\w*/output_[03]|embed_tokens/Mul/output_0|layers\.\d+/attn/[qkv]_norm/Reshape_2/output_0)")

SLIDING_LENGTH = 128  # of a cache that never has to forget in the cases


def version():
    return f"{onnxruntime_genai.__version__}, onnxruntime {onnxruntime.__version__}"


class Experts:
    """An operator MoE: its input's, its router logits' and its output's name, and its weights."""

    def __init__(self, node, weights):
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if attributes["activation_type"] != b"geglu" or not attributes["normalize_routing_weights"]:
            raise ValueError(f"{node.name}: expected geglu with normalised weights, found {attributes}")
        self.input, self.logits, self.output = node.input[0], node.input[1], node.output[0]
        self.gate_up, self.down = (onnx.numpy_helper.to_array(weights[node.input[i]]) for i in (2, 4))
        self.k, self.interleaved = attributes["k"], attributes["swiglu_fusion"] == 1

    def __call__(self, x, logits):
        rows, out = x.reshape(-1, x.shape[-1]), np.zeros(x.shape, np.float32).reshape(-1, x.shape[-1])
        logits = logits.reshape(len(rows), -1)
        for t, chosen in enumerate(np.argsort(-logits, 1, kind="stable")[:, :self.k]):
            shares = np.exp(logits[t, chosen] - logits[t].max())
            for share, e in zip(shares / shares.sum(), chosen):
                both = self.gate_up[e] @ rows[t]
                gate, up = (both[0::2], both[1::2]) if self.interleaved else np.split(both, 2)
                act = 0.5 * gate * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3))) * up
                out[t] += share * (self.down[e] @ act)
        return out.reshape(x.shape)


def load(checkpoint, dtype):
    folder = tempfile.mkdtemp()
    sys.argv = ["builder", "-i", checkpoint, "-o", folder, "-p", "fp32", "-e", "cpu", "-c", folder]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    model = onnx.load(os.path.join(folder, "model.onnx"))
    graph, weights = model.graph, {tensor.name: tensor for tensor in model.graph.initializer}
    moe = [node for node in graph.node if node.op_type == "MoE"]
    experts = [Experts(node, weights) for node in moe]
    made = [name for node in graph.node for name in node.output if SHOWN.fullmatch(name)]
    for node in moe:
        graph.node.remove(node)
        made.remove(node.output[0])
    graph.input.extend(onnx.helper.make_tensor_value_info(e.output, onnx.TensorProto.FLOAT, None) for e in experts)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in {*made, *(n for e in experts for n in (e.input, e.logits))})
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]), experts


def run(loaded, tokens, first_position, schedule):
    session, experts = loaded
    found, at = {}, 0
    names = [output.name for output in session.get_outputs()]
    # Sliding layers have a cache of fixed length, the others grow.
    past = {i.name: np.zeros([1, i.shape[1], SLIDING_LENGTH if i.shape[2] == "past_sliding_length" else 0, i.shape[3]], np.float32)
            for i in session.get_inputs() if i.name.startswith("past")}
    hidden = experts[0].down.shape[1]
    for length in schedule:
        inputs = {"input_ids": np.array([tokens[at:at + length]], np.int64), "attention_mask": np.ones((1, at + length), np.int64),
                  "position_ids": np.arange(first_position + at, first_position + at + length, dtype=np.int64)[None]}
        moe = {e.output: np.zeros((1, length, hidden), np.float32) for e in experts}
        for e in experts:
            values = dict(zip(names, session.run(names, {**inputs, **past, **moe})))
            moe[e.output] = e(values[e.input], values[e.logits])
        values = {**dict(zip(names, session.run(names, {**inputs, **past, **moe}))), **moe}
        past = {name: values[name.replace("past_key_values", "present")] for name in past}
        for name, value in values.items():
            if not name.startswith("present"):
                found.setdefault(name, []).append(value.reshape(length, -1))
        at += length
    return {name.strip("/"): np.concatenate(chunks) for name, chunks in found.items()}
