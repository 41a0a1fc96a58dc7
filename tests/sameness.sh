#!/bin/sh
# sameness.sh BUILD [BUILD ...]: the same dump gives the same report, to the byte, whatever the run, the number of threads, the processor's
# instructions, the locale, the umask, the folder and the build. Compared are the terminal's text, the JSON and JUnit files and the status.
set -u
first=$1
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
bad=0 runs=0

# judge NAME BUILD CASE DUMP [VARIABLE=VALUE ...]
judge() {
    name=$1 build=$2 case=$3 dump=$4
    shift 4 # what is left: variables
    rm -rf "$work/now"
    mkdir "$work/now"
    env "$@" "$build/gemma4-check" "$case" "$dump" --json "$work/now/json" --junit "$work/now/junit" --html "$work/now/html" >"$work/now/text" 2>"$work/now/err"
    echo $? >"$work/now/status"
    runs=$((runs + 1))
    if [ ! -d "$work/$case" ]; then
        mv "$work/now" "$work/$case"
    elif ! diff -r -q "$work/$case" "$work/now" >/dev/null; then
        bad=$((bad + 1))
        echo "$case $dump, $name: differs"
        diff -r "$work/$case" "$work/now" | head -5
    fi
}

for pair in tiny-prompt:golden/dumps/tiny-prompt-bfloat16.h5 tiny-chunks:golden/dumps/tiny-chunks-bfloat16.h5 \
    moe128-prompt:golden/dumps/moe128-prompt-bfloat16.h5 tiny-prompt:golden/dumps/tiny-prompt-rope-pairing-contiguous.h5; do
    case=${pair%%:*} dump=${pair#*:}
    rm -rf "$work/$case"
    judge "the first run" "$first" "$case" "$dump" OMP_NUM_THREADS=1 LC_ALL=C
    judge "the same again" "$first" "$case" "$dump" OMP_NUM_THREADS=1 LC_ALL=C
    judge "7 threads" "$first" "$case" "$dump" OMP_NUM_THREADS=7
    for cpu in scalar avx2 avx512 neon; do
        GEMMA4_CPU=$cpu "$first/gemma4-check" --version >/dev/null 2>&1 && judge "$cpu" "$first" "$case" "$dump" GEMMA4_CPU=$cpu
    done
    for locale in $(locale -a 2>/dev/null | grep -v '^C$' | head -3); do
        judge "locale $locale" "$first" "$case" "$dump" LC_ALL="$locale"
    done
    umask 077
    judge "umask 077" "$first" "$case" "$dump" TZ=Asia/Tokyo
    umask 000
    judge "umask 000" "$first" "$case" "$dump" HOME=/nonexistent
    umask 022
    for build in "$@"; do
        [ "$build" = "$first" ] || judge "$build" "$build" "$case" "$dump" LC_ALL=C
    done
done
echo "sameness: $runs runs, $bad that differ"
[ "$bad" -eq 0 ]
