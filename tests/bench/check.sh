#!/bin/sh
# check.sh BUILD CHECKPOINT [POSITIONS]: what gemma4-check costs on a model at the true dimensions, in forward passes of the twin over the same
# tokens. Processor time of all threads, of runs that follow one another on the same machine; each is run twice, and the faster one counts.
# Prints Markdown; asserts nothing. OMP_NUM_THREADS says how many threads there are.
build=$1 model=$2 positions=${3:-16}
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT

# cost COMMAND ...: sets seconds to the processor time of the faster of two runs. A status of 1 is a verdict like another.
cost() {
    seconds=
    for run in 1 2; do
        times >"$work/before" # in this shell: another one has children of its own
        "$@" >"$work/out" 2>"$work/err"
        [ $? -le 1 ] || { cat "$work/err"; exit 2; }
        times >"$work/after"
        now=$(cat "$work/before" "$work/after" | sed -n "2p;4p" | tr 'ms' '  ' |
            awk '{ t[NR] = 60 * $1 + $2 + 60 * $3 + $4 } END { printf "%.3f", t[2] - t[1] }')
        seconds=$(echo "$now ${seconds:-$now}" | awk '{ print $1 < $2 ? $1 : $2 }')
    done
}

# row WHAT LIMIT SECONDS PASS
row() {
    echo "$3 $4" | awk -v what="$1" -v limit="$2" '{ printf "| %s | %s | %.2f | %.1f |\n", what, limit, $1, $1 / $2 }'
}

# tokens N: "2,x,y ..." of the synthetic vocabulary of 8,192
tokens() {
    awk -v n="$1" 'BEGIN { printf "2"; for (i = 1; i < n; i++) printf ",%d", (i * 7919 + 13) % 8192 }'
}

# The first use of a file reads it from the disk.
cat "$model"/model*.safetensors >/dev/null
cost "$build/gemma4-ref" run --cpu auto --model "$model" --tokens "$(tokens "$positions")"
pass=$seconds
echo "One forward pass of the twin over $positions positions: $pass s of processor time, ${OMP_NUM_THREADS:-all} threads."
echo
echo "| work | at most, in passes | s | passes |"
echo "|---|---|---|---|"
for taps in all 'layers.*.output' logits; do
    "$build/gemma4-ref" dump --cpu auto --model "$model" --tokens "$(tokens "$positions")" --taps "$taps" --out "$work/dump.h5" || exit 2
    cost "$build/gemma4-check" --model "$model" "$work/dump.h5"
    case $taps in all) limit=8 ;; *) limit=10 ;; esac
    row "conforming dump, taps $taps" $limit "$seconds" "$pass"
done

# The faults are simulated, over 24 positions; gemma4-check prints the time of judging alone.
cost "$build/gemma4-ref" run --cpu auto --model "$model" --tokens "$(tokens 24)"
pass=$seconds
for set in all layers logits; do
    "$build/gemma4-check" self-test --times --model "$model" --tier float32 --cause "${CAUSE:-rope-pairing-contiguous}" --tap-set $set --jobs 1 \
        >"$work/times" 2>"$work/err" || { cat "$work/err"; exit 2; }
    case $set in all) limit=12 ;; layers) limit=60 ;; *) limit=120 ;; esac
    row "naming one fault, $set, 24 positions" $limit "$(awk '$1 == "float32" { print $5 }' "$work/times")" "$pass"
done

# Against the scalar operators on the same dump.
cost "$build/gemma4-check" tiny-prompt golden/dumps/tiny-prompt-bfloat16.h5 --cpu scalar
pass=$seconds
cost "$build/gemma4-check" tiny-prompt golden/dumps/tiny-prompt-bfloat16.h5
row "a committed case, against --cpu scalar" 1 "$seconds" "$pass"
