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
    # Verdicts do not matter here: how far off is each tensor, with all earlier errors in it? One row of the JSON a tap.
    "$build/double/gemma4-check" --model "$checkpoint" "$build/precision.h5" --json "$build/precision.json" >"$build/precision.txt"
    rows=$(sed -n 's/.*"mode": "accumulated".*"error": \([^,]*\), "tolerance": \([^,]*\),.*"relative_rms": \([^,]*\),.*/\1 \2 \3/p' "$build/precision.json")
    part=$(echo "$rows" | awk '$1 / $2 > m { m = $1 / $2 } END { printf "%.3f", m }')
    rms=$(echo "$rows" | awk '$3 + 0 > m { m = $3 + 0 } END { printf "%.1e", m }')
    taps=$((${taps:-0} + $(echo "$rows" | wc -l)))
    printf '%-24s  float32 against float64: largest relative RMS %s, %s of the tolerance\n' "$id" "$rms" "$part"
    worst=$(awk -v a="$part" -v b="$worst" 'BEGIN { print (a > b ? a : b) }')
    cases=$((cases + 1))
done
echo "precision: $cases cases, $taps tensors, at most $worst of the tolerance (limit $limit)"
[ $cases -gt 0 ] && awk -v worst="$worst" -v limit=$limit 'BEGIN { exit !(worst > 0 && worst <= limit) }'
