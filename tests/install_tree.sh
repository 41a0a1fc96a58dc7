#!/bin/sh
# `make install` into an empty place, from there a check of a case and of one whose checkpoint is generated, a program that links the library, and `make
# uninstall`, which must leave nothing. Usage: install_tree.sh BUILD PREFIX
build=$1 prefix=$2
unset MAKEFLAGS MAKELEVEL GEMMA4_DATA
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
fail() { echo "install: $*"; exit 1; }
root=$PWD
make -s BUILD="$build" PREFIX="$prefix" DESTDIR="$work/root" install || fail "make install"
bin=$work/root$prefix/bin
(
    cd "$work" && export XDG_CACHE_HOME="$work/cache" || exit 1
    "$bin/gemma4-check" list >list.txt || fail "gemma4-check list finds no case"
    grep -q '^tiny-prompt ' list.txt || fail "expected tiny-prompt in the list of cases"
    "$bin/gemma4-check" tiny-prompt "$root/golden/dumps/tiny-prompt-float32.h5" >report.txt || fail "expected status 0, found $?"
    "$bin/gemma4-check" moe128-prompt "$root/golden/dumps/moe128-prompt-bfloat16.h5" >report.txt || fail "expected status 0, found $?"
    [ -s "$work/cache/gemma4/checkpoints/moe128/model.safetensors" ] || fail "expected a generated checkpoint in the cache"
    GEMMA4_DATA=$work/nowhere "$bin/gemma4-check" list >none.txt 2>&1
    [ $? -eq 2 ] || fail "expected status 2 where GEMMA4_DATA holds no cases"
) || exit 1
cat >"$work/program.c" <<'END'
#include <gemma4/facts.h>
#include <stdio.h>
int main(void)
{
    gemma4_config c;
    gemma4_error error = {""};
    if (gemma4_published_config(&c, &error))
        return 1;
    printf("%zu\n", c.num_hidden_layers);
    gemma4_config_free(&c);
    return 0;
}
END
flags=$(PKG_CONFIG_SYSROOT_DIR="" PKG_CONFIG_PATH="$work/root$prefix/lib/pkgconfig" pkg-config --define-variable=prefix="$work/root$prefix" --cflags --libs gemma4) ||
    fail "pkg-config does not know gemma4"
${CC:-cc} -o "$work/program" "$work/program.c" $flags $SANITIZE || fail "a program does not link with $flags"
[ "$("$work/program")" = 30 ] || fail "expected the published model's 30 layers"
make -s BUILD="$build" PREFIX="$prefix" DESTDIR="$work/root" uninstall || fail "make uninstall"
left=$(find "$work/root" ! -type d)
[ -z "$left" ] || fail "left behind: $left"
echo "install: cases are found, a checkpoint is generated in the cache, a program links, nothing is left"
