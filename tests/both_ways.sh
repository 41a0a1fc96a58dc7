#!/bin/sh
# both_ways.sh BUILD [EVERY PYTHON]: no report depends on which operators it was computed with. Dumps are judged with the fastest of this machine,
# with the scalar ones and, where there is AVX-512, with AVX2's (both_ways_check.sh). The dumps: those that are committed, of each case one of
# gemma4-ref's twin, and the logits of another soft-cap; with PYTHON, that of build/oracle, also those of every EVERY-th run of make identify,
# planted, pairs and honest, whose own rates do not count here. Prints how many reports were compared; status 0 if none differs, and each line
# has some.
set -u
build=$1 every=${2-} python=${3-}
out=$build/both-ways
rm -rf "$out"
mkdir -p "$out/dumps" || exit 2
cpus=scalar
GEMMA4_CPU=avx512 "$build/gemma4-check" --version >/dev/null 2>&1 && cpus="scalar avx2"
export BOTH_WAYS_CHECK="$build/gemma4-check" BOTH_WAYS_CPUS="$cpus" BOTH_WAYS_OUT="$out" OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
bad=0

# check ARGUMENTS ...: of gemma4-check
check() {
    sh tests/both_ways_check.sh "$@" --json "$out/report" >/dev/null
}
# count WHAT: what the log has, in a row; and a new log
count() {
    touch "$out/log"
    same=$(grep -c '^same [01]$' "$out/log") differ=$(grep -c '^differs' "$out/log") unjudged=$(grep -c '^same 2$' "$out/log")
    printf '%-10s %8d %7d %11d\n' "$1" $((same + differ)) "$differ" "$unjudged"
    grep '^differs' "$out/log"
    [ "$same" -gt 0 ] && [ "$differ" -eq 0 ] && [ "$unjudged" -eq 0 ] || bad=1
    rm -f "$out/log"
}

# A checker whose report says which operators it used must be found.
printf '#!/bin/sh\nfor report in "$@"; do :; done\necho "$GEMMA4_CPU" >"$report"\n' >"$out/says"
chmod +x "$out/says"
(
    BOTH_WAYS_CHECK=$out/says
    check tiny-prompt golden/dumps/tiny-prompt-float32.h5 2>/dev/null
    [ $? -eq 3 ]
) || { echo "both_ways.sh: two reports that differ were not found to differ" >&2; exit 2; }
rm -rf "$out/log" "$out"/differs-*

echo "dumps      reports  differ  not judged   (the fastest operators against: $cpus)"
# The first use of a checkpoint that is not committed generates it.
"$build/gemma4-check" agreement >"$out/agreement.txt" || { cat "$out/agreement.txt"; exit 2; }
for manifest in golden/cases/*.yaml; do
    ! grep -q "flag: many-positions" "$manifest" || continue # takes minutes
    case=$(basename "$manifest" .yaml)
    for dump in golden/dumps/"$case"-*.h5; do
        [ ! -e "$dump" ] || check "$case" "$dump"
    done
    dump=golden/dumps/$case-transformers-debugger.safetensors
    [ ! -e "$dump" ] || check "$case" --map transformers-debugger --dtype float32 "$dump"
    "$build/gemma4-check" list "$case" >"$out/case" || exit 2
    model=golden/checkpoints/$(sed -n 's/^checkpoint *//p' "$out/case")
    [ -f "$model/model.safetensors" ] || model=build/checkpoints/$(basename "$model")
    "$build/gemma4-ref" dump --cpu auto --model "$model" --tokens "$(sed -n 's/^tokens *//p' "$out/case")" \
        --first-position "$(sed -n 's/^positions *\([0-9]*\).*/\1/p' "$out/case")" --out "$out/dumps/$case.h5" || exit 2
    check "$case" "$out/dumps/$case.h5"
done
# A number that is solved for over whole layers: the report has it in nine digits.
mkdir "$out/model"
ln -s "$PWD/golden/checkpoints/tiny/model.safetensors" "$out/model/model.safetensors"
sed 's/\("final_logit_softcapping": \)30\.0/\122.0/' golden/checkpoints/tiny/config.json >"$out/model/config.json"
"$build/gemma4-ref" dump --model "$out/model" --tokens 2,197,214,34,153,23,76,115,13,151,249,242 --taps logits --out "$out/dumps/softcap.h5" || exit 2
check tiny-prompt "$out/dumps/softcap.h5"
grep -q '"final_logit_softcapping".*"interval": \[2[12]\.' "$out/report" || { echo "both_ways.sh: no number was solved for" >&2; bad=1; }
count cases
for program in ${python:+identify planted pairs honest}; do
    "$python" -u "golden/oracle/$program.py" --check tests/both_ways_check.sh --sample "$every" --out "$out/dumps" >"$out/$program.txt" 2>&1
    count "$program"
done
exit $bad
