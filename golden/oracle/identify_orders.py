"""Permutations of an axis, and every text that says one of them: "heads rolled by 1", "lanes interleaved".

A text's direction is not defined (is a roll by 1 to the left or to the right? of the weight or of what is read?), so that a permutation
and its inverse have the same texts.
"""

import torch


def of_units(n, size, turn):
    """Moves blocks of `size` lanes: turn(indices of the n // size blocks)."""
    return turn(torch.arange(n).view(-1, size)).reshape(-1)


def within(n, size, turn):
    """The same turn inside every block of `size` lanes."""
    inside = turn(torch.arange(size))
    return (torch.arange(0, n, size)[:, None] + inside).reshape(-1)


def turns(n):
    """{text: function of a vector of n indices} of its first axis."""
    found = {"reversed": lambda v: v.flip(0)}
    found |= {f"rolled by {s}": lambda v, s=s: v.roll(s, 0) for s in sorted({1, 2, 3, 4, 8, n // 4, n // 2, n - 1}) if 0 < s < n}
    if n % 2 == 0:
        found["exchanged"] = lambda v: v.roll(n // 2, 0)
        found["interleaved"] = lambda v: torch.stack((v[:n // 2], v[n // 2:]), dim=1).flatten(0, 1)
        found["deinterleaved"] = lambda v: torch.cat((v[0::2], v[1::2]))
    return found


def permutations(n, head):
    """{(unit, what): permutation [n]}; head: lanes in a head, or None. What is said within heads is also said of all lanes."""
    found = {}
    for text, turn in turns(n).items():
        found["lanes", text, "all"] = turn(torch.arange(n))
    if n % 2 == 0:
        found["halves", "exchanged", "all"] = torch.arange(n).roll(n // 2)
    if head and head < n:
        for text, turn in turns(n // head).items():
            found["heads", text, "all"] = of_units(n, head, turn)
        across = torch.arange(n).view(-1, head).t().reshape(-1)  # [H,D] read as [D,H]
        found["heads", "interleaved", "across"], found["heads", "deinterleaved", "across"] = across, torch.argsort(across)
    if head:
        for text, turn in turns(head).items():
            found["lanes", text, "in heads"] = within(n, head, turn)
        if head % 2 == 0:
            found["halves", "exchanged", "in heads"] = within(n, head, lambda v: v.roll(len(v) // 2))
    return found


def texts(permutation, head, n_texts=None):
    """Every "unit what" whose permutation this is, or whose inverse; rolls also by what is left to a full turn."""
    n, inverse = len(permutation), torch.argsort(permutation)
    found = set()
    for (unit, what, _), other in (n_texts or permutations(n, head)).items():
        if torch.equal(other, permutation) or torch.equal(other, inverse):
            found.add(f"{unit} {what}")
    for size, unit in ((1, "lanes"), (head, "heads")):
        if size and n % size == 0:
            found |= rolls(permutation, n, size, unit)
    if head:
        found |= {f"lanes rolled by {s}" for s in range(-head, head) if s and (
            torch.equal(within(n, head, lambda v: v.roll(s)), permutation))}
        found |= {f"lanes rolled by {-s}" for s in range(-head, head) if s and (
            torch.equal(within(n, head, lambda v: v.roll(s)), permutation))}
    return found


def rolls(permutation, n, size, unit):
    """"unit rolled by s" for a roll of whole units, s counted either way round."""
    if int(permutation[0]) % size or not torch.equal(torch.arange(n).roll(-int(permutation[0])), permutation):
        return set()
    s, count = int(permutation[0]) // size, n // size
    return {f"{unit} rolled by {m}" for m in (s, -s, s - count, count - s)} if s else set()
