#!/bin/sh
# run.sh PROGRAM SECONDS FOLDER: every fuzzer for so long, as many at a time as there are processors, each beginning with its seeds and what earlier
# runs left in FOLDER. Prints executions and coverage; what fails is kept in FOLDER/TARGET.found, and makes the status 1.
program=$1 seconds=$2 folder=$3
here=$(dirname "$0")
targets="document config manifest map dump-list tokens options safetensors activations npy npz foreign import folders names gguf index hdf5 hdf5-foreign ladder ladder-groups hdf5-ladder judge"
mkdir -p "$folder"
rm -f "$folder"/*.log
printf '%-14s %12s %10s %10s %10s\n' target executions per_second edges inputs
printf '%s\n' $targets | xargs -P "$(nproc)" -n 1 sh "$here/one.sh" "$program" "$seconds" "$folder"
failed=$?
total=$(sed -n 's/^stat::number_of_executed_units: *//p' "$folder"/*.log | awk '{ sum += $1 } END { print sum + 0 }')
all=$(sed -n 's/.*Loaded 1 modules *(\([0-9]*\) inline.*/\1/p' "$folder/document.log" | head -1)
echo "$total executions; the program has ${all:-?} edges; targets with findings: $(grep -l '^FOUND$' "$folder"/*.log | wc -l)"
[ "$failed" -eq 0 ]
