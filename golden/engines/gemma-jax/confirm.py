"""Does gemma (JAX) compute the published model, but for what its router reads? transformers with the router behind
pre_feedforward_layernorm_2, on the same tokens.

    build/oracle/bin/python golden/engines/gemma-jax/confirm.py build/engines/gemma-jax.dumps/tiny-prompt.float32.whole.h5 [...]
"""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import h5py
import torch
import yaml
from transformers import AutoModelForCausalLM

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
torch.set_grad_enabled(False)

for path in sys.argv[1:]:
    with h5py.File(path) as f:
        tokens, logits, case = f["tokens"][()].tolist(), torch.from_numpy(f["logits"][()]), f.attrs["case"]
        positions = torch.from_numpy(f["positions"][()])[None]
    with open(os.path.join(ROOT, "golden", "cases", case + ".yaml"), encoding="utf-8") as f:
        checkpoint = os.path.join(ROOT, "build", "checkpoints", yaml.safe_load(f)["checkpoint"]["name"])
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, attn_implementation="eager")
    difference = []
    for planted in False, True:
        for layer in model.get_decoder().layers if planted else []:
            layer.router.register_forward_pre_hook(lambda _router, args, norm=layer.pre_feedforward_layernorm_2: (norm(args[0]),))
        expected = model(torch.tensor([tokens]), position_ids=positions).logits[0]
        difference.append(float((logits - expected).norm() / expected.norm()))
    print(f"{case}: logits off by {difference[0]:.2e} from the model, by {difference[1]:.2e} where its router reads the experts' norm")
