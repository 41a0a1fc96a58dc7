#!/bin/sh
# coverage_suite.sh BUILD FOLDER SUITE: one suite of the unit tests, for coverage.sh; its counters are left in FOLDER/SUITE.
mkdir -p "$2/$3"
GEMMA4_BUILD=$1 CK_RUN_SUITE=$3 LLVM_PROFILE_FILE="$2/$3/%m%c.profraw" "$1/unit-tests" >"$2/$3/said" 2>&1 && exit 0
echo "coverage: a test of $3 fails: $2/$3/said" >&2
exit 1
