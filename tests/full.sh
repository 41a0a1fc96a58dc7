#!/bin/sh
# Two layers at the true dimensions: transformers' activations (golden/full) and those of the scalar reference agree, and so do each
# twin's and the scalar's. Prints time, memory and disk. Usage: full.sh BUILD CHECKPOINT
build=$1
checkpoint=$2
golden=golden/full/26b-a4b-2.h5
tokens=2,17,4001,8191,77,1234
out=$build/full.h5
start=$(date +%s)
trap 'rm -f "$out"' EXIT

# The golden's attribute checkpoint_sha256, as golden/oracle/make_full.py wrote it.
expected=$(grep -a -o '[0-9a-f]\{64\}' $golden | head -n 1)
found=$(sha256sum <"$checkpoint/model.safetensors" | cut -d ' ' -f 1)
[ -n "$expected" ] && [ "$found" = "$expected" ] || { echo "full: $checkpoint/model.safetensors: expected sha256 $expected, found $found"; exit 1; }

# $1: what it is, $2: the dump
conforms() {
    "$build/gemma4-check" --model "$checkpoint" "$2" >"$build/full.txt" || { cat "$build/full.txt"; echo "full: $1: does not conform"; exit 1; }
    echo "full: $1: conforms, $(($(date +%s) - start)) s so far"
}

conforms "transformers float32" $golden
for cpu in avx2 avx512 neon; do
    "$build/gemma4-ref" dump --cpu $cpu --model "$checkpoint" --tokens $tokens --taps '*[!s]' --out "$out" 2>"$build/full.txt" || {
        grep -q 'instruction set of this machine' "$build/full.txt" && continue
        cat "$build/full.txt"
        exit 1
    }
    conforms "$cpu twin" "$out"
done
"$build/gemma4-ref" run --cpu auto --model "$checkpoint" --tokens $tokens --stream yes
echo "full: checkpoint $(du -m "$checkpoint/model.safetensors" | cut -f 1) MB of disk, $(($(date +%s) - start)) s"
