#!/bin/sh
# Two dumps of a real engine (transformers, float32) through gemma4-check: the honest one must conform, the one with a planted
# fault must not, and must diverge first where the fault was planted. Usage: demo.sh PATH/gemma4-check
check=$1
dumps=golden/dumps

echo "== transformers, as published: $dumps/tiny-prompt-float32.h5"
"$check" tiny-prompt $dumps/tiny-prompt-float32.h5 --require full || { echo "demo: expected exit status 0, found $?"; exit 1; }

echo
echo "== transformers with RoPE paired contiguously on full layers: $dumps/tiny-prompt-rope-pairing-contiguous.h5"
"$check" tiny-prompt $dumps/tiny-prompt-rope-pairing-contiguous.h5 >"$check.demo"
status=$?
cat "$check.demo"
found=$(sed -n 's/^First divergence: //p' "$check.demo")
cause=$(sed -n 's/^Cause: \([a-z0-9-]*\).*/\1/p' "$check.demo")
rm -f "$check.demo"
[ $status -eq 1 ] || { echo "demo: expected exit status 1, found $status"; exit 1; }
[ "$found" = layers.5.attn.q_rope ] || { echo "demo: expected the first divergence at layers.5.attn.q_rope, found '$found'"; exit 1; }
[ "$cause" = rope-pairing-contiguous ] || { echo "demo: expected the cause rope-pairing-contiguous, found '$cause'"; exit 1; }

echo
echo "demo: the honest dump conforms, the faulty one fails first at $found, and its fault is named: $cause"
