"""Is what the ladder says of CTranslate2 all that is wrong with it? transformers without experts and without a window, on every rung.

    build/oracle/bin/python golden/engines/ctranslate2/confirm_ladder.py build/ladder build/engines/ctranslate2.ladder/float32
"""

import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"

import h5py
import torch
from transformers import AutoConfig, Gemma4ForCausalLM

torch.set_grad_enabled(False)
ladder, dumps = sys.argv[1:]
with open(os.path.join(ladder, "ladder.json"), encoding="utf-8") as f:
    rungs = json.load(f)["rungs"]
changes = {"as published": {}, "no experts": {"enable_moe_block": False}, "no experts, no window": {"enable_moe_block": False, "sliding_window": 4096}}
for rung in rungs:
    path = os.path.join(dumps, rung["rung"] + ".h5")
    if not os.path.exists(path):
        continue
    with h5py.File(path) as f:
        logits = torch.from_numpy(f["logits"][()])
    found = []
    for change in changes.values():
        config = AutoConfig.from_pretrained(os.path.join(ladder, rung["checkpoint"])).get_text_config()
        for key, value in change.items():
            setattr(config, key, value)
        model = Gemma4ForCausalLM.from_pretrained(os.path.join(ladder, rung["checkpoint"]), config=config, dtype=torch.float32, attn_implementation="eager",
                                                  key_mapping={r"^model\.language_model\.": "model."})
        expected = model(torch.tensor([rung["tokens"]])).logits[0]
        found.append(float((logits - expected).norm() / expected.norm()))
    print(f"{rung['rung']:20s} " + ", ".join(f"{name}: {error:.1e}" for name, error in zip(changes, found)), flush=True)
