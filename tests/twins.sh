#!/bin/sh
# A whole forward pass under every twin of this machine, judged by gemma4-check like anybody's engine: once with all taps (the
# scalar's attention then shows its scores), else without scores and probabilities (then the twin's own attention runs); decoding a
# token at a time where the case is about decoding.
# Usage: twins.sh BUILD
build=$1
out=$build/twins.h5
dumps=0
twins=0
trap 'rm -f "$out" "$out.scalar"' EXIT

# Sets dump to the command that dumps the case $1.
prepare() {
    manifest=golden/cases/$1.yaml
    checkpoint=golden/checkpoints/$(sed -n 's/^  name: \([a-z0-9-]*\)$/\1/p' "$manifest" | head -n 1)
    [ -f "$checkpoint/model.safetensors" ] || checkpoint=build/checkpoints/$(basename "$checkpoint")
    tokens=$(awk '/^tokens:/ { on = 1 } on { print } on && /\]/ { exit }' "$manifest" | tr -d 'a-z:[] \n')
    dump="$build/gemma4-ref dump --model $checkpoint --tokens $tokens --first-position $(sed -n 's/^first_position: //p' "$manifest")"
    case $1 in *-decode) dump="$dump --schedule $(echo "$tokens" | sed 's/[0-9][0-9]*/1/g')" ;; esac
}

# $1 a twin, $2 a case, $3 the taps
conforms() {
    prepare "$2"
    $dump --cpu "$1" --taps "$3" --out "$out" || exit 1
    "$build/gemma4-check" "$2" "$out" >"$build/twins.txt" || { cat "$build/twins.txt"; echo "twins: $1, $2, taps $3: does not conform"; exit 1; }
    dumps=$((dumps + 1))
}

for cpu in avx2 avx512 neon; do
    "$build/gemma4-ref" run --cpu $cpu --model golden/checkpoints/tiny --tokens 2 >/dev/null 2>&1 || continue
    twins=$((twins + 1))
    conforms $cpu tiny-prompt all
    for id in tiny-prompt tiny-window-crossings tiny-far tiny-decode moe128-decode wide256-prompt; do
        conforms $cpu $id '*[!s]' # the names of scores and probs end in s
    done
    # Was it the twin that ran? Its last bits are not the scalar's.
    $dump --taps logits --out "$out.scalar" && $dump --cpu $cpu --taps logits --out "$out" || exit 1
    cmp -s "$out" "$out.scalar" && { echo "twins: $cpu gives the scalar's bits: is it the twin that runs?"; exit 1; }
done
echo "twins: $dumps dumps of $twins twins conform"
