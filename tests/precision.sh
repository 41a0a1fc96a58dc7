#!/bin/sh
# How far is the float32 reference from the same source compiled with float64 activations? The tolerances it judges by must be at
# least ten times that (spec/numerics.md). Usage: precision.sh BUILD, which holds gemma4-ref and double/gemma4-check
build=$1
limit=0.1   # of the tolerance
worst=0
cases=0
for case in golden/cases/*.yaml; do
    id=$(basename "$case" .yaml)
    checkpoint=golden/checkpoints/$(sed -n 's/^  name: \([a-z0-9-]*\)$/\1/p' "$case" | head -n 1)
    [ -f "$checkpoint/model.safetensors" ] || checkpoint=build/checkpoints/$(basename "$checkpoint")
    tokens=$(awk '/^tokens:/ { on = 1 } on { print } on && /\]/ { exit }' "$case" | tr -d 'a-z:[] \n')
    first=$(sed -n 's/^first_position: //p' "$case")
    "$build/gemma4-ref" dump --model "$checkpoint" --tokens "$tokens" --first-position "$first" --out "$build/precision.h5" || exit 1
    "$build/double/gemma4-check" --model "$checkpoint" "$build/precision.h5" >"$build/precision.txt" || { cat "$build/precision.txt"; exit 1; }
    # The table's last columns: relative RMS, worst position, norm ratio - 1, error in units of the tolerance, verdict.
    part=$(awk '/ (pass|marginal)$/ && $(NF - 1) + 0 > m { m = $(NF - 1) } END { print m + 0 }' "$build/precision.txt")
    rms=$(awk '/ (pass|marginal)$/ && $(NF - 4) + 0 > m + 0 { m = $(NF - 4) } END { print m }' "$build/precision.txt")
    printf '%-24s  float32 against float64: largest relative RMS %s, %s of the tolerance\n' "$id" "$rms" "$part"
    worst=$(awk -v a="$part" -v b="$worst" 'BEGIN { print (a > b ? a : b) }')
    cases=$((cases + 1))
done
echo "precision: $cases cases, at most $worst of the tolerance (limit $limit)"
[ $cases -gt 0 ] && awk -v worst="$worst" -v limit=$limit 'BEGIN { exit !(worst > 0 && worst <= limit) }'
