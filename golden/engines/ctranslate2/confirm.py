"""Is what CTranslate2 computes the published model without its experts? transformers with enable_moe_block = false, on the same tokens.

    build/oracle/bin/python golden/engines/ctranslate2/confirm.py build/engines/ctranslate2.dumps/tiny-prompt.float32.whole.h5 [...]
"""

import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import h5py
import torch
import yaml
from transformers import AutoConfig, Gemma4ForCausalLM

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
torch.set_grad_enabled(False)

for path in sys.argv[1:]:
    with h5py.File(path) as f:
        tokens, logits, case = f["tokens"][()].tolist(), torch.from_numpy(f["logits"][()]), f.attrs["case"]
    with open(os.path.join(ROOT, "golden", "cases", case + ".yaml"), encoding="utf-8") as f:
        checkpoint = os.path.join(ROOT, "build", "checkpoints", yaml.safe_load(f)["checkpoint"]["name"])
    config = AutoConfig.from_pretrained(checkpoint).get_text_config()
    hints = {"key_mapping": {r"^model\.language_model\.": "model."}}
    difference = {}
    for experts in True, False:
        config.enable_moe_block = experts
        model = Gemma4ForCausalLM.from_pretrained(checkpoint, config=config, dtype=torch.float32, attn_implementation="eager", **hints)
        expected = model(torch.tensor([tokens])).logits[0]
        difference[experts] = float((logits - expected).norm() / expected.norm())
    print(f"{case}: logits off by {difference[True]:.2e} from the model, by {difference[False]:.2e} from the model without experts")
