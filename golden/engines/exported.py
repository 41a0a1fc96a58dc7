"""transformers' model as a graph for other runtimes: what ONNX Runtime's and OpenVINO's recipes export.

Inputs: ids [1, T], positions [1, T], mask [1, P + T] of ones, and every layer's keys and values of the P positions before, [1, G, P, D].
Outputs: logits, what each module returns (under the modules' names, as the map hf-modules has them), and the keys and values of all.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicLayer

torch.set_grad_enabled(False)


def layer_of(keys, values):
    """A layer of the cache that holds something already, so that the graph has no case for an empty one."""
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


class Graph(torch.nn.Module):
    """names: of the modules' outputs in their order, once it has run."""

    def __init__(self, checkpoint):
        super().__init__()
        # The experts as products of gathered weights: the loop over the experts that were hit is no graph.
        self.model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="sdpa",
                                                          experts_implementation="batched_mm").eval()
        self.attention = [layer.self_attn for layer in self.model.get_decoder().layers]
        self.names = []

    def past(self, length):
        """Keys and values of zeros, one behind the other."""
        shapes = [(1, a.k_proj.out_features // a.head_dim, length, a.head_dim) for a in self.attention]
        return [torch.zeros(shape) for shape in shapes for _ in ("keys", "values")]

    def example(self):
        """Inputs from which the graph is traced."""
        return torch.tensor([[2, 17, 5]]), torch.tensor([[2, 3, 4]]), torch.ones(1, 5, dtype=torch.int64), self.past(2)

    def forward(self, ids, positions, mask, past):
        cache, found = DynamicCache(), {}
        cache.layers = [layer_of(keys, values) for keys, values in zip(past[::2], past[1::2])]

        def keep(name):
            def hook(_module, _args, output):
                tensor = output[0] if isinstance(output, tuple) else output
                if isinstance(tensor, torch.Tensor):
                    found[name] = tensor.clone()

            return hook

        hooks = [module.register_forward_hook(keep(name)) for name, module in self.model.get_decoder().named_modules(prefix="model")
                 if name != "model" and "rotary" not in name]
        out = self.model(input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache)
        for hook in hooks:
            hook.remove()
        self.names = list(found)
        return out.logits, *found.values(), *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))


def run(graph, call, tokens, first_position, schedule):
    """{name: array [T, ...]} of call(inputs), which returns all outputs in their order."""
    found, at, past = {}, 0, [tensor.numpy() for tensor in graph.past(0)]
    for length in schedule:
        positions = np.arange(first_position + at, first_position + at + length)[None]
        outputs = call([np.array([tokens[at:at + length]]), positions, np.ones((1, at + length), np.int64), *past])
        for name, value in zip(["logits", *graph.names], outputs):
            found.setdefault(name, []).append(np.array(value).reshape(length, -1))
        past, at = outputs[1 + len(graph.names):], at + length
    return {name: np.concatenate(chunks) for name, chunks in found.items()}
