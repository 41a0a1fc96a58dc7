"""Planted mistakes of masks, windows and caches. A query and a key are positions counted from 0; a chunk is begin to end - 1."""

import torch
from transformers.models.gemma4 import modeling_gemma4

import seams
from faults import CHUNKS, CHUNKS_BEYOND_WINDOW, DECODE_BEYOND_WINDOW, FULL, SLIDING, WINDOW, fault


def causal(query, key):
    return key <= query


def windowed(query, key, window):
    return causal(query, key) & (query - key < window)


def right_mask(model, layer, query, key):
    sliding = layer.self_attn.is_sliding
    return windowed(query, key, model.config.sliding_window) if sliding else causal(query, key)


def replace_masks(model, layers, visible):
    """visible(query, key, begin, end, right) -> which keys a query sees; right: those that it should see."""
    seams.keep_all_keys(model)
    for layer in layers:
        seams.replace_mask(layer, lambda query, key, begin, end, layer=layer: visible(
            query, key, begin, end, right_mask(model, layer, query, key)))


def give_nothing_where_nothing_is_seen(layers):
    """A query that sees no key gets probabilities of 0; an engine may also get NaN, or a mean of all values."""

    def attention(module, query, key, value, mask, scaling):
        def softmax(scores):
            return torch.softmax(scores.float(), dim=-1) * (mask.amax(dim=-1, keepdim=True) == 0)

        key, value = (modeling_gemma4.repeat_kv(t, module.num_key_value_groups) for t in (key, value))
        return seams.attend(query, key, value, mask, scaling, softmax)

    for layer in layers:
        seams.replace_attention(layer, attention)


# --- masks ------------------------------------------------------------------------------------------------------------------


@fault("window-off-by-one-wide", "masks", "attn.probs", kind=SLIDING, needs=WINDOW)
def window_off_by_one_wide(model, layers):
    window = model.config.sliding_window + 1
    replace_masks(model, layers, lambda query, key, begin, end, right: windowed(query, key, window))


@fault("window-off-by-one-other", "masks", "attn.probs", kind=SLIDING, needs=WINDOW)
def window_off_by_one_other(model, layers):
    window = model.config.sliding_window - 1
    replace_masks(model, layers, lambda query, key, begin, end, right: windowed(query, key, window))


@fault("window-not-passed", "masks", "attn.probs", kind=SLIDING, needs=WINDOW)
def window_not_passed(model, layers):
    replace_masks(model, layers, lambda query, key, begin, end, right: causal(query, key))


@fault("window-not-passed@decode", "masks", "attn.probs", kind=SLIDING, needs=DECODE_BEYOND_WINDOW)
def window_not_passed_decode(model, layers):
    replace_masks(model, layers, lambda query, key, begin, end, right: causal(query, key) if begin and end - begin == 1 else right)


@fault("window-off-by-one-wide@decode", "masks", "attn.probs", kind=SLIDING, needs=DECODE_BEYOND_WINDOW)
def window_off_by_one_wide_decode(model, layers):
    window = model.config.sliding_window + 1
    replace_masks(model, layers, lambda query, key, begin, end, right:
                  windowed(query, key, window) if begin and end - begin == 1 else right)


@fault("window-on-global-too", "masks", "attn.probs", kind=FULL, needs=WINDOW)
def window_on_global_too(model, layers):
    window = model.config.sliding_window
    replace_masks(model, layers, lambda query, key, begin, end, right: windowed(query, key, window))


@fault("attention-not-causal", "masks", "attn.probs")
def attention_not_causal(model, layers):
    seams.keep_all_keys(model)
    for layer in layers:
        window = model.config.sliding_window if layer.self_attn.is_sliding else float("inf")
        seams.replace_mask(layer, lambda query, key, begin, end, window=window: (query - key).abs() < window)


@fault("own-position-masked", "masks", "attn.probs")
def own_position_masked(model, layers):
    replace_masks(model, layers, lambda query, key, begin, end, right: right & (key != query))
    give_nothing_where_nothing_is_seen(layers)  # position 0


@fault("prefill-mask-capped", "masks", "attn.probs", kind=SLIDING, needs=WINDOW)
def prefill_mask_capped(model, layers):
    window = model.config.sliding_window
    replace_masks(model, layers, lambda query, key, begin, end, right: right & (key >= end - window))
    give_nothing_where_nothing_is_seen(layers)  # the early queries


# --- cache ------------------------------------------------------------------------------------------------------------------


@fault("chunked-prefill-no-past", "cache", "attn.probs", needs=CHUNKS)
def chunked_prefill_no_past(model, layers):
    replace_masks(model, layers, lambda query, key, begin, end, right: right & (key >= begin))


@fault("chunked-prefill-ring-overflow", "cache", "attn.probs", kind=SLIDING, needs=CHUNKS_BEYOND_WINDOW)
def chunked_prefill_ring_overflow(model, layers):
    window = model.config.sliding_window
    replace_masks(model, layers, lambda query, key, begin, end, right: right & ((key >= begin) | (key >= end - window)))


@fault("chunked-prefill-mask-discarded", "cache", "attn.probs", needs=CHUNKS)
def chunked_prefill_mask_discarded(model, layers):
    replace_masks(model, layers, lambda query, key, begin, end, right: torch.ones_like(right) if begin else right)


@fault("chunked-prefill-mask-discarded@offset-0", "cache", "attn.probs", needs=CHUNKS)
def chunked_prefill_mask_offset_zero(model, layers):
    seams.keep_all_keys(model)
    for layer in layers:
        seams.replace_mask(layer, lambda query, key, begin, end, layer=layer: right_mask(model, layer, query - begin, key))


@fault("chunk-not-causal", "cache", "attn.probs", needs=CHUNKS)
def chunk_not_causal(model, layers):
    replace_masks(model, layers, lambda query, key, begin, end, right: right | (key > query))


@fault("ring-slot-as-position", "cache", "attn.probs", kind=SLIDING, needs=CHUNKS_BEYOND_WINDOW)
def ring_slot_as_position(model, layers):
    window = model.config.sliding_window
    replace_masks(model, layers, lambda query, key, begin, end, right:
                  right & ((query < window) | (key % window <= query % window)))


@fault("swa-mask-matcher-missed", "cache", "attn.probs", kind=SLIDING, needs=CHUNKS)
def swa_mask_matcher_missed(model, layers):
    first = {}

    def visible(query, key, begin, end, right):
        if begin == 0:
            first["end"] = end
        return right & ((key >= first["end"]) | (begin == 0))

    replace_masks(model, layers, visible)


@fault("cache-written-after-read", "cache", "attn.probs", needs=CHUNKS)
def cache_written_after_read(model, layers):
    replace_masks(model, layers, lambda query, key, begin, end, right: right & ((key < begin) | (key == query) | (begin == 0)))


@fault("prefill-kv-never-uploaded", "cache", "attn.scores", needs=CHUNKS)
def prefill_kv_never_uploaded(model, layers):
    acts_in, first = {layer.layer_idx for layer in layers}, {}

    def update(layer, keys, values, begin):
        if begin == 0:
            first["end"] = keys.shape[2]
        if begin == 0 or layer not in acts_in:
            return keys, values
        written = (torch.arange(keys.shape[2]) >= first["end"])[:, None].to(keys.dtype)
        return keys * written, values * written

    replace_masks(model, layers, lambda query, key, begin, end, right: right)
    seams.replace_cache_update(model, update)


@fault("kv-cache-f16", "cache", "attn.scores")
def kv_cache_f16(model, layers):
    acts_in = {layer.layer_idx for layer in layers}

    def update(layer, keys, values, begin):
        return (keys.half().to(keys.dtype), values.half().to(values.dtype)) if layer in acts_in else (keys, values)

    seams.replace_cache_update(model, update)
