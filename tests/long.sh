#!/bin/sh
# The case of many positions (spec/cases.md): does it show what it says, does a right engine conform on it, and are faulty ones named, at a
# position beyond the window? Minutes. Usage: long.sh BUILD
build=$1
id=window1024-long
golden=golden/checkpoints/window1024/config.json
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
fail() {
    cat "$work/report.txt"
    echo "long: $1"
    exit 1
}

"$build/gemma4-check" lint --long || exit 1
tokens=$("$build/gemma4-check" list $id | sed -n 's/^tokens *//p')

# An engine's dump: $1 its config.json, $2 the taps.
dump() {
    cp "$1" "$work/config.json"
    [ -f "$work/model.safetensors" ] || "$build/gemma4-ref" synth --preset window1024 --seed 5 --out "$work/right" >/dev/null || exit 1
    [ -f "$work/model.safetensors" ] || cp "$work/right/model.safetensors" "$work"
    "$build/gemma4-ref" dump --cpu auto --model "$work" --tokens "$tokens" --taps "$2" --out "$work/dump.h5" >/dev/null || exit 1
}

# All but scores and probabilities, of which there are 180 MB.
dump $golden '*[!eb]?'
"$build/gemma4-check" $id "$work/dump.h5" >"$work/report.txt" || fail "a right engine: expected exit status 0, found $?"
tail -n 1 "$work/report.txt" | grep -q '^CONFORMS$' || fail "a right engine: expected CONFORMS"
echo "long: a right engine conforms"

# $1: the engine's window, $2: taps, $3: where it diverges first, $4: what is said
faulty() {
    sed "s/\"sliding_window\": 1024/\"sliding_window\": $1/" $golden >"$work/faulty.json"
    dump "$work/faulty.json" "$2"
    "$build/gemma4-check" $id "$work/dump.h5" >"$work/report.txt"
    status=$?
    [ $status -eq 1 ] || fail "a window of $1: expected exit status 1, found $status"
    grep -q "^First divergence: $3\$" "$work/report.txt" || fail "a window of $1: expected the first divergence at $3"
    position=$(sed -n 's/^ *worst at position //p' "$work/report.txt" | head -n 1)
    [ "${position:-0}" -ge 1023 ] || fail "a window of $1: expected a position from 1,023, found '$position'"
    grep -q "^Cause: .*$4" "$work/report.txt" || fail "a window of $1: expected '$4'"
    echo "long: a window of $1 diverges first at $3, worst at position $position: $4"
}

faulty 1025 '*[!eb]?' layers.0.attn.context window-off-by-one-wide
faulty 1023 '*output' layers.0.output window-off-by-one-other
