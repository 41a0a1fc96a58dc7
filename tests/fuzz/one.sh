#!/bin/sh
# one.sh PROGRAM SECONDS FOLDER TARGET: one fuzzer, for run.sh. Prints a line; its log is FOLDER/TARGET.log.
program=$1 seconds=$2 folder=$3 target=$4
here=$(dirname "$0")
repository=$here/../..
# One process: children of the reader must not wait for a leak checker. What is allocated at once is limited: small inputs ask for little.
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0:max_allocation_size_mb=1024:handle_abort=2
mkdir -p "$folder/$target" "$folder/$target.found"
seeds=$here/corpus/$target
[ -d "$here/regressions/$target" ] && seeds="$seeds $here/regressions/$target"
case $target in
config) seeds="$seeds $(ls -d "$repository"/golden/checkpoints/*)" dictionary=config ;;
manifest) seeds="$seeds $repository/golden/cases" dictionary=manifest ;;
map) seeds="$seeds $repository/golden/maps" dictionary=map ;;
npy | npz | foreign) dictionary=numpy ;;
import) dictionary=map ;;
safetensors | activations | index | ladder | ladder-groups | judge) dictionary=safetensors ;;
folders) seeds="$seeds $here/corpus/npy" dictionary=numpy ;;
names) seeds="$seeds $here/corpus/foreign" dictionary=names ;;
gguf) dictionary=gguf ;;
*) dictionary=words ;;
esac
log=$folder/$target.log
# Whole goldens and models are no seeds: -max_len leaves them out.
FUZZ_TARGET=$target "$program" -max_total_time="$seconds" -max_len=20000 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -seed=1 \
    -dict="$here/dictionaries/$dictionary.dict" -artifact_prefix="$folder/$target.found/" "$folder/$target" $seeds >"$log" 2>&1
status=$?
executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
edges=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
found=
if [ "$status" -ne 0 ]; then
    echo FOUND >>"$log"
    found="  FOUND, see $log and $folder/$target.found"
fi
printf '%-14s %12s %10s %10s %10s%s\n' "$target" "${executions:-?}" "${rate:-?}" "${edges:-?}" "$(ls "$folder/$target" | wc -l)" "$found"
[ "$status" -eq 0 ]
