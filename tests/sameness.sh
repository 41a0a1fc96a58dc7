#!/bin/sh
# sameness.sh BUILD [BUILD ...]: the same dump gives the same report, to the byte, whatever the run, the number of threads, the processor's
# instructions, the locale, the umask, the folder and the build. Compared are the terminal's text, the JSON, JUnit and HTML files and the status.
set -u
first=$1
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
bad=0 runs=0

# judge NAME BUILD [VARIABLE=VALUE ...]: $words, which the first run of them is the measure for.
judge() {
    name=$1 build=$2
    shift 2 # what is left: variables
    rm -rf "$work/now"
    mkdir "$work/now"
    env "$@" "$build/gemma4-check" $words >"$work/now/text" 2>"$work/now/err"
    echo $? >"$work/now/status"
    runs=$((runs + 1))
    if [ ! -d "$work/first" ]; then
        mv "$work/now" "$work/first"
    elif ! diff -r -q "$work/first" "$work/now" >/dev/null; then
        bad=$((bad + 1))
        echo "$words, $name: differs"
        diff -r "$work/first" "$work/now" | head -5
    fi
}

dumps=golden/dumps
reports="--json $work/now/json --junit $work/now/junit --html $work/now/html"
while read -r words; do
    words=$(eval "echo $words")
    rm -rf "$work/first"
    judge "the first run" "$first" OMP_NUM_THREADS=1 LC_ALL=C
    case $(cat "$work/first/status") in 0 | 1) ;; *) cat "$work/first/err" && bad=$((bad + 1)) ;; esac
    judge "the same again" "$first" OMP_NUM_THREADS=1 LC_ALL=C
    judge "7 threads" "$first" OMP_NUM_THREADS=7
    for cpu in scalar avx2 avx512 neon; do
        GEMMA4_CPU=$cpu "$first/gemma4-check" --version >/dev/null 2>&1 && judge "$cpu" "$first" GEMMA4_CPU=$cpu
    done
    for locale in $(locale -a 2>/dev/null | grep -v '^C$' | head -3); do
        judge "locale $locale" "$first" LC_ALL="$locale"
    done
    umask 077
    judge "umask 077" "$first" TZ=Asia/Tokyo
    umask 000
    judge "umask 000" "$first" HOME=/nonexistent
    umask 022
    for build in "$@"; do
        [ "$build" = "$first" ] || judge "$build" "$build" LC_ALL=C
    done
done <<'END'
tiny-prompt $dumps/tiny-prompt-bfloat16.h5 $reports
tiny-chunks $dumps/tiny-chunks-bfloat16.h5 $reports
moe128-prompt $dumps/moe128-prompt-bfloat16.h5 $reports
tiny-prompt $dumps/tiny-prompt-rope-pairing-contiguous.h5 $reports
tiny-prompt $dumps/tiny-prompt-transformers-debugger.safetensors --map transformers-debugger --dtype float32 $reports
names $dumps/tiny-prompt-transformers-debugger.safetensors --case tiny-prompt
compare $dumps/tiny-prompt-float32.h5 $dumps/tiny-prompt-bfloat16.h5 --json $work/now/json
self-test --case tiny-prompt --cause v-norm-missing --tier bfloat16 --seeds 1
END
echo "sameness: $runs runs, $bad that differ"
[ "$bad" -eq 0 ]
