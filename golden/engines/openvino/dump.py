"""OpenVINO: transformers' own model by openvino.convert_model. Two compiled models: one shows every module's output; the logits are another's,
of which nothing else is asked, so that it fuses what it fuses for its users."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import exported
import openvino
import torch
import transformers

PRECISION = {"INFERENCE_PRECISION_HINT": "f32"}


def version():
    return f"{openvino.__version__.split('-')[0]}, torch {torch.__version__.split('+')[0]}, transformers {transformers.__version__}"


def load(checkpoint, dtype):
    graph, core = exported.Graph(checkpoint), openvino.Core()
    example = graph.example()
    graph(*example)
    whole = openvino.convert_model(graph, example_input=example)
    plain = openvino.Model([whole.outputs[0]], whole.get_parameters())
    return graph, core.compile_model(whole, "CPU", PRECISION), core.compile_model(plain, "CPU", PRECISION)


def run(loaded, tokens, first_position, schedule):
    graph, whole, plain = loaded

    def call(inputs):
        return [plain(inputs)[0], *list(whole(inputs).values())[1:]]

    return exported.run(graph, call, tokens, first_position, schedule)
