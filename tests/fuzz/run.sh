#!/bin/sh
# run.sh PROGRAM SECONDS FOLDER: every fuzzer for its share of the time, each beginning with its seeds and what earlier runs left in FOLDER.
# Prints executions and coverage; what fails is kept in FOLDER/TARGET.found, and makes the status 1.
program=$1 seconds=$2 folder=$3
here=$(dirname "$0")
repository=$here/../..
targets="document config manifest map dump-list tokens options safetensors activations npy npz foreign import folders names gguf index hdf5 hdf5-foreign ladder ladder-groups hdf5-ladder judge"
share=$((seconds / $(echo "$targets" | wc -w)))
[ "$share" -ge 1 ] || share=1
bad=0 total=0
mkdir -p "$folder"
# One process: children of the reader must not wait for a leak checker. What is allocated at once is limited: small inputs ask for little.
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=0:max_allocation_size_mb=1024:handle_abort=2
printf '%-12s %12s %10s %10s %10s\n' target executions per_second edges inputs
for target in $targets; do
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
    if ! FUZZ_TARGET=$target "$program" -max_total_time="$share" -max_len=20000 -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 -seed=1 \
        -dict="$here/dictionaries/$dictionary.dict" -artifact_prefix="$folder/$target.found/" "$folder/$target" $seeds >"$log" 2>&1; then
        bad=$((bad + 1))
        echo "$target: FOUND, see $log and $folder/$target.found"
    fi
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    edges=$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$log" | tail -1)
    printf '%-12s %12s %10s %10s %10s\n' "$target" "${executions:-?}" "${rate:-?}" "${edges:-?}" "$(ls "$folder/$target" | wc -l)"
    total=$((total + ${executions:-0}))
done
all=$(sed -n 's/.*Loaded 1 modules *(\([0-9]*\) inline.*/\1/p' "$folder/document.log" | head -1)
echo "$total executions; the program has ${all:-?} edges; $bad targets with findings"
[ "$bad" -eq 0 ]
