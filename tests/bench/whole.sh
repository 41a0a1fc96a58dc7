#!/bin/sh
# whole.sh BUILD DIR [PRESET LAYER POSITIONS VOCABULARY]: a verdict on the whole model. Generates all layers (26b-a4b: 50 GB in DIR), lets an
# engine run them that takes pre_feedforward_layernorm_2's weight for pre_feedforward_layernorm's, and the other way round, in one layer (17),
# and judges its dump of all taps in a cgroup of 6 GB (as root; else without a limit). Prints what that took, beside a forward pass and a
# reading of the files, as Markdown; status 0 if the mistake is named, in that layer only.
build=$1 dir=$2 preset=${3:-26b-a4b} layer=${4:-17} positions=${5:-64} vocabulary=${6:-262144}
limit=6442450944
mkdir -p "$dir" || exit 2
model=$dir/model
exchange() {
    python3 tests/bench/exchange.py "$model" ".$layer.pre_feedforward_layernorm.weight" ".$layer.pre_feedforward_layernorm_2.weight" || exit 2
}
tokens=$(awk -v n="$positions" -v v="$vocabulary" 'BEGIN { printf "2"; for (i = 1; i < n; i++) printf ",%d", (i * 7919 + 13) % v }')

[ -d "$model" ] || "$build/gemma4-ref" synth --preset "$preset" --shards 12 --seed 1 --out "$model" || exit 2
exchange
"$build/gemma4-ref" dump --cpu auto --model "$model" --tokens "$tokens" --taps '*' --out "$dir/dump.h5"
status=$?
exchange
[ $status -eq 0 ] || exit 2

# limited COMMAND ...: in the cgroup; sets seconds by the clock, and of the processor
for memory in /sys/fs/cgroup/memory /sys/fs/cgroup; do
    group=$memory/gemma4-whole
    mkdir "$group" 2>/dev/null
    [ -e "$group/cgroup.procs" ] &&
        { echo $limit >"$group/memory.limit_in_bytes" || echo $limit >"$group/memory.max"; } 2>/dev/null && break
    rmdir "$group" 2>/dev/null
    group=
done
limited() {
    before=$(date +%s.%N)
    (
        [ -z "$group" ] || sh -c 'echo $PPID' >"$group/cgroup.procs"
        "$@"
        echo $? >"$dir/status"
        times >"$dir/times"
    ) >"$dir/out" 2>"$dir/err"
    [ "$(cat "$dir/status")" -le 1 ] || { cat "$dir/err"; exit 2; }
    seconds=$(echo "$before $(date +%s.%N)" | awk '{ printf "%.1f", $2 - $1 }')
    processor=$(sed -n 2p "$dir/times" | tr 'ms' '  ' | awk '{ printf "%.1f", 60 * $1 + $2 + 60 * $3 + $4 }')
}
row() {
    echo "| $1 | $seconds | $processor |"
}
sync
echo 3 2>/dev/null >/proc/sys/vm/drop_caches
gigabytes() {
    du -sk "$1" | awk '{ printf "%.2f GB", $1 * 1024 / 1e9 }'
}
limit_said="without a limit of memory"
[ -z "$group" ] || limit_said="memory limited to 6 GiB"
echo "Weights of $(gigabytes "$model"), $positions positions, a dump of $(gigabytes "$dir/dump.h5"), $limit_said, ${OMP_NUM_THREADS:-all} threads."
echo
echo "| work | s by the clock | s of the processor |"
echo "|---|---|---|"
limited sh -c 'cat "$@" >/dev/null' cat "$model"/model*.safetensors
row "reading the checkpoint"
limited "$build/gemma4-ref" run --cpu auto --model "$model" --tokens "$tokens"
row "a forward pass of the twin"
# What the processes have besides mapped files, every second.
while [ -n "$group" ] && sleep 1; do
    awk '$1 == "rss" || $1 == "anon" { printf "%.2f\n", $2 / 1e9 }' "$group/memory.stat"
done >"$dir/memory" &
limited "$build/gemma4-check" --model "$model" "$dir/dump.h5"
kill $! 2>/dev/null
row "the check"
[ -z "$group" ] || rmdir "$group" 2>/dev/null
echo
[ ! -s "$dir/memory" ] || echo "Memory of the check besides mapped files: $(sort -n "$dir/memory" | tail -1) GB at most."
sed -n '/^First divergence/p; /^Cause/p' "$dir/out"
grep -q "^Cause: branch-pre-norms-swapped.*; layers $layer\$" "$dir/out" && [ "$(grep -c '^Cause' "$dir/out")" -eq 1 ]
