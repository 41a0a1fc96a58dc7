"""Planted mistakes of the router."""

import types

import torch

from faults import fault


def replace_routing(layers, route):
    """route(router, probs [T,E], best [T,K], ids [T,K]) -> (topk_norm, topk_weights, ids); best: the chosen experts' probabilities."""

    def forward(router, x):
        logits = router.proj(router.norm(x) * router.scale * router.scalar_root_size)
        probs = torch.softmax(logits, dim=-1, dtype=torch.float32)
        best, ids = probs.topk(router.config.top_k_experts, dim=-1)
        router.topk_norm, weights, ids = route(router, probs, best, ids)
        return probs, weights, ids

    for layer in layers:
        layer.router.forward = types.MethodType(forward, layer.router)


def normalised(best):
    return best / best.sum(dim=-1, keepdim=True)


# --- what router.proj reads ---------------------------------------------------------------------------------------------


@fault("router-double-norm", "router", "router.norm")
def router_double_norm(model, layers):
    for layer in layers:
        norm = layer.pre_feedforward_layernorm_2.forward  # the method itself: no hook takes it for the experts' norm
        layer.router.register_forward_pre_hook(lambda _m, args, norm=norm: (norm(args[0]),))


@fault("router-norm-or-root-scale-missing", "router", "router.norm")
def router_norm_or_root_scale_missing(model, layers):
    for layer in layers:
        layer.router.scalar_root_size = 1.0


@fault("router-norm-or-root-scale-missing@norm", "router", "router.norm")
def router_norm_missing(model, layers):
    for layer in layers:
        layer.router.norm.forward = lambda x: x


@fault("router-scale-tensor-skipped", "router", "router.norm")
def router_scale_tensor_skipped(model, layers):
    for layer in layers:
        layer.router.scale.fill_(1.0)


@fault("router-root-twice", "router", "router.norm")
def router_root_twice(model, layers):
    for layer in layers:
        layer.router.scalar_root_size = layer.router.scalar_root_size ** 2


@fault("router-root-size-bf16", "router", "router.norm", cases=("uneven96-prompt",))
def router_root_rounded(model, layers):
    for layer in layers:
        layer.router.scalar_root_size = float(torch.tensor(layer.router.scalar_root_size).to(torch.bfloat16))


@fault("branch-reads-layer-input@router", "router", "router.norm")
def branch_reads_layer_input_router(model, layers):
    for layer in layers:
        held = {}
        layer.register_forward_pre_hook(lambda _m, args, held=held: held.update(x=args[0].clone()))
        layer.router.register_forward_pre_hook(lambda _m, args, held=held: (held["x"].reshape(args[0].shape),))


# --- logits and probabilities -------------------------------------------------------------------------------------------


@fault("router-low-precision", "router", "router.logits")
def router_low_precision(model, layers):
    for layer in layers:
        proj = layer.router.proj.forward
        layer.router.proj.forward = lambda x, proj=proj: proj(x).bfloat16().to(x.dtype)


@fault("router-logits-are-probs", "router", "router.logits")
def router_logits_are_probs(model, layers):
    def forward(router, x):
        probs = router.proj(router.norm(x) * router.scale * router.scalar_root_size).float()
        best, ids = probs.topk(router.config.top_k_experts, dim=-1)
        router.topk_norm = normalised(best)
        return probs, router.topk_norm * router.per_expert_scale[ids], ids

    for layer in layers:
        proj = layer.router.proj.forward
        layer.router.proj.forward = lambda x, proj=proj: torch.softmax(proj(x), dim=-1)
        layer.router.forward = types.MethodType(forward, layer.router)


@fault("router-sigmoid", "router", "router.probs")
def router_sigmoid(model, layers):
    def forward(router, x):
        probs = torch.sigmoid(router.proj(router.norm(x) * router.scale * router.scalar_root_size).float())
        best, ids = probs.topk(router.config.top_k_experts, dim=-1)
        router.topk_norm = normalised(best)
        return probs, router.topk_norm * router.per_expert_scale[ids], ids

    for layer in layers:
        layer.router.forward = types.MethodType(forward, layer.router)


# --- the chosen experts and their weights -----------------------------------------------------------------------------


@fault("topk-not-renormalised", "router", "router.topk_norm")
def topk_not_renormalised(model, layers):
    replace_routing(layers, lambda router, probs, best, ids: (best, best * router.per_expert_scale[ids], ids))


@fault("topk-softmax-twice", "router", "router.topk_norm")
def topk_softmax_twice(model, layers):
    def route(router, probs, best, ids):
        again = torch.softmax(best, dim=-1)
        return again, again * router.per_expert_scale[ids], ids

    replace_routing(layers, route)


@fault("topk-one-fewer", "router", "router.topk_norm")
def topk_one_fewer(model, layers):
    def route(router, probs, best, ids):
        best = best.clone()
        best[:, -1] = 0
        return normalised(best), normalised(best) * router.per_expert_scale[ids], ids

    replace_routing(layers, route)


@fault("routing-weights-uniform", "router", "router.topk_norm")
def routing_weights_uniform(model, layers):
    def route(router, probs, best, ids):
        uniform = torch.full_like(best, 1 / ids.shape[-1])
        return uniform, uniform * router.per_expert_scale[ids], ids

    replace_routing(layers, route)


@fault("topk-smallest", "router", "router.topk_ids")
def topk_smallest(model, layers):
    def route(router, probs, best, ids):
        worst, ids = probs.topk(ids.shape[-1], dim=-1, largest=False)
        return normalised(worst), normalised(worst) * router.per_expert_scale[ids], ids

    replace_routing(layers, route)


@fault("topk-ids-off-by-one", "router", "router.topk_ids")
def topk_ids_off_by_one(model, layers):
    def route(router, probs, best, ids):
        ids = (ids + 1) % probs.shape[-1]
        return normalised(best), normalised(best) * router.per_expert_scale[ids], ids

    replace_routing(layers, route)


@fault("per-expert-scale-missing", "router", "router.topk_weights")
def per_expert_scale_missing(model, layers):
    for layer in layers:
        layer.router.per_expert_scale.fill_(1.0)


@fault("per-expert-scale-twice", "router", "router.topk_weights")
def per_expert_scale_twice(model, layers):
    replace_routing(layers, lambda router, probs, best, ids: (
        normalised(best), normalised(best) * router.per_expert_scale[ids].float() ** 2, ids))


@fault("per-expert-scale-before-normalising", "router", "router.topk_norm")
def per_expert_scale_before_normalising(model, layers):
    def route(router, probs, best, ids):
        weights = normalised(best * router.per_expert_scale[ids])
        return weights, weights, ids

    replace_routing(layers, route)


@fault("per-expert-scale-by-rank", "router", "router.topk_weights")
def per_expert_scale_by_rank(model, layers):
    replace_routing(layers, lambda router, probs, best, ids: (
        normalised(best), normalised(best) * router.per_expert_scale[:ids.shape[-1]], ids))
