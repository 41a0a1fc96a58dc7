"""KerasHub: a model of the layers' outputs; the logits by the embedding in reverse, which soft-caps them, as its Gemma4CausalLM does."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import keras_hub
import numpy as np


def version():
    return f"{keras_hub.__version__}, keras {keras.__version__} on {keras.backend.backend()}"


def load(checkpoint, dtype):
    backbone = keras_hub.models.Gemma4Backbone.from_preset(checkpoint, dtype=dtype)
    outputs = {"final_normalization": backbone.output}
    for n in range(backbone.num_layers):
        out = backbone.get_layer(f"decoder_block_{n}").output
        outputs[f"decoder_block_{n}"] = out[0] if isinstance(out, (tuple, list)) else out
    return backbone, keras.Model(backbone.inputs, outputs)


def run(loaded, tokens, first_position, schedule):
    backbone, model = loaded
    n = len(tokens)
    found = dict(model({"token_ids": np.array([tokens], np.int32), "padding_mask": np.ones((1, n), np.int32),
                        "position_ids": np.arange(first_position, first_position + n, dtype=np.int32)[None]}))
    found["logits"] = backbone.token_embedding(found["final_normalization"], reverse=True)
    return {name: np.array(keras.ops.convert_to_numpy(keras.ops.cast(value, "float32")))[0] for name, value in found.items()}
