"""ONNX Runtime: the graph that onnxruntime-genai's builder makes, its inner values made outputs of it, under their names."""

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


def version():
    return f"{onnxruntime.__version__}, onnxruntime-genai {onnxruntime_genai.__version__}"


def load(checkpoint, dtype):
    folder = tempfile.mkdtemp()
    sys.argv = ["builder", "-i", checkpoint, "-o", folder, "-p", "fp32", "-e", "cpu", "-c", folder]
    runpy.run_module("onnxruntime_genai.models.builder", run_name="__main__")
    path = os.path.join(folder, "model.onnx")
    model = onnx.load(path, load_external_data=False)
    made = [name for node in model.graph.node for name in node.output if SHOWN.fullmatch(name)]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
    onnx.save(model, path)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def run(session, tokens, first_position, schedule):
    found, at = {}, 0
    names = [output.name for output in session.get_outputs()]
    past = {i.name: np.zeros([1, i.shape[1], 0, i.shape[3]], np.float32) for i in session.get_inputs() if i.name.startswith("past")}
    for length in schedule:
        inputs = {"input_ids": np.array([tokens[at:at + length]], np.int64), "attention_mask": np.ones((1, at + length), np.int64),
                  "position_ids": np.arange(first_position + at, first_position + at + length, dtype=np.int64)[None]}
        values = dict(zip(names, session.run(names, {**inputs, **past})))
        past = {name: values[name.replace("past_key_values", "present")] for name in past}
        for name, value in values.items():
            if not name.startswith("present"):
                found.setdefault(name, []).append(value.reshape(length, -1))
        at += length
    return {name.strip("/"): np.concatenate(chunks) for name, chunks in found.items()}
