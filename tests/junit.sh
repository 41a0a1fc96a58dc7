#!/bin/sh
# JUnit reports of every kind against tests/junit.xsd, which holds what GitLab and Jenkins document. Usage: junit.sh BUILD
build=$1
command -v xmllint >/dev/null 2>&1 || { echo "tests/junit.sh: expected xmllint (sh tests/install.sh)"; exit 1; }
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

# expect STATUS NAME ARGUMENTS: the exit status is that one, and the report is what the schema says
expect() {
    wanted=$1 name=$2
    shift 2
    "$build/gemma4-check" "$@" --junit "$work/$name.xml" >/dev/null 2>&1
    found=$?
    [ $found -eq "$wanted" ] || { echo "junit: $name: expected exit status $wanted, found $found"; exit 1; }
    xmllint --noout --schema tests/junit.xsd "$work/$name.xml" 2>"$work/messages" || { echo "junit: $name:"; cat "$work/messages"; exit 1; }
}

dumps=golden/dumps
expect 0 conforms tiny-prompt $dumps/tiny-prompt-float32.h5
expect 1 diverges tiny-prompt $dumps/tiny-prompt-rope-pairing-contiguous.h5
"$build/gemma4-ref" dump --model golden/checkpoints/tiny --tokens 2 --taps logits --out "$work/logits.h5" || exit 1
expect 1 short tiny-one-token "$work/logits.h5" --require full
expect 2 unusable tiny-prompt "$work/none & <nothing>.h5"
mkdir "$work/several" "$work/several/again"
cp $dumps/tiny-prompt-float32.h5 $dumps/tiny-prompt-rope-pairing-contiguous.h5 golden/cases/tiny-one-token.h5 "$work/several"
cp $dumps/tiny-prompt-float32.h5 "$work/several/again"
printf 'format: gemma4-dumps\nversion: 1\ndumps:\n' >"$work/several/list.yaml"
for file in tiny-prompt-float32.h5 again/tiny-prompt-float32.h5 missing.h5; do
    echo "  - {file: $file, case: tiny-prompt}" >>"$work/several/list.yaml"
done
expect 2 list --manifest "$work/several/list.yaml"
expect 1 folder --manifest "$work/several"

# The schema refuses: a name twice, a count that is no number, an element that neither reads.
for change in 's/name="layers.1.attn.q"/name="layers.1.attn.k"/' 's/tests="[0-9]*"/tests="many"/' 's/<properties>/<properties><note\/>/'; do
    sed "$change" "$work/conforms.xml" >"$work/changed.xml"
    cmp -s "$work/conforms.xml" "$work/changed.xml" && { echo "junit: $change changes nothing"; exit 1; }
    xmllint --noout --schema tests/junit.xsd "$work/changed.xml" 2>/dev/null && { echo "junit: the schema lets pass $change"; exit 1; }
done
echo "junit: 6 reports are what tests/junit.xsd says, 3 changed ones are not"
