#!/bin/sh
# Every checkpoint in every form that loaders take:   checkpoints.sh BUILD [PYTHON]
#   BUILD/checkpoints/NAME             config.json, model.safetensors, tokenizer: the checkpoints of golden/cases
#   BUILD/checkpoints/tiny-published   tiny in three shards with an index, and a vision tower beside, as published
#   BUILD/checkpoints/gguf/NAME.TYPE.gguf   with PYTHON, which has golden/engines/llama.cpp/requirements.txt: by llama.cpp's own converter
set -e
build=$1
python=$2
awk '/^checkpoint:/ { inside = 1 } inside && /^  name:/ { name = $2 } inside && /^  preset:/ { preset = $2 }
     inside && /^  seed:/ { print name, preset, $2; inside = 0 }' golden/cases/*.yaml | sort -u | while read -r name preset seed; do
    cmp -s "golden/checkpoints/$name/config.json" "$build/checkpoints/$name/config.json" && [ -f "$build/checkpoints/$name/tokenizer.json" ] ||
        "$build/gemma4-ref" synth --preset "$preset" --seed "$seed" --out "$build/checkpoints/$name"
    echo "$build/checkpoints/$name"
done
[ -f "$build/checkpoints/tiny-published/config.json" ] ||
    "$build/gemma4-ref" synth --preset tiny --seed 3 --shards 3 --vision yes --out "$build/checkpoints/tiny-published"
echo "$build/checkpoints/tiny-published"
[ -z "$python" ] || "$python" golden/engines/to_gguf.py "$build/checkpoints"
