#!/bin/sh
# memory.sh BUILD FOUND: the twins, and every fuzz target that calls no library but libyaml and zlib, under MemorySanitizer: on the seeds, what
# ever failed, and what `make fuzz` has left in FOUND. BUILD is made with clang -fsanitize=memory. libhdf5 and libcrypto are not instrumented and too
# large to say what they write: the targets of HDF5, of manifests and of the ladder, and checks as a whole, are left out.
build=$1 found=$2
here=$(dirname "$0")/fuzz
bad=0 total=0
export MSAN_OPTIONS=halt_on_error=1:exit_code=77
"$build/gemma4-twins" >"$build/twins.txt" 2>&1 || { grep -v "^passed\|^fails" "$build/twins.txt" | head -40; echo "memory: gemma4-twins" >&2; exit 1; }
tail -1 "$build/twins.txt"
for target in document config map dump-list tokens options safetensors activations npy npz foreign import folders names gguf index; do
    folders=
    for folder in "$here/corpus/$target" "$here/regressions/$target" "$found/$target"; do
        [ -d "$folder" ] && folders="$folders $folder"
    done
    if FUZZ_TARGET=$target "$build/fuzzer" -runs=0 -timeout=60 -artifact_prefix="$build/$target." $folders >"$build/$target.log" 2>&1; then
        inputs=$(sed -n 's/.*INFO: seed corpus: files: \([0-9]*\).*/\1/p' "$build/$target.log")
        total=$((total + ${inputs:-0}))
    else
        bad=$((bad + 1))
        echo "$target: FOUND, see $build/$target.log"
    fi
done
echo "memory: $total inputs, $bad targets with findings"
[ "$bad" -eq 0 ] && [ "$total" -ge 16 ]
