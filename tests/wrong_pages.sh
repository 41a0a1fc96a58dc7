#!/bin/sh
# Part of make check: a page on which one number, one name or one command is wrong fails the tests. Works on a copy of the pages; make
# wrong-pages (tests/wrong_pages.py) changes many more, chosen at random.
build=$(cd "$1" && pwd) || exit 1
tree=$build/wrong-pages
rm -rf "$tree"
mkdir -p "$tree"
for name in *; do
    case $name in README.md | spec) cp -R "$name" "$tree" ;; *) ln -s "$PWD/$name" "$tree/$name" ;; esac
done

# A page, what it says, what it is to say, and the unit suite that must notice.
while IFS='|' read -r page right wrong suite; do
    grep -qF -- "$right" "$page" || { echo "tests/wrong_pages.sh: $page no longer says \"$right\"" >&2; exit 1; }
    awk -v right="$right" -v wrong="$wrong" '{
        at = done ? 0 : index($0, right)
        if (at) { $0 = substr($0, 1, at - 1) wrong substr($0, at + length(right)); done = 1 }
        print
    }' "$page" >"$tree/$page"
    if (cd "$tree" && GEMMA4_BUILD=$build CK_RUN_SUITE=$suite "$build/unit-tests") >"$tree/log" 2>&1; then
        echo "tests/wrong_pages.sh: $page says \"$wrong\" for \"$right\", and the unit suite $suite does not notice" >&2
        exit 1
    fi
    grep -q ':[FE]:' "$tree/log" || { echo "tests/wrong_pages.sh: the unit suite $suite failed without a test that did" >&2; exit 1; }
    cp "$page" "$tree/$page"
done <<'END'
README.md|12 layers, 16 experts|13 layers, 16 experts|quotes
README.md|worst element  position 8|worst element  position 9|quotes
README.md|(30 seconds)|(20 seconds)|numbers
README.md|layers.5.attn.q_rope|layers.5.attn.q_rotated|quotes
README.md|make check-full|make full-check|pages
README.md|--html FILE|--htm FILE|pages
README.md|f["logits"]|f["logit"]|quotes
spec/model.md|25,233,141,790|25,233,141,791|quotes
spec/model.md|0.044715|0.044751|numbers
spec/model.md|attn.k_norm|attn.knorm|quotes
spec/model.md|gemma4-ref facts --model|gemma4-ref facts --models|pages
spec/walkthrough.md|-0.1836|-0.1837|walkthrough
spec/synth.md|16 / 32|16 / 64|spec
spec/diagnosis.md|-->332 runs|-->333 runs|pages
END
echo "wrong pages are noticed: numbers, names and commands in README.md and spec/"
