#!/bin/sh
# coverage.sh BUILD OUT: runs the unit tests, which run the programs, and writes branch coverage file by file. Tests that fail are said.
# Each suite has a process and counters of its own: in one process for all, those of some suites were lost.
build=$1 out=$2
suffix= status=0
command -v llvm-cov >/dev/null 2>&1 || suffix=-14
rm -rf "$build/profiles"
mkdir -p "$build/profiles"
profiles=$(cd "$build/profiles" && pwd)
sed -n 's/.*suite_create("\(.*\)").*/\1/p' tests/unit/test_*.c | xargs -P "$(nproc)" -I NAME sh tests/coverage_suite.sh "$build" "$profiles" NAME || status=1
"llvm-profdata$suffix" merge -sparse -o "$build/all.profdata" "$profiles"/*/*.profraw || exit 2
"llvm-cov$suffix" export -skip-expansions -skip-functions -instr-profile="$build/all.profdata" "$build/unit-tests" -object "$build/gemma4-ref" \
    -object "$build/gemma4-check" >"$build/coverage.json" || exit 2
python3 tests/coverage.py "$build/coverage.json" "$build/uncovered.txt" >"$out" || exit 2
tail -16 "$out"
exit $status
