#!/bin/sh
# The dumps of golden/engines/example.c, which writes them with golden/engines/gemma4_dump.h, must conform: whole, in chunks and a token at a time.
# Usage: header.sh BUILD
build=$1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
tokens=$(sed -n 's/^tokens: \[\(.*\)\]$/\1/p' golden/cases/tiny-prompt.yaml | tr -d ' ')
for chunk in 12 5 1; do
    "$build/dump-example" golden/checkpoints/tiny "$tokens" $chunk "$work/dump.safetensors" || exit 1
    "$build/gemma4-check" tiny-prompt "$work/dump.safetensors" --require layers >"$work/report" || { cat "$work/report"; exit 1; }
    grep -q '^CONFORMS$' "$work/report" || { echo "header: expected CONFORMS, found:"; cat "$work/report"; exit 1; }
done
"$build/dump-example" golden/checkpoints/tiny "$tokens" 13 "$work/none.safetensors" 2>/dev/null && { echo "header: expected a failure"; exit 1; }
[ ! -e "$work/none.safetensors" ] || { echo "header: expected no file"; exit 1; }
echo "header: three dumps of the example conform"
