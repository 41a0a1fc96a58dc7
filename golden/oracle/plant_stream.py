"""Planted mistakes of the embedding, the residual stream and the head."""

import torch

from faults import fault


# --- embedding -----------------------------------------------------------------------------------------------------------


@fault("embed-scale-missing", "embedding", "embed")
def embed_scale_missing(model, layers):
    model.model.embed_tokens.embed_scale.fill_(1.0)


@fault("embed-scale-twice", "embedding", "embed")
def embed_scale_twice(model, layers):
    model.model.embed_tokens.embed_scale.pow_(2)


@fault("embed-scale-bf16-in-fp32-reference", "embedding", "embed", cases=("uneven96-prompt",))
def embed_scale_rounded(model, layers):
    scale = model.model.embed_tokens.embed_scale
    scale.copy_(scale.to(torch.bfloat16))


# --- residual additions -------------------------------------------------------------------------------------------------


def overwrite(reader, tensor_of, writer, value):
    """Just before `writer` runs, value(x) overwrites in place the tensor x that `reader` was given: aliasing as it happens."""
    held = {}
    reader.register_forward_pre_hook(lambda _m, args: held.update(x=tensor_of(args)))

    def write(_writer, _args):
        held["x"].copy_(value(held["x"]))

    writer.register_forward_pre_hook(write)


@fault("residual-inplace-alias", "stream", "attn.residual")
def residual_inplace_alias(model, layers):
    for layer in layers:
        norm = layer.input_layernorm
        overwrite(layer, lambda args: args[0], layer.post_attention_layernorm, lambda x, norm=norm: norm.forward(x))


@fault("residual-inplace-alias@feed-forward", "stream", "ffn.residual")
def residual_inplace_alias_feed_forward(model, layers):
    for layer in layers:
        norm = layer.pre_feedforward_layernorm
        overwrite(norm, lambda args: args[0], layer.post_feedforward_layernorm, lambda x, norm=norm: norm.forward(x))


@fault("attn-residual-missing", "stream", "attn.residual")
def attn_residual_missing(model, layers):
    for layer in layers:
        overwrite(layer, lambda args: args[0], layer.post_attention_layernorm, torch.zeros_like)


@fault("ffn-residual-missing", "stream", "ffn.residual")
def ffn_residual_missing(model, layers):
    for layer in layers:
        overwrite(layer.pre_feedforward_layernorm, lambda args: args[0], layer.post_feedforward_layernorm, torch.zeros_like)


@fault("ffn-residual-from-layer-input", "stream", "ffn.residual")
def ffn_residual_from_layer_input(model, layers):
    for layer in layers:
        held = {}
        layer.register_forward_pre_hook(lambda _m, args, held=held: held.update(x=args[0].clone()))
        overwrite(layer.pre_feedforward_layernorm, lambda args: args[0], layer.post_feedforward_layernorm,
                  lambda _x, held=held: held["x"])


# --- the sum of the branches --------------------------------------------------------------------------------------------


def replace_sum(layer, combine, dense=None, routed=None):
    """combine(dense, routed) is what post_feedforward_layernorm reads; dense, routed: the modules whose outputs it gets."""
    held = {}
    (dense or layer.post_feedforward_layernorm_1).register_forward_hook(lambda _m, _args, out: held.update(dense=out))
    (routed or layer.post_feedforward_layernorm_2).register_forward_hook(lambda _m, _args, out: held.update(routed=out))
    layer.post_feedforward_layernorm.register_forward_pre_hook(
        lambda _m, args: (combine(held["dense"], held["routed"].reshape(args[0].shape)),))


@fault("experts-ignored", "stream", "ffn.sum")
def experts_ignored(model, layers):
    for layer in layers:
        replace_sum(layer, lambda dense, routed: dense)


@fault("dense-branch-ignored", "stream", "ffn.sum")
def dense_branch_ignored(model, layers):
    for layer in layers:
        replace_sum(layer, lambda dense, routed: routed)


@fault("branches-averaged", "stream", "ffn.sum")
def branches_averaged(model, layers):
    for layer in layers:
        replace_sum(layer, lambda dense, routed: (dense + routed) / 2)


@fault("branch-norms-after-sum-only", "stream", "ffn.sum", leaves_out=("*.mlp.post_norm", "*.moe.post_norm"))
def branch_norms_after_sum_only(model, layers):
    for layer in layers:
        replace_sum(layer, lambda dense, routed: dense + routed, layer.mlp, layer.experts)


# --- layer_scalar -------------------------------------------------------------------------------------------------------


@fault("layer-scalar-dropped", "stream", "output")
def layer_scalar_dropped(model, layers):
    for layer in layers:
        layer.layer_scalar.fill_(1.0)


@fault("layer-scalar-twice", "stream", "output")
def layer_scalar_twice(model, layers):
    for layer in layers:
        layer.layer_scalar.pow_(2)


@fault("layer-scalar-of-next-layer", "stream", "output")
def layer_scalar_of_next_layer(model, layers):
    scalars = [layer.layer_scalar.clone() for layer in model.model.layers]
    for layer in layers:
        layer.layer_scalar.copy_(scalars[min(layer.layer_idx + 1, len(scalars) - 1)])


def replace_output(layer, output):
    """output(scalar, input, attention residual, h) is the layer's output; h: the stream after both additions."""
    held, scalar = {}, layer.layer_scalar.clone()
    layer.layer_scalar.fill_(1.0)
    layer.register_forward_pre_hook(lambda _m, args: held.update(input=args[0].clone()))
    layer.pre_feedforward_layernorm.register_forward_pre_hook(lambda _m, args: held.update(residual=args[0]))
    layer.register_forward_hook(lambda _m, _args, h: output(scalar, held["input"], held["residual"], h))


@fault("layer-scalar-on-delta", "stream", "output")
def layer_scalar_on_delta(model, layers):
    for layer in layers:
        replace_output(layer, lambda scalar, x, residual, h: x + scalar * (h - x))


@fault("layer-scalar-on-branch", "stream", "output")
def layer_scalar_on_branch(model, layers):
    for layer in layers:
        replace_output(layer, lambda scalar, x, residual, h: residual + scalar * (h - residual))


# --- head ---------------------------------------------------------------------------------------------------------------


@fault("final-norm-missing", "head", "final_norm")
def final_norm_missing(model, layers):
    model.model.norm.forward = lambda x: x


@fault("hidden-pre-vs-post-final-norm", "head", "output")
def hidden_pre_vs_post_final_norm(model, layers):
    norm = model.model.norm.forward
    model.model.norm.forward = lambda x: x
    model.model.layers[-1].register_forward_hook(lambda _m, _args, out: norm(out))


@fault("embed-scale-on-tied-head", "head", "logits_raw")
def embed_scale_on_tied_head(model, layers):
    head, scale = model.lm_head.forward, model.model.embed_tokens.scalar_embed_scale
    model.lm_head.forward = lambda x: head(x * scale)


@fault("softcap-missing", "head", "logits")
def softcap_missing(model, layers):
    model.config.final_logit_softcapping = None


@fault("softcap-50", "head", "logits")
def softcap_50(model, layers):
    model.config.final_logit_softcapping = 50.0


def replace_softcap(model, cap):
    """cap(raw logits) -> logits."""

    def after(_model, _args, output):
        output.logits = cap(output.logits)
        return output

    model.config.final_logit_softcapping = None
    model.register_forward_hook(after)


@fault("softcap-twice", "head", "logits")
def softcap_twice(model, layers):
    replace_softcap(model, lambda raw: 30 * torch.tanh(torch.tanh(raw / 30)))


@fault("softcap-wrong-formula", "head", "logits")
def softcap_wrong_formula(model, layers):
    replace_softcap(model, lambda raw: raw * torch.tanh(raw / 30))
