#!/bin/sh
# threads.sh BUILD: what runs in threads (the twins' operators, reading ahead, gemma4-check's runs of long dumps, its search for a cause, and its
# comparison of two dumps) under ThreadSanitizer. BUILD is made with clang -fsanitize=thread. clang's libomp is not instrumented either; its tool
# Archer tells the sanitizer who waits for whom. That both are at work is seen first: a race that is planted must be found, and a loop without one
# must be silent.
build=$1
folder=$build/threads-check
mkdir -p "$folder"
export OMP_NUM_THREADS=4 OMP_WAIT_POLICY=passive
export TSAN_OPTIONS="halt_on_error=1:exitcode=66:ignore_noninstrumented_modules=1"

archer=
for library in "$(dirname "$(${CC:-clang} -print-file-name=libomp.so)")/libarcher.so" /usr/lib/llvm-*/lib/libarcher.so; do
    [ -f "$library" ] && archer=$library && break
done
[ "$archer" ] || { echo "threads: libarcher.so is missing: sh tests/install.sh threads" >&2; exit 2; }
export OMP_TOOL_LIBRARIES="$archer"

cat >"$folder/race.c" <<'END'
#include <stdio.h>
int main(int argc, char **argv)
{
    static int sums[1000];
    int sum = 0;
    (void)argv;
#pragma omp parallel for
    for (int i = 0; i < 1000; i++)
        sums[argc > 1 ? 0 : i] += i;
    for (int i = 0; i < 1000; i++)
        sum += sums[i];
    return printf("%d\n", sum) < 0;
}
END
${CC:-clang} -O1 -g -fopenmp -fsanitize=thread -o "$folder/race" "$folder/race.c" || exit 2
"$folder/race" planted >/dev/null 2>&1
[ $? -eq 66 ] || { echo "threads: a race that was planted is not found" >&2; exit 1; }
ARCHER_OPTIONS=verbose=1 "$folder/race" >"$folder/race.txt" 2>&1 || { cat "$folder/race.txt"; echo "threads: a loop without a race is reported" >&2; exit 1; }
grep -q "Archer detected OpenMP application with TSan" "$folder/race.txt" || { echo "threads: Archer does not work with $archer" >&2; exit 1; }
echo "a planted race is found, a loop without one is silent"

"$build/gemma4-twins" >"$folder/twins.txt" 2>&1 || { grep -v "^passed\|^fails" "$folder/twins.txt" | head -60; echo "threads: gemma4-twins" >&2; exit 1; }
tail -1 "$folder/twins.txt"

# run WHAT STATUS COMMAND...: no word of the sanitizer, and that status.
run() {
    what=$1 expected=$2
    shift 2
    "$@" >"$folder/out" 2>&1
    status=$?
    if [ "$status" -ne "$expected" ] || grep -q "ThreadSanitizer" "$folder/out"; then
        tail -60 "$folder/out"
        echo "threads: $what: status $status, expected $expected" >&2
        exit 1
    fi
    echo "$what: status $status, no race"
}
model=golden/checkpoints/tiny
tokens=2,197,214,34,153,23,76,115,13,151,249,242
for cpu in $(sed -n 's/^passed .*_\([a-z0-9]*\):.*/\1/p' "$folder/twins.txt" | sort -u); do
    run "forward pass, $cpu" 0 "$build/gemma4-ref" dump --model $model --tokens $tokens --cpu "$cpu" --out "$folder/$cpu.h5"
done
# A thread reads the next layer's weights meanwhile (ref/stream.c).
run "forward pass, layer by layer" 0 "$build/gemma4-ref" run --model $model --tokens $tokens --decode 2 --stream yes
# Mistakes that the catalogue does not have: threads share the looks for what they are.
try() {
    rm -rf "$folder/model"
    cp -R $model "$folder/model"
    sed "s/$2/$3/" $model/config.json >"$folder/model/config.json"
    cmp -s $model/config.json "$folder/model/config.json" && { echo "threads: $2 is not in $model/config.json" >&2; exit 2; }
    run "$1, dump" 0 "$build/gemma4-ref" dump --model "$folder/model" --tokens $tokens --out "$folder/wrong.h5"
    run "$1, search" 1 "$build/gemma4-check" tiny-prompt "$folder/wrong.h5"
}
try "another epsilon" '"rms_norm_eps": 1e-06' '"rms_norm_eps": 0.01'
try "another base of the angles" '"rope_theta": 1000000.0' '"rope_theta": 1700000.0'
# So many positions that a block's runs are dealt out to threads (THREADED in tests/check/block_batch.c): their hooks, and their attention.
long=$(awk 'BEGIN { for (i = 0; i < 320; i++) printf "%s%d", i ? "," : "", 2 + i * 37 % 250 }')
run "320 positions, dump" 0 "$build/gemma4-ref" dump --model $model --tokens "$long" --taps 'layers.*.output' --out "$folder/long.h5"
run "320 positions, check" 0 "$build/gemma4-check" --model $model "$folder/long.h5"
run "two dumps compared" 1 "$build/gemma4-check" compare golden/dumps/tiny-prompt-bfloat16.h5 golden/cases/tiny-prompt.h5
