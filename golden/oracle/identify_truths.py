"""What gemma4-check may say of a planted fault, in the words of causes[].parameters, and whether it has said it.

A fault is identified where an explained cause has one of its catalogue ids, or where the parameters of all explained causes together
hold every part of one of its answers. A sentence is wrong where an explained cause has neither: no id of a planted fault, and not one
list of parameters of which every one is part of an answer.
"""

import dataclasses
import re

import identify_steps as steps

WIDEST = 2.0  # a number's interval may span this factor
SLACK = 0.01  # and be missed by this share
LIST_SLACK = 0.02
FIELDS = {name.split(".")[-1] for name in steps.TENSORS}


@dataclasses.dataclass(frozen=True)
class Part:
    """One parameter that is right: any of `names`, with `value`, at one of `places`."""

    names: tuple
    value: object    # a number; a tuple of numbers; a frozenset of texts
    places: tuple = ()  # kinds of taps, or fields of weights; () for anywhere


def part(names, value, *places):
    """names and value may be single; a text becomes a set of one."""
    names = (names,) if isinstance(names, str) else tuple(names)
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, (list, tuple, set, frozenset)):
        texts = all(isinstance(v, str) for v in value)
        value = frozenset(normalised(v) for v in value) if texts else tuple(value)
    return Part(names, value, tuple(places))


def normalised(text):
    """In lower case, single spaces; "lanes of each head" is said of lanes."""
    return " ".join(re.sub(r" of each (head|expert|rank)", "", str(text).lower()).split())


def kind(tap):
    """layers.5.attn.q_rope -> attn.q_rope; tensors lose what stands around the field's own name."""
    tap = re.sub(r"^layers\.[0-9N]+\.", "", tap or "")
    return tap.removesuffix(".weight")


def field(tensor):
    """The weight's own name: self_attn.q_proj -> q_proj, router.scale -> scale; what is no weight stays as it is."""
    name = kind(tensor)
    return name.split(".")[-1] if name.split(".")[-1] in FIELDS else name


def same_text(said, accepted, interval=None):
    """Word by word; words that are numbers may differ by SLACK, or as far as the interval of what is said goes."""
    said, accepted = normalised(said).split(), accepted.split()
    return len(said) == len(accepted) and all(same_word(a, b, interval) for a, b in zip(said, accepted))


def same_word(a, b, interval):
    if field(a) == field(b):
        return True
    try:
        a, b = float(a.removeprefix("p^")), float(b.removeprefix("p^"))
    except ValueError:
        return False
    return abs(a - b) <= SLACK * abs(b) or bool(interval) and same_number(a, interval, b)


def same_number(said, interval, planted):
    if isinstance(said, bool) or not isinstance(said, (int, float)):
        return False
    low, high = sorted(interval) if interval and None not in interval else (said, said)
    smaller, larger = sorted((abs(low), abs(high)))
    narrow = low == high or low * high > 0 and larger <= WIDEST * smaller
    return narrow and low - SLACK * larger <= planted <= high + SLACK * larger


def same_list(said, planted):
    """None: the dump does not show that entry, since no token chose the expert; of half of them at most."""
    known = [(a, b) for a, b in zip(said, planted) if a is not None]
    return len(said) == len(planted) and 2 * len(known) >= len(planted) and all(
        isinstance(a, (int, float)) and abs(a - b) <= LIST_SLACK * abs(b) + 1e-3 for a, b in known)


def same_value(parameter, planted):
    said = parameter.get("value")
    if isinstance(planted, frozenset):
        return isinstance(said, (str, int)) and any(same_text(said, text, parameter.get("interval")) for text in planted)
    if isinstance(planted, tuple):
        return isinstance(said, list) and same_list(said, planted)
    return same_number(said, parameter.get("interval"), planted)


def at_place(parameter, places):
    where = parameter.get("where") or {}
    named = {kind(where.get("tap")), kind(where.get("tensor")), field(where.get("tensor"))} - {""}
    return not places or not named or any(place in named for place in places)


def says(parameter, right):
    """Does this parameter say this part?"""
    return parameter.get("name") in right.names and at_place(parameter, right.places) and same_value(parameter, right.value)


def statements(cause):
    """The lists of parameters that a cause gives: its own and those that fit as well."""
    return [given for given in [cause.get("parameters") or [], *(cause.get("equivalent_parameters") or [])] if given]


def ids(cause):
    return {cause.get("id"), *(cause.get("equivalent") or [])} - {None}


def identified(planted, causes):
    """Do the explained causes identify this fault?"""
    if any(ids(cause) & planted.ids for cause in causes):
        return True
    said = [parameter for cause in causes for given in statements(cause) for parameter in given]
    return any(all(any(says(parameter, right) for parameter in said) for right in answer) for answer in planted.answers)


def is_right(cause, faults):
    """Does this cause say something of one of the planted faults, and nothing else?"""
    if any(ids(cause) & planted.ids for planted in faults):
        return True
    parts = [right for planted in faults for answer in planted.answers for right in answer]
    for planted in faults:
        for layer, true_there, ids_there in planted.partly:
            if layers_of(cause) == (layer,):
                parts += true_there
                if ids(cause) & set(ids_there):
                    return True
    return any(all(any(says(parameter, right) for right in parts) for parameter in given) for given in statements(cause))


def layers_of(cause):
    """The layers that a cause names: "0, 2-4" -> (0, 2, 3, 4)."""
    found = set()
    for first, last in re.findall(r"(\d+)(?:\s*-\s*(\d+))?", str(cause.get("layers") or "")):
        found |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))


def said_by(cause):
    """A cause in a few words."""
    parameters = "; ".join(
        f"{p.get('name')} {kind((p.get('where') or {}).get('tap'))} {p.get('value')} {p.get('interval') or ''}".strip()
        for p in cause.get("parameters") or [])
    return f"{cause.get('id') or '-'} at {cause.get('tap')}" + (f" ({parameters})" if parameters else "")
