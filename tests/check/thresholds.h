/* Where verdicts begin. The table in spec/tolerance.md, "Constants", says of each why it is what it
 * is, and what measured it. */
#ifndef GEMMA4_THRESHOLDS_H
#define GEMMA4_THRESHOLDS_H

/* How many times the spread of honest rounding a step's error may be: over all positions, and at
 * the worst one. */
#define LIMIT_SCORE 3.0
#define LIMIT_WORST 6.0
/* How many times the spread of honest rounding the mean over at least so many rows may be too large
 * or too small, and the least spread: a part of the tier's unit, for roundings that all rows share,
 * and more where the root of the hidden size, rounded once, is a factor. */
#define LIMIT_BIAS 4.0
#define BIAS_ROWS 4
#define BIAS_SHARED 0.1
#define BIAS_ROOT 0.5
/* Beyond this part of a limit a passing tap is called marginal. */
#define MARGINAL_PART 0.75

/* From here to PAIR_..., what explains an error. Where nothing else is said, the rates of `make
 * kill-matrix`, `make planted`, `make pairs` and `make uncatalogued` are reached with the number;
 * tests/unit/test_fit.c, test_causes.c, test_describe.c and test_filter.c say where it lies. */

/* A counter-model explains a failing tap where what it leaves is within the limits above, and the
 * error's coefficient on its predicted difference is this close to 1. */
#define FIT_COEFFICIENT 0.1
/* A model that leaves at most this part of the error is measured against the spread that rounding
 * has in it, over so many perturbed runs. */
#define NEAR_PART 0.05
#define PLANTED_DRAWS 3
/* Positions whose choice of experts is open are left out; of all positions, at least this part must
 * be left. */
#define JUDGED_PART 0.5
/* A model that predicts a failure of so many times the limit where there is none is not the
 * mistake. */
#define CONTRADICTION 2.0
/* Of the mistakes that do not fit, one is worth a mention where it leaves less than this part of
 * the error and its coefficient is this close to 1: a mistake is made once, not 95 times. */
#define RUNNER_UP_PART 0.5
#define RUNNER_UP_COEFFICIENT 0.5
/* The same of points of the space: one that explains at least this part of the error's energy. */
#define NEAREST_SHARE 0.5
/* Models whose residual is within this factor (and offset, in spreads) of the best one's fit the
 * evidence equally well. */
#define EQUIVALENT_FACTOR 1.25
#define EQUIVALENT_OFFSET 0.1

/* Points of the space (identify.c). Of those that leave least, so many are tried as they are. */
#define IDENTIFY_TRIES 16 /* mutants: +1, -1, x2 survive: a bound of time */
/* Nothing is joined where the best setting leaves less than so many limits. Settings that are
 * joined to the best one: all; to the next ones, so many of those that explain most. Both together
 * must leave this part of what one does. */
#define JOINED_FROM 3.0
#define JOINED_MOST 120 /* mutants: +1, -1, x2 survive: a bound of time */
#define JOINED_GAIN 0.7
/* Entries of a list that say less than two settings that fit as well. */
#define LONG_LIST 8
/* A catalogued mistake that leaves more than so many times what a point leaves, and more than
 * rounding does, is not the one. */
#define POINT_IMPROVEMENT 2.0
/* Settings whose shares of the error are as near are tried in each other's place. */
#define TWIN_SHARE 1e-4
/* A combination of settings of the experts is looked at everywhere where it leaves at most this
 * part of the squares at one position: a number is far from what it will be, and of the 24 lanes
 * beyond the weights chance leaves as little once in a million. */
/* mutants: x2, x0.5 survive: a screen, the best of those that pass it are looked at everywhere */
#define PRODUCT_LEFT 0.2
/* What float32 leaves of the squares where the combination is right: of those, the one of the
 * fewest settings comes first. */
/* mutants: x2, x0.5 survive: rounding leaves 1e-12, and what is not right 1e-4 or more */
#define PRODUCT_NOTHING 1e-8
/* Combinations are tried where all of them take at most so many multiplications, of down_projs that
 * take so many bytes together. */
#define PRODUCT_MOST 8e10    /* mutants: x2, x0.5 survive: a bound of time */
#define PRODUCT_BYTES 0x1p30 /* mutants: x2, x0.5 survive: a bound of memory */
/* A rank of the chosen experts is missing where its weight is nowhere more than this part of the
 * right one. */
#define RANK_MISSING 0.01
/* Where no setting fits in all layers: so many of those that explain most are looked at in single
 * ones, and must leave this part of the error there to be tried. */
#define SINGLE_LAYER_MOST 400 /* mutants: +1, -1, x2 survive: a bound of time */
#define SINGLE_LAYER_PART 0.5
/* The interval of a number that was solved for: so many deviations of what noise does to it. */
#define SOLVED_DEVIATIONS 5.0
/* A number of rotating pairs whose interval is wider than this factor is not said. */
#define WIDEST_INTERVAL 2.0
/* Least squares makes so many steps at most; the first slope is measured over this part of the
 * number, which grows until the prediction moves by so many spreads: far above the rounding of
 * float32. Longer lists are not solved for. */
#define SOLVE_STEPS 12 /* mutants: +1, -1, x2 survive: a bound of time, a few are enough */
/* mutants: x2, x0.5 survive: the slope is the same, and it grows where it is too small */
#define SOLVE_STEP 0x1p-7
/* mutants: x2, x0.5 survive: far above rounding, far below where the slope bends */
#define SOLVE_SPREADS 10.0
#define SOLVED_LIST 16
/* Of factors of single experts, those are not said of which so many deviations are more than this
 * part of the factor. */
#define LOOSE_DEVIATIONS 3.0
#define LOOSE_PART 0.03
/* It ends where a step leaves more than this part of what was left. */
#define SOLVE_SETTLED 0.999 /* mutants: x2, x0.5 survive: a bound of time, as SOLVE_STEPS */
/* What is added to each entry's own square when a list is solved for, as a part of it: before a
 * norm, all entries times the same change nothing, and no step is to go that way. */
/* mutants: x2, x0.5 survive: any ridge keeps the steps finite, and what they lead to is the same */
#define SOLVE_RIDGE 1e-2
/* Numbers that differ by this part of the larger one are one, beyond what their intervals leave
 * open (entries of lists, which have none: of both together); factors that do so by the other part
 * are all the same. */
#define AGREED_PART 0.02
#define EQUAL_FACTORS 1e-3
/* A factor within so many roundings of 1 is none: sums of many terms in the tier's type shift whole
 * tensors by as much. So are factors of lanes, where weights in 8 bits do that. */
#define FACTOR_ROUNDINGS 8
#define LIST_ROUNDINGS 32

/* A finding that no model explains belongs to a cause that holds this part of its error. */
#define ATTRIBUTED_SHARE 0.5

/* A description holds where it leaves at most this part of the error's energy; few are at most one
 * in so many. */
#define DESCRIBED_LEFT 0.02
#define DESCRIBED_FEW 3
/* Of the few, so many are listed one by one: what fits on a line. Shifts of wider rows are not
 * looked for: the search takes the square. */
#define DESCRIBED_ITEMS 8
#define DESCRIBED_WIDEST 1024

/* The matched filter: how close to 1 the coefficient must be, and how many of its spreads away from
 * 0, over all layers or in one: `make honest` and `make honest-reference` find no alarm with
 * these. */
#define FILTER_COEFFICIENT 0.3
/* A coefficient further from 1 than this and so many of its spreads is something like the mistake,
 * not the mistake. Right names are within 1.4 spreads in `make kill-matrix`; quick GELU in some
 * positions is 0.76 +- 0.02 of an erf GELU, vLLM's cut-off bfloat16 0.72 +- 0.06 of a soft-cap. */
#define FILTER_NAMED_PART 0.1
#define FILTER_NAMED_DEVIATIONS 2.5
#define FILTER_DEVIATIONS 8.0
#define FILTER_LAYER_DEVIATIONS 12.0
/* The part of the row's variance that is added to each value's own. Measured on a bfloat16 erf GELU
 * in case tiny-prompt: 1 gives 3 spreads, 0.1 gives 10, 0.01 gives 25. */
#define FILTER_ROW_PART 0.01
/* Only a coefficient above this is worth a second computation: less hardly becomes 1 -
 * FILTER_COEFFICIENT by what other layers add. Where the right values, rounded to nearest, have it,
 * there is nothing to see. */
#define FILTER_PROMISING 0.5
/* A predicted difference of which perturbed inputs change more than this part (of its squared size)
 * is rounding. */
#define FILTER_MOVED_PART 0.5
/* Over more bridged blocks than this, noise leaves nothing to filter. */
#define FILTER_BRIDGED 1

/* Where layers have to be run again for every model, the first so many positions decide whether a
 * model can fit at all. */
#define PREFIX_POSITIONS 4
/* A first look by the fastest operators allows so many times the limits: their own rounding is a
 * few spreads of float32's (spec/twins.md). */
#define SCREEN_FACTOR 4 /* mutants: +1, -1, x2 survive: time only: the limits judge what passes */
/* At the first positions, a mistake has no effect yet where it moves values by no more than so many
 * spreads. */
/* mutants: x2, x0.5 survive: time only, above what the operators' rounding moves */
#define SCREEN_EFFECT 10.0
/* Where rounding may have flipped experts that the dump does not show, a model may fit this part of
 * the positions only; within this part of the limits, and leaving at most 1 / FLIP_IMPROVEMENT of
 * what the right model leaves there. */
#define FLIP_ROWS 0.6
#define FLIP_LIMIT_PART 0.5
#define FLIP_IMPROVEMENT 2.0
/* Of pairs of so many models, so many are tried: those that explain most together, if effects add
 * up; kept are at most so many values of each model's effect. */
/* mutants: +1, -1, x2 survive: a bound of time; `make pairs` counts what is found */
#define PAIR_MODELS 60
#define PAIR_TRIES 24 /* mutants: +1, -1, x2 survive: as PAIR_MODELS */
/* mutants: +1, -1, x2 survive: a bound of memory, reached by the widest vocabularies only */
#define PAIR_VALUES ((size_t)1 << 18)
/* Two effects whose directions differ by less are one: between the rounding of a sum of products,
 * 1e-15, and what tells two mistakes apart, 1e-6. */
#define PAIR_ALIKE 1e-12 /* mutants: x2, x0.5 survive: the same results anywhere in between */
/* Where the error is so many times its limit and the first positions are right, a mistake that acts
 * at every position is not tried at some of them. It saves time: a smaller error may be within the
 * limit at the first positions by chance. */
#define LATE_ERROR 100.0 /* mutants: x2, x0.5 survive: a bound of time */
/* On the ladder, what an engine may leave that is known to round coarsely: so much of its
 * unit beside the tier's, for values that it rounds the other way than the reference (0.0005 to
 * 0.028 were measured); and at most so much of what is left without those roundings. */
#define LADDER_FLIPS 0.05
#define LADDER_FLIPS_IMPROVE 0.5
/* What explained a tap in the last so many findings is tried first in the next layer; where the
 * whole search was in vain in so many layers of a kind, it is not made again; after the first, no
 * part of the positions is looked at by itself. */
#define EARLIER_FINDINGS 2
#define SEARCHES_IN_VAIN 2

/* Two router logits whose difference is below so many of its standard deviations may change places.
 * Over several bridged layers, the perturbed runs settle such a tie by a coin: left to their own
 * noise, six runs may all miss a flip that an engine makes (with 3: 2 alarms in 720 honest runs of
 * logits alone, 13 without). */
#define NEAR_TIE_DEVIATIONS 5
/* Where a choice of experts is open, so many ranks to either side of the K-th may change places,
 * near-ties and exact ties of the dump's own logits; of the sets that result, so many are tried. */
#define ROUTING_RANKS_NEAR 2
#define ROUTING_RANKS_TIED 6
#define ROUTING_CHOICES 24
/* Two logits of a dump tie where they differ by at most so many roundings, as parts of the largest
 * logit: where the dataset is narrower than the arithmetic, one of either; where it is not, two of
 * float32 of either, since an engine may choose by probabilities (the difference to the largest
 * logit is rounded, and its exponential). */
#define TIE_ROUNDINGS_STORED 2
#define TIE_ROUNDINGS_FLOAT32 4
/* How much two float32 softmaxes of the same logits may differ, as a part of the probability. */
#define PROBABILITY_SLACK 0x1p-20

/* The least spread of a row, as parts of what is typical for rows of its size, and of one rounding;
 * and in itself, so that a row of zeros, which must be zeros in the engine too, is divided by
 * something. */
#define LEAST_OF_TYPICAL 0.5
#define LEAST_OF_ROUNDING 0.3
#define LEAST_SPREAD 1e-30

/* Mistakes of the dump (recognise.h). Measured on every counter-model and on honest engines, in
 * cases tiny-prompt (float32 and bfloat16), moe128-prompt, uneven96-prompt and wide256-prompt, with
 * all taps, layer outputs and logits. */
/* From this relative RMS on, against the reference by itself, a mistake is looked for. Put right, a
 * tensor is off by at most this part of it, and of 1. What a shift or another order of axes leaves
 * of a counter-model's error is never below 0.40; a real bfloat16 engine's tensors, put right, are
 * off by 0.03 to 0.08. So many rows decide whether all are looked at. */
#define RECOGNISED_FROM 0.05
/* Of topk_ids, from this part of other experts on: shifted rows have those of chance, 0.75 with 4
 * of 16 and 0.94 with 8 of 128, where a few rows that hold NaN leave most of them right. */
#define RECOGNISED_FROM_IDS 0.4
#define RECOGNISED_PART 0.25
#define RECOGNISED_FIRST_ROWS 4
/* Rows may be shifted by so many positions, and so many must be left to compare. */
#define SHIFT_MOST 4
#define SHIFT_ROWS 4
/* Probabilities sum to 1 within this: log-probabilities stored as bfloat16 were off by 0.0008 at
 * most. */
#define SUM_OF_PROBABILITIES 0.01
/* A dump lies on the grid of a narrower type where this part of the values of an average tensor
 * does, by its last rows; tensors with fewer values are left out. Float32 engines: 0.0001, with a
 * mistake in their rounding 0.043 at most; bfloat16 and float16 engines: 1. */
#define GRID_SHARE 0.5
#define GRID_ROWS 2
#define GRID_VALUES 8
/* mutants: +1, -1, x2 survive: a bound of time, of what reading a hostile file may take */
#define GRID_SECONDS 60
/* The mean squared cosine of at least so many rows, in units of what chance gives. Ten other
 * checkpoints: 1.93 at most, at any tap. A mistake of the engine leaves at least 5.07 of the first
 * layer's output (attn-residual-missing), but 1.85 of the logits (softcap-wrong-formula), which is
 * why logits alone are searched for mistakes first. */
#define CHANCE_IN_COMMON 3.0
#define CHANCE_ROWS 4

#endif
