"""Measures what spec/synth.md promises of a synthetic checkpoint: sizes of the taps, and how rounding noise grows with depth.

    python measure.py --model DIR [--length 40] [--seed 0]

One line a layer: standard deviation of the visible scores and of the router's logits, RMS of the branches and of the layer's
output; then relative RMS of the layer's output between float32 eager whole prefill and float32 sdpa decode through the
cache, and against bfloat16, with the number of positions whose experts differ.
"""

import argparse

import torch

import find_tokens
import model
import taps


def rms(x):
    return float(x.double().pow(2).mean().sqrt())


def relative(found, expected):
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def visible(scores, window):
    """The entries of scores [T,H,T] that a causal mask with this window keeps (None: no window)."""
    p = torch.arange(scores.shape[0])
    mask = p[None, :] <= p[:, None]
    if window:
        mask &= p[None, :] > p[:, None] - window
    return scores.transpose(1, 2)[mask]


def swaps(a, b):
    """How many positions chose different sets of experts."""
    return int((a.sort(dim=-1).values != b.sort(dim=-1).values).any(dim=-1).sum())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", metavar="DIR", required=True)
    parser.add_argument("--length", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the tokens, as in find_tokens.py")
    args = parser.parse_args()

    m = model.load(args.model, "float32", "eager")
    config = m.config
    tokens = find_tokens.candidate(args.seed, args.length, config.vocab_size)
    whole = taps.run(m, tokens)
    decode = taps.run(model.load(args.model, "float32", "sdpa"), tokens, schedule=[1] * args.length)
    half = taps.run(model.load(args.model, "bfloat16", "eager"), tokens)

    print("layer kind     scores  router  attn.out mlp.out moe.out  output | decode   swaps | bfloat16 swaps | layer_scalar")
    for i, kind in enumerate(config.layer_types):
        at = f"layers.{i}."
        scores = visible(whole[at + "attn.scores"], config.sliding_window if kind == "sliding_attention" else None)
        sizes = [rms(whole[at + name]) for name in ("attn.out", "mlp.out", "moe.out", "output")]
        out, ids = at + "output", at + "router.topk_ids"
        print(f"{i:5d} {kind[:7]:8s} {scores.std():6.2f}  {whole[at + 'router.logits'].std():6.2f}  "
              f"{sizes[0]:8.3f} {sizes[1]:7.3f} {sizes[2]:7.3f} {sizes[3]:7.3f} | "
              f"{relative(decode[out], whole[out]):.1e}  {swaps(decode[ids], whole[ids]):4d} | "
              f"{relative(half[out], whole[out]):.1e}  {swaps(half[ids], whole[ids]):4d} | "
              f"{float(m.model.layers[i].layer_scalar):.4f}")
    gap, layer, position = taps.smallest_gap(whole, config.num_hidden_layers, config.top_k_experts)
    print(f"logits_raw std {whole['logits_raw'].std():.2f}, max {whole['logits_raw'].abs().max():.1f}; "
          f"logits: decode {relative(decode['logits'], whole['logits']):.1e}, bfloat16 {relative(half['logits'], whole['logits']):.1e}; "
          f"smallest gap {gap:.1e} (layer {layer}, position {position})")


if __name__ == "__main__":
    main()
