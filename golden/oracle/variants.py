"""Honest variants: other right ways to compute Gemma 4, as engines do. None of them may be called a mistake.

VARIANTS maps a name to a Variant. Each is one published freedom: another place to round, another order of summation, a factor that moves
to where it commutes.
"""

import dataclasses
import fnmatch
import types

import torch
from torch import nn
from transformers import DynamicCache
from transformers.models.gemma4 import modeling_gemma4

import seams


@dataclasses.dataclass(frozen=True)
class Variant:
    """change(model) makes it; dtypes: those in which it is run."""

    change: object
    dtypes: tuple = ("float32", "bfloat16", "float16")
    attributes: dict = dataclasses.field(default_factory=dict)  # root attributes of the dump, beside or in place of the usual
    leaves_out: tuple = ()  # globs of taps that such an engine does not hold
    stored: object = None  # torch dtype of the dump's datasets, where it is not the tensors' own


def unchanged(model):
    pass


def norms_rounded_at_every_step(model):
    """Every operation of an RMSNorm gives a number of the model's type; the mean is accumulated in float32."""

    def forward(norm, x):
        mean = x.pow(2).float().mean(-1, keepdim=True).to(x.dtype)
        y = x * torch.rsqrt(mean + norm.eps)
        return y * norm.weight if norm.with_scale else y

    for module in model.modules():
        if isinstance(module, modeling_gemma4.Gemma4RMSNorm):
            module.forward = types.MethodType(forward, module)


def matmul_of_bf16(a, b):
    return a.bfloat16().float() @ b.bfloat16().float()


def matmul_in_halves(a, b):
    half = a.shape[-1] // 2
    low = a[..., :half].float() @ b[..., :half, :].float()
    high = a[..., half:].float() @ b[..., half:, :].float()
    return (low + high).to(a.dtype)


def matmul_in_blocks(a, b):
    total = 0.0
    for begin in reversed(range(0, a.shape[-1], 8)):
        total = total + a[..., begin:begin + 8].float() @ b[..., begin:begin + 8, :].float()
    return total.to(a.dtype)


def matmul_in_float64(a, b):
    return (a.double() @ b.double()).to(a.dtype)


def matmul_of_8_bit_blocks(a, b):
    """What engines of block-quantised weights do to the other factor: 8 bits, one scale for each 32 values of a row."""
    blocks = a.float().reshape(*a.shape[:-1], -1, 32)
    step = blocks.abs().amax(dim=-1, keepdim=True) / 127
    quantised = torch.where(step > 0, (blocks / step.clamp_min(1e-30)).round() * step, 0.0)
    return (quantised.reshape(a.shape) @ b.float()).to(a.dtype)


def kv_cache_f16(model):
    def make_cache():
        cache = DynamicCache(config=model.config)
        original = cache.update

        def update(keys, values, *args, **kwargs):
            held = original(keys.half(), values.half(), *args, **kwargs)
            return tuple(t.to(keys.dtype) for t in held)

        cache.update = update
        return cache

    model.make_cache = make_cache


def softmax_after_top_k(model):
    def forward(router, x):
        logits = router.proj(router.norm(x) * router.scale * router.scalar_root_size)
        best, ids = logits.topk(router.config.top_k_experts, dim=-1)
        router.topk_norm = torch.softmax(best, dim=-1, dtype=torch.float32)
        return torch.softmax(logits, dim=-1, dtype=torch.float32), router.topk_norm * router.per_expert_scale[ids], ids

    for layer in model.model.layers:
        layer.router.forward = types.MethodType(forward, layer.router)


def per_expert_scale_on_output(model):
    for layer in model.model.layers:
        scale = layer.router.per_expert_scale.detach().clone()
        layer.router.per_expert_scale = nn.Parameter(torch.ones_like(scale), requires_grad=False)
        seams.replace_experts(layer, finish=lambda out, weight, ids, scale=scale: (out * scale[ids][:, None]) * weight[:, None])


def embed_scale_exact(model):
    embed = model.model.embed_tokens
    embed.forward = types.MethodType(
        lambda table, ids: (table.weight[ids].float() * table.scalar_embed_scale).to(table.weight.dtype), embed)


def with_matmul(matmul, **where):
    return lambda model: seams.replace_matmul(model, matmul, **where)


VARIANTS = {
    "norms-in-dtype": Variant(norms_rounded_at_every_step, ("bfloat16", "float16")),
    "bf16-inputs": Variant(with_matmul(matmul_of_bf16), ("float32",), {"dtype": "bfloat16"}),
    "8-bit-inputs": Variant(with_matmul(matmul_of_8_bit_blocks, in_attention=False), ("float32", "float16"), {"dtype": "q8_0"}),
    "stored-bf16": Variant(unchanged, ("float32",), stored=torch.bfloat16),
    "stored-f16": Variant(unchanged, ("float32",), stored=torch.float16),
    "kv-cache-f16": Variant(kv_cache_f16, ("float32", "bfloat16"), {"kv_dtype": "float16"}),
    "softmax-after-top-k": Variant(softmax_after_top_k, leaves_out=("*.router.probs",)),
    "expert-scale-on-output": Variant(per_expert_scale_on_output, leaves_out=("*.router.topk_weights",)),
    "embed-scale-exact": Variant(embed_scale_exact, ("bfloat16", "float16")),
    "sum-in-halves": Variant(with_matmul(matmul_in_halves)),
    "sum-in-blocks": Variant(with_matmul(matmul_in_blocks)),
    "sum-in-float64": Variant(with_matmul(matmul_in_float64)),
}


def held(variant, recorded):
    """The taps that such an engine can dump, in the type in which it stores them."""
    kept = {n: t for n, t in recorded.items() if not any(fnmatch.fnmatchcase(n, p) for p in variant.leaves_out)}
    if variant.stored is None:
        return kept
    return {n: t.to(variant.stored) if t.is_floating_point() else t for n, t in kept.items()}
