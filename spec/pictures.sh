#!/bin/sh
# Draws the pictures of spec/walkthrough.md: sh spec/pictures.sh [FOLDER]. Without FOLDER, where they are committed. A unit test
# (tests/unit/test_walkthrough.c) draws them anew and compares: change this script, not a picture.
folder=${1:-spec/pictures}
mkdir -p "$folder" || exit 1

# What all have in common: text(x, y, class, text), box(x, y, width, height, class), the file's beginning and end. Colours are chosen for
# light and dark pages alike: the ground is white in both.
common='
function begin(width, height, title) {
    printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" role=\"img\">\n", width, height, width, height
    printf "<title>%s</title>\n<style>\n", title
    print "text { font: 12px sans-serif; fill: #222 } .tap { font: 12px monospace } .head { font-weight: bold } .small { font-size: 11px; fill: #555 }"
    print "rect { stroke: #555; fill: #fff } .op { fill: #eef2f8 } .sees { fill: #4c78a8 } .not { fill: #f2f2f2 } .turns { fill: #f2b56b } .mid { text-anchor: middle }"
    print "line, path { stroke: #555; fill: none } .stream { stroke: #b03a2e; stroke-width: 3 }\n</style>"
    printf "<rect width=\"%d\" height=\"%d\" style=\"stroke: none\"/>\n", width, height
}
function end() { print "</svg>" }
function text(x, y, class, t) { printf "<text x=\"%g\" y=\"%g\" class=\"%s\">%s</text>\n", x, y, class, t }
function box(x, y, w, h, class) { printf "<rect x=\"%g\" y=\"%g\" width=\"%g\" height=\"%g\" class=\"%s\"/>\n", x, y, w, h, class }
function line(x1, y1, x2, y2, class) { printf "<line x1=\"%g\" y1=\"%g\" x2=\"%g\" y2=\"%g\" class=\"%s\"/>\n", x1, y1, x2, y2, class }
function arrow(x, y, class) { printf "<path d=\"M%g %g l-4 -7 h8 z\" style=\"fill: #555\" class=\"%s\"/>\n", x, y, class }
'

# --- the dataflow of a layer: steps in boxes, the tap that each leaves to the right of it ---
#
# A line is: column, row, step, tap. A step reads what stands above it in its column. The residual stream is column 0.
awk -F'|' "$common"'
function x_of(column) { return 20 + column * 215 }
function y_of(row) { return 46 + row * 40 }
BEGIN {
    begin(880, 975, "Dataflow of one layer, with the names of the taps")
    text(20, 24, "head", "One layer: steps in boxes, what each leaves (its tap) under the step. The residual stream is red.")
    line(x_of(0) + 90, y_of(0) + 30, x_of(0) + 90, y_of(22), "stream")
}
{
    x = x_of($1)
    y = y_of($2)
    if ($1 > 0 && !(($1, $2 - 1) in seen))
        top[$1, $2] = 1
    seen[$1, $2] = 1
    if (!(($1, $2) in top) && $1 > 0) {
        line(x + 90, y - 10, x + 90, y)
        arrow(x + 90, y)
    }
    box(x, y, 180, 30, "op")
    text(x + 90, y + 13, "mid", $3)
    text(x + 90, y + 26, "tap mid", $4)
}
# What a column begins and ends with: lines from and to the stream.
function from_stream(column, row) {
    line(x_of(0) + 90, y_of(row) - 5, x_of(column) + 90, y_of(row) - 5)
    line(x_of(column) + 90, y_of(row) - 5, x_of(column) + 90, y_of(row))
    arrow(x_of(column) + 90, y_of(row))
}
function joins(column, from, row) {
    line(x_of(column) + 90, y_of(from) + 30, x_of(column) + 90, y_of(row) - 5)
    line(x_of(0) + 90, y_of(row) - 5, x_of(column) + 90, y_of(row) - 5)
}
END {
    from_stream(1, 1)
    line(x_of(1) + 90, y_of(2) - 5, x_of(3) + 90, y_of(2) - 5)
    for (c = 2; c <= 3; c++) {
        line(x_of(c) + 90, y_of(2) - 5, x_of(c) + 90, y_of(2))
        arrow(x_of(c) + 90, y_of(2))
    }
    line(x_of(2) + 90, y_of(4) + 30, x_of(2) + 90, y_of(5) + 15)   # k_rope to scores
    line(x_of(2) + 90, y_of(5) + 15, x_of(1) + 180, y_of(5) + 15)
    line(x_of(3) + 90, y_of(3) + 30, x_of(3) + 90, y_of(7) + 15)   # v_norm to context
    line(x_of(3) + 90, y_of(7) + 15, x_of(1) + 180, y_of(7) + 15)
    joins(1, 9, 10)
    for (c = 1; c <= 3; c++)
        from_stream(c, 11)
    line(x_of(2) + 90, y_of(16) + 30, x_of(2) + 90, y_of(16) + 38) # weights to the sum over experts
    line(x_of(2) + 90, y_of(16) + 38, x_of(3) + 40, y_of(16) + 38)
    line(x_of(3) + 40, y_of(16) + 38, x_of(3) + 40, y_of(17))
    arrow(x_of(3) + 40, y_of(17))
    line(x_of(3) + 90, y_of(12) + 30, x_of(3) + 90, y_of(17))      # act to out
    arrow(x_of(3) + 90, y_of(17))
    line(x_of(2) + 180, y_of(14) + 15, x_of(3) - 10, y_of(14) + 15) # the chosen ids to the experts
    line(x_of(3) - 10, y_of(14) + 15, x_of(3) - 10, y_of(12) + 15)
    line(x_of(3) - 10, y_of(12) + 15, x_of(3), y_of(12) + 15)
    line(x_of(1) + 90, y_of(16) + 30, x_of(1) + 90, y_of(19) - 5)  # mlp.post_norm to the sum
    line(x_of(3) + 90, y_of(18) + 30, x_of(3) + 90, y_of(19) - 5)  # moe.post_norm to it
    line(x_of(1) + 90, y_of(19) - 5, x_of(3) + 90, y_of(19) - 5)
    line(x_of(1) + 90, y_of(19) - 5, x_of(1) + 90, y_of(19))
    arrow(x_of(1) + 90, y_of(19))
    joins(1, 20, 21)
    end()
}' >"$folder/layer.svg" <<'STEPS' || exit 1
0|0|the stream h|input
1|1|RMSNorm|attn.norm
1|2|q_proj|attn.q
1|3|norm per head|attn.q_norm
1|4|RoPE|attn.q_rope
2|2|k_proj|attn.k
2|3|norm per head|attn.k_norm
2|4|RoPE|attn.k_rope
3|2|v_proj (full layers: k)|attn.v
3|3|norm per head, no weight|attn.v_norm
1|5|q . k, visible keys|attn.scores
1|6|softmax|attn.probs
1|7|sum of probs v|attn.context
1|8|o_proj|attn.out
1|9|RMSNorm|attn.post_norm
0|10|h + attn.post_norm|attn.residual
1|11|RMSNorm|mlp.norm
1|12|gate_proj|mlp.gate
1|13|up_proj, of mlp.norm too|mlp.up
1|14|gelu_tanh(gate) up|mlp.act
1|15|down_proj|mlp.out
1|16|RMSNorm|mlp.post_norm
2|11|unit norm, scale, d^-0.5|router.norm
2|12|router.proj|router.logits
2|13|softmax over all E|router.probs
2|14|the K best|router.topk_ids
2|15|divided by their sum|router.topk_norm
2|16|times per_expert_scale|router.topk_weights
3|11|RMSNorm|moe.norm
3|12|gate_up of each chosen one|moe.act
3|17|down, weighted sum|moe.out
3|18|RMSNorm|moe.post_norm
1|19|mlp + moe|ffn.sum
1|20|RMSNorm|ffn.post_norm
0|21|residual + ffn.post_norm|ffn.residual
0|22|times layer_scalar|output
STEPS

# --- the mask: which of 8 keys each of 8 queries sees, on a full layer and through a window of 4 ---
awk "$common"'
function mask(x, title, window,    i, j) {
    text(x + 40, 24, "head", title)
    text(x + 40, 42, "small", "key")
    text(x - 10, 79, "small", "query")
    for (i = 0; i < 8; i++) {
        text(x + 54 + 28 * i, 56, "mid", i)
        text(x + 33, 79 + 28 * i, "mid", i)
        for (j = 0; j < 8; j++)
            box(x + 40 + 28 * j, 60 + 28 * i, 28, 28, j <= i && j > i - window ? "sees" : "not")
    }
}
BEGIN {
    begin(660, 300, "Masks of 8 positions")
    mask(24, "full layer: j &lt;= i", 8)
    mask(344, "sliding layer, window 4: i - 4 &lt; j &lt;= i", 4)
    end()
}' </dev/null >"$folder/mask.svg" || exit 1

# --- RoPE: which lanes rotate, and with which ---
awk "$common"'
function lanes(y, title, D, pairs,    j, w, shown) {
    text(20, y, "head", title)
    w = 28 * 32 / D < 28 ? 28 * 32 / D : 28
    for (j = 0; j < D; j++) {
        box(20 + w * j, y + 44, w, 26, j % (D / 2) < pairs ? "turns" : "not")
        text(20 + w * j + w / 2, y + 61, "mid small", j)
    }
    for (j = 0; j < pairs; j++)
        printf "<path d=\"M%g %g Q%g %g %g %g\"/>\n", 20 + w * (j + 0.5), y + 44, 20 + w * (j + 0.5 + D / 4), y + 2 - 18 * (pairs == D / 2), \
            20 + w * (j + 0.5 + D / 2), y + 44
}
BEGIN {
    begin(940, 240, "Lanes that RoPE rotates")
    lanes(40, "sliding layers of the tiny checkpoint: D = 16, all 8 pairs (j, j + 8) rotate", 16, 8)
    lanes(150, "full layers: D = 32, the first 4 of 16 pairs (j, j + 16) rotate, the others stand still", 32, 4)
    end()
}' </dev/null >"$folder/rope.svg"
