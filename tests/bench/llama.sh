#!/bin/sh
# gemma4-bench and llama.cpp's llama-bench side by side: the same weights, the same number of threads, alternating.
#   llama.sh BUILD CHECKPOINT LLAMA-BENCH FILE.gguf [THREADS [ROUNDS]]
# FILE.gguf comes from llama.cpp's own converter (make checkpoints installs it, golden/engines/checkpoints.sh calls it: --outtype bf16); llama-bench from the source of the PyPI package llama-cpp-python, vendor/llama.cpp:
#   cmake -B b -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF && cmake --build b --target llama-bench
build=$1
checkpoint=$2
llama=$3
gguf=$4
threads=${5:-1}
rounds=${6:-3}
# Both files lie in the system's cache in large pages, as far as the system can (spec/twins.md, "Memory"): gemma4-bench sees to its own.
dd if="$gguf" iflag=nocache count=0 status=none && cat "$gguf" >/dev/null
for round in $(seq "$rounds"); do
    echo "round $round, $threads threads: tokens/s of decode 32, prefill 32, 128, 512"
    printf '  gemma4    '
    "$build/gemma4-bench" --model "$checkpoint" --threads "$threads" --repeat 3 | sed -n 's/^[dp][a-z]* [0-9]*, .*: \([0-9.]*\) tokens.*/\1/p' | tr '\n' ' '
    printf '\n  llama.cpp '
    "$llama" -m "$gguf" -p 32,128,512 -n 32 -t "$threads" -r 3 -o csv 2>/dev/null | tail -n 4 | tr -d '"' |
        awk -F , '{ v[NR] = sprintf("%.1f", $(NF - 1)) } END { print v[4], v[1], v[2], v[3] }'
done
