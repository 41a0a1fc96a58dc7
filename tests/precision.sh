#!/bin/sh
# How far is the float32 reference from the same source compiled with float64 activations? The tolerances it judges by must be at
# least ten times that (spec/numerics.md). Usage: precision.sh BUILD, which holds gemma4-ref and double/gemma4-check
build=$1
limit=0.1   # of the tolerance
worst=0
cases=0
tolerance() { awk -v metric="$2" '$1 == "metric:" { on = $2 == metric } on && $1 == "value:" { print $2; exit }' "$1"; }
for case in golden/cases/*.yaml; do
    ! grep -q '^  - flag: many-positions$' "$case" || continue # it would take minutes
    id=$(basename "$case" .yaml)
    checkpoint=golden/checkpoints/$(sed -n 's/^  name: \([a-z0-9-]*\)$/\1/p' "$case" | head -n 1)
    [ -f "$checkpoint/model.safetensors" ] || checkpoint=build/checkpoints/$(basename "$checkpoint")
    tokens=$(awk '/^tokens:/ { on = 1 } on { print } on && /\]/ { exit }' "$case" | tr -d 'a-z:[] \n')
    first=$(sed -n 's/^first_position: //p' "$case")
    "$build/gemma4-ref" dump --model "$checkpoint" --tokens "$tokens" --first-position "$first" --out "$build/precision.h5" || exit 1
    # Verdicts do not matter here: how far off is each tensor, with all earlier errors in it, as a part of the case's float32 tolerances?
    "$build/double/gemma4-check" --model "$checkpoint" "$build/precision.h5" --json "$build/precision.json" >"$build/precision.txt"
    rows=$(sed -n 's/.*"mode": "accumulated".*"relative_rms": \([^,]*\), "position_rms": \([^,]*\),.*/\1 \2/p' "$build/precision.json")
    part=$(echo "$rows" | awk -v all="$(tolerance "$case" relative_rms)" -v position="$(tolerance "$case" position_rms)" \
        '{ a = $1 / all; p = $2 / position; if (a > m) m = a; if (p > m) m = p } END { printf "%.3f", m }') || exit 1
    rms=$(echo "$rows" | awk '$1 + 0 > m { m = $1 + 0 } END { printf "%.1e", m }')
    taps=$((${taps:-0} + $(echo "$rows" | wc -l)))
    printf '%-24s  float32 against float64: largest relative RMS %s, %s of the tolerance\n' "$id" "$rms" "$part"
    worst=$(awk -v a="$part" -v b="$worst" 'BEGIN { print (a > b ? a : b) }')
    cases=$((cases + 1))
done
echo "precision: $cases cases, $taps tensors, at most $worst of the tolerance (limit $limit)"
[ $cases -gt 0 ] && awk -v worst="$worst" -v limit=$limit 'BEGIN { exit !(worst > 0 && worst <= limit) }'
