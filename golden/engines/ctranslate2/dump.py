"""CTranslate2: its own converter, then the logits of all positions. It shows nothing else."""

import os
import tempfile

os.environ["HF_HUB_OFFLINE"] = "1"

import ctranslate2
import numpy as np


def version():
    return ctranslate2.__version__


def load(checkpoint, dtype):
    converted = tempfile.mkdtemp()
    ctranslate2.converters.TransformersConverter(checkpoint).convert(converted, quantization=dtype, force=True)
    return ctranslate2.Generator(converted, compute_type=dtype)


def run(generator, tokens, first_position, schedule):
    return {"logits": np.array(generator.forward_batch([tokens]))[0]}
