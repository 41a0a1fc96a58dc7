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

# Two dumps of 2 GB of values each, beside h5diff (hdf5-tools): as gemma4-ref stores them, in deflated chunks, and repacked to lie in one piece; with
# last bits that differ with the schedule, and equal ones. By the clock, of ROUNDS rounds in turn the fastest each; then processor time. PAIR="A B"
# are two dumps that are there already.
command -v h5diff >/dev/null && command -v h5repack >/dev/null || { echo; echo "compare: no h5diff and h5repack (hdf5-tools)"; exit 0; }
ROUNDS=${ROUNDS:-5}

# clock NAME COMMAND ...: the fastest so far by the clock, in the file NAME.
clock() {
    name=$1; shift
    before=$(date +%s.%N)
    "$@" >"$work/out" 2>"$work/err"
    [ $? -le 1 ] || { cat "$work/err"; exit 2; }
    echo "$before $(date +%s.%N) $(cat "$work/$name" 2>/dev/null || echo 1e9)" |
        awk '{ now = $2 - $1; print now < $3 ? now : $3 }' >"$work/fastest"
    mv "$work/fastest" "$work/$name"
}

# beside STORED WHAT A B: a row
beside() {
    rm -f "$work/ours" "$work/theirs"
    for round in $(seq "$ROUNDS"); do
        clock ours "$build/gemma4-check" compare --model "$model" "$3" "$4"
        clock theirs h5diff "$3" "$4"
    done
    cost "$build/gemma4-check" compare --model "$model" "$3" "$4"
    ours=$seconds
    cost h5diff "$3" "$4"
    echo "$(cat "$work/ours") $(cat "$work/theirs") $ours $seconds" |
        awk -v what="$1, $2" '{ printf "| %s | %.2f | %.2f | %.1f | %.2f, %.2f |\n", what, $1, $2, $2 / $1, $3, $4 }'
}

if [ -z "$PAIR" ]; then
    for schedule in 1700 850,850; do
        "$build/gemma4-ref" dump --cpu auto --model "$model" --tokens "$(tokens 1700)" --schedule $schedule --out "$work/$schedule.h5" || exit 2
    done
    PAIR="$work/1700.h5 $work/850,850.h5"
fi
set -- $PAIR
for file in "$1" "$2"; do
    h5repack -f NONE -l CONTI "$file" "$work/contiguous-$(basename "$file")" || exit 2
done
a=$work/contiguous-$(basename "$1") b=$work/contiguous-$(basename "$2")
cp "$1" "$work/equal-deflated.h5" && cp "$a" "$work/equal-contiguous.h5" || exit 2
echo
echo "| two dumps of $(wc -c <"$a" | awk '{ printf "%.2f", $1 / 1e9 }') GB | compare, s | h5diff, s | ratio | of the processor, s |"
echo "|---|---|---|---|---|"
beside contiguous different "$a" "$b"
beside contiguous equal "$a" "$work/equal-contiguous.h5"
beside deflated different "$1" "$2"
beside deflated equal "$1" "$work/equal-deflated.h5"
