#!/bin/sh
# An archive of `make dist` in an empty root: no libraries, no /proc, nothing but what it holds. Usage: dist.sh ARCHIVE [EMULATOR]
# EMULATOR: a static qemu-user for another machine's archive.
archive=$1 emulator=$2
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
fail() { echo "dist: $*"; exit 1; }
tar -xzf "$archive" -C "$work" || fail "cannot unpack $archive"
root=$(echo "$work"/gemma4-*)
[ -x "$root/bin/gemma4-check" ] || fail "expected bin/gemma4-check in $archive"
mkdir "$root/tmp"
if [ -n "$emulator" ]; then
    cp "$emulator" "$root/emulator" || fail "no $emulator"
    emulator=/emulator
fi
if [ "$(id -u)" -eq 0 ]; then enter="chroot $root"; else enter="unshare --user --map-root-user chroot $root"; fi

# expect STATUS ARGUMENTS
expect() {
    wanted=$1
    shift
    $enter $emulator "$@" >"$work/out" 2>"$work/err"
    found=$?
    [ $found -eq "$wanted" ] || { cat "$work/err"; fail "$*: expected exit status $wanted, found $found"; }
}

expect 0 /bin/gemma4-check --version
expect 0 /bin/gemma4-ref facts
expect 0 /bin/gemma4-check list
expect 0 /bin/gemma4-check tiny-prompt golden/dumps/tiny-prompt-float32.h5 --require full
expect 1 /bin/gemma4-check tiny-prompt golden/dumps/tiny-prompt-rope-pairing-contiguous.h5
grep -q '^Cause: rope-pairing-contiguous' "$work/out" || fail "expected the cause rope-pairing-contiguous"
expect 0 /bin/gemma4-check moe128-prompt golden/dumps/moe128-prompt-bfloat16.h5 # whose checkpoint is generated
expect 0 /bin/gemma4-check tiny-prompt golden/dumps/tiny-prompt-transformers-debugger.safetensors --map transformers-debugger --dtype float32
mkdir "$root/tmp/several" && cp "$root"/golden/dumps/*.h5 "$root/tmp/several" # those that say which case they are of
expect 1 /bin/gemma4-check --manifest tmp/several --junit tmp/report.xml
expect 0 /bin/gemma4-ref dump --model golden/checkpoints/tiny --tokens 2 --out tmp/dump.h5 --cpu auto
expect 0 /bin/gemma4-check tiny-one-token tmp/dump.h5
echo "dist: $(basename "$archive") works in an empty root"
