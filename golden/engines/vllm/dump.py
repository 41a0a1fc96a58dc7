"""vLLM: in one process, what its modules return by forward hooks, and the logits of all positions. Where the schedule says so, a prompt
goes through the paged cache in chunks."""

import os

os.environ.update(HF_HUB_OFFLINE="1", VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_CPU_KVCACHE_SPACE="1", VLLM_LOGGING_LEVEL="ERROR",
                  VLLM_NO_USAGE_STATS="1")

import importlib.metadata

import torch
from vllm import LLM, SamplingParams, TokensPrompt


def version():
    return importlib.metadata.version("vllm-cpu") + " (CPU)"


def load(checkpoint, dtype):
    return {"model": checkpoint, "dtype": dtype}


def engine(loaded, chunk):
    if chunk not in loaded:
        loaded[chunk] = LLM(model=loaded["model"], dtype=loaded["dtype"], enforce_eager=True, max_model_len=128, max_num_seqs=1,
                            max_num_batched_tokens=chunk, enable_prefix_caching=False, disable_log_stats=True,
                            hf_overrides={"architectures": ["Gemma4ForCausalLM"]})
    return loaded[chunk]


def run(loaded, tokens, first_position, schedule):
    llm = engine(loaded, max(schedule) if len(schedule) > 1 else 128)
    model = llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
    found, hooks = {}, []

    def keep(name):
        def hook(_module, _args, output):
            value = output[0] if isinstance(output, tuple) else output
            if isinstance(value, torch.Tensor) and value.dim() > 1:
                found.setdefault(name, []).append(value.reshape(value.shape[0], -1).float().clone())
                if name == "model.norm":
                    found.setdefault("logits", []).append(model.compute_logits(value).float().clone())

        return hook

    for name, module in model.named_modules():
        if name.startswith("model.") and "rotary" not in name:
            hooks.append(module.register_forward_hook(keep(name)))
    llm.generate(TokensPrompt(prompt_token_ids=tokens), SamplingParams(max_tokens=1, temperature=0), use_tqdm=False)
    for hook in hooks:
        hook.remove()
    whole = {name: torch.cat(chunks) for name, chunks in found.items()}  # longer: a module that all layers share
    return {name: value.numpy() for name, value in whole.items() if len(value) == len(tokens)}
