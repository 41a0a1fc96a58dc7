"""ONNX Runtime: transformers' own model by torch.onnx.export. Two sessions: one shows every module's output; the logits are another's, of which
nothing else is asked, so that it fuses what it fuses for its users."""

import os
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import exported
import onnx
import onnxruntime
import torch
import transformers


def version():
    return f"{onnxruntime.__version__}, torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"


def load(checkpoint, dtype):
    graph, path = exported.Graph(checkpoint), os.path.join(tempfile.mkdtemp(), "model.onnx")
    example = graph.example()
    graph(*example)
    past = [f"past.{i}" for i in range(len(example[3]))]
    present = [f"present.{i}" for i in range(len(past))]
    lengths = {"ids": {1: "T"}, "positions": {1: "T"}, "mask": {1: "P+T"}, **{name: {2: "P"} for name in past}}
    torch.onnx.export(graph, example, path, dynamo=False, opset_version=18, input_names=["ids", "positions", "mask", *past],
                      output_names=["logits", *graph.names, *present], dynamic_axes=lengths)
    whole = onnx.load(path)
    plain = onnx.ModelProto()
    plain.CopyFrom(whole)
    del plain.graph.output[1:1 + len(graph.names)]
    return graph, *(onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]) for m in (whole, plain))


def run(loaded, tokens, first_position, schedule):
    graph, whole, plain = loaded
    names = [i.name for i in whole.get_inputs()]

    def call(inputs):
        feed = dict(zip(names, inputs))
        return plain.run(["logits"], feed) + whole.run(None, feed)[1:]

    return exported.run(graph, call, tokens, first_position, schedule)
