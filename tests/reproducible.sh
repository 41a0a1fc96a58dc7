#!/bin/sh
# reproducible.sh FOLDER VERSION CFLAGS: the last commit is built in two folders, with what should not matter set otherwise (the paths, the order of
# jobs, language, time zone, umask, the user's environment): programs and library must be the same to the byte. Where they are not, says where.
folder=$1 version=$2 flags=$3
rm -rf "$folder"
# build NAME LANGUAGE ZONE MASK JOBS
build() {
    mkdir -p "$folder/$1" || exit 2
    git archive HEAD | tar -x -C "$folder/$1" || exit 2
    (umask "$4" && cd "$folder/$1" && env -u MAKEFLAGS -u MAKELEVEL -u MFLAGS -u BUILD LC_ALL="$2" TZ="$3" HOME="/nonexistent/$1" USER="$1" \
        make -s -j"$5" VERSION="$version" CFLAGS="$flags" all build/libgemma4.a >/dev/null) || { echo "reproducible: $1 does not build" >&2; exit 2; }
}
build one C UTC 022 1
build a-longer-name/with-another-one C.UTF-8 Pacific/Auckland 077 2
status=0
for file in gemma4-ref gemma4-check libgemma4.a; do
    one=$folder/one/build/$file other=$folder/a-longer-name/with-another-one/build/$file
    if cmp "$one" "$other"; then
        echo "$file: $(sha256sum <"$one" | cut -c1-64)"
    else
        status=1
        strings -a "$one" | grep -F "$folder" | head -3
    fi
done
[ $status -eq 0 ] && echo "reproducible: the same bytes in both folders"
exit $status
