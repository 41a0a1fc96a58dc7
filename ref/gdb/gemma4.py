"""Commands for gdb that know the model: they stop at a tap, print a tensor by its name, and compare it with a case's golden.

    make debug && gdb -x ref/gdb/gemma4.py build/debug/gemma4-ref

    case tiny-prompt                        run this case, and compare with its golden
    tap attn.q_rope 5                       a breakpoint at the tap of layer 5; without a layer, of every layer
    next-tap [N]                            go on to the next step's tap, or to the Nth
    tensor [TAP] [--position P] [--head H]  shape, smallest, largest, RMS, values
    compare [TAP] [--position P] [--head H] the largest difference from the golden, and where

TAP is a name of spec/taps.md. Without one, tensor and compare take the tap where the program stands; a tap that it has passed keeps the
values that it had, although the program computes in place. Names without a layer mean the layer at hand. Every stop selects the line of the
step that has just been computed, so that list, print and info locals show it.
"""

import array
import difflib
import json
import math
import os
import re
import shlex
import subprocess

import gdb

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LIMIT = 1e-5  # relative RMS within which the reference agrees with every golden (make agreement)

# The table of taps, read from the source: [(id, name, shape)] in dataflow order; ref/taps.h explains it.
with open(os.path.join(ROOT, "ref", "taps.h"), encoding="utf-8") as header:
    TAPS = re.findall(r'X\((\w+),\s*\\\s*"([\w.]+)",\s*"(\w+)",', header.read())
NAMES = [name for _, name, _ in TAPS]
FIRST, LAST = NAMES.index("input"), NAMES.index("output")  # those of a layer
AXES = {"d": "hidden_size", "H": "num_attention_heads", "F": "intermediate_size", "E": "num_experts",
        "K": "top_k_experts", "M": "moe_intermediate_size", "V": "vocab_size"}
AXES_OF_LAYER = {"G": "num_key_value_heads", "D": "head_dim"}
BY_KEYS = ("attn.scores", "attn.probs")  # shown a position at a time, visible keys only


class Tensor:
    """What the forward pass has shown under one name: a row for each position, heads one after the other."""

    def __init__(self, name, letters, dims, ids):
        self.name, self.letters, self.ids = name, letters, ids
        self.dims = dims  # without the keys, of which each position sees some
        self.rows = {}  # position: (first key or 0, values)

    def heads(self, values):
        """A row as a list of heads; one, where the tap has none."""
        width = len(values) // self.dims[0] if len(self.letters) == 2 else len(values)
        return [values[i:i + width] for i in range(0, len(values), width)]


class State:
    """The case at hand, and every tensor that the program has shown since it started."""

    case = None
    tensors = {}
    here = None      # the name where the program stands
    layer = None
    stop_after = 0   # next-tap: how many new taps still to pass
    golden = {}      # tap: what gemma4-ref show --json has printed


def tap_name(tap, layer):
    return f"layers.{layer}.{NAMES[tap]}" if FIRST <= tap <= LAST else NAMES[tap]


def program():
    path = gdb.current_progspace().filename
    if not path:
        raise gdb.GdbError("no program: gdb -x ref/gdb/gemma4.py build/debug/gemma4-ref")
    return path


def show(case, tap):
    """A tensor of a case's golden, as gemma4-ref show prints it."""
    ran = subprocess.run([program(), "show", case, tap, "--json", "/dev/stdout"], cwd=ROOT, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise gdb.GdbError(ran.stderr.strip())
    return json.loads(ran.stdout)


# --- what the program shows: breakpoints on the functions that ref/forward.c calls after every step ---


def record(frame):
    """Keeps the rows that the tap of this frame shows. Returns whether they are the step's first ones in this chunk."""
    def argument(name):
        return frame.read_var(name)

    session, tap, layer = argument("s").dereference(), int(argument("id")), int(argument("layer"))
    config, letters, keys = session["model"]["config"], TAPS[tap][2], frame.name() == "tap_keys"
    dims = [int(config["layers"][layer][AXES_OF_LAYER[x]] if x in AXES_OF_LAYER else config[AXES[x]]) for x in letters if x != "T"]
    in_chunk, count, first_key, width = int(argument("t" if keys else "first_row")), 1, 0, math.prod(dims)
    if keys:
        first_key, width = int(argument("first_key")), width * int(argument("keys"))
    else:
        count = int(argument("rows"))
    first = int(session["length"]) + in_chunk
    if first == 0 and NAMES[tap] == "embed":
        State.tensors = {}
    name, ids = tap_name(tap, layer), NAMES[tap] == "router.topk_ids"
    if name not in State.tensors:
        State.tensors[name] = Tensor(name, letters, dims, ids)
    pointer = argument("ids" if ids else "values")
    size = pointer.type.target().sizeof
    memory = bytes(gdb.selected_inferior().read_memory(int(pointer), count * width * size))
    values = array.array("i" if ids else {4: "f", 8: "d"}[size], memory)
    for i in range(count):
        State.tensors[name].rows[first + i] = first_key, values[i * width:(i + 1) * width]
    State.here, State.layer = name, layer if FIRST <= tap <= LAST else None
    return not keys or in_chunk == 0


class Recorder(gdb.Breakpoint):
    """Passes every tap, to keep what it shows, and stops where next-tap wants it."""

    def __init__(self, function):
        super().__init__(function, internal=True)
        self.silent = True

    def stop(self):
        if record(gdb.newest_frame()) and State.stop_after > 0:
            State.stop_after -= 1
            return State.stop_after == 0
        return False


def on_stop(event):
    """Says at which tap the program stands, and selects the frame and the line of the step."""
    State.stop_after = 0
    frame, level = gdb.newest_frame() if isinstance(event, gdb.BreakpointEvent) else None, 0
    if frame is None or frame.name() not in ("tap_rows", "tap_keys"):
        return
    tensor = State.tensors[State.here]
    rows = sorted(tensor.rows)
    one = tensor.letters[-1] == "T" or len(rows) == 1
    print(f"{tensor.name}, " + (f"position {rows[-1]}" if one else f"positions {rows[0]} ... {rows[-1]}"))
    while frame.name() in ("tap", "tap_rows", "tap_keys"):
        frame, level = frame.older(), level + 1
    gdb.execute(f"frame level {level}")  # not frame.select(), which list does not follow


# --- arguments ---


def parse(text, command):
    """(words, {"position": P, "head": H}) of what was typed after a command."""
    words, options = [], {}
    rest = shlex.split(text)
    while rest:
        word, _, value = rest.pop(0).partition("=")
        if word in ("--position", "--head"):
            value = value or (rest.pop(0) if rest else "")
            if not value.isdigit():
                raise gdb.GdbError(f"{command}: {word}: expected a number, found '{value}'")
            options[word[2:]] = int(value)
        elif word.startswith("-"):
            raise gdb.GdbError(f"{command}: expected --position or --head, found '{word}'")
        else:
            words.append(word)
    return words, options


def tensor_named(words, command):
    """The tensor that a command is to take: the one at hand, or one that was passed."""
    if len(words) > 1:
        raise gdb.GdbError(f"{command}: expected one tap, found {' '.join(words)}")
    if not State.here:
        raise gdb.GdbError(f"{command}: no tap has been reached yet: type run")
    if gdb.selected_inferior().pid and gdb.newest_frame().name() in ("tap_rows", "tap_keys"):
        record(gdb.newest_frame())  # again: set variable may have changed it
    name = words[0] if words else State.here
    if name not in State.tensors and State.layer is not None and name in NAMES[FIRST:LAST + 1]:
        name = f"layers.{State.layer}.{name}"
    if name not in State.tensors:
        known = re.sub(r"^layers\.\d+\.", "", name) in NAMES
        raise gdb.GdbError(f"{command}: {name} is {'not reached yet' if known else 'no tap (spec/taps.md)'}")
    return State.tensors[name]


def chosen(tensor, options, command):
    """[(position, head, lane of the first value, values)] of what the options leave."""
    parts = []
    if "position" in options and options["position"] not in tensor.rows:
        reached = f"{min(tensor.rows)} ... {max(tensor.rows)}"
        raise gdb.GdbError(f"{command}: --position: expected one of those reached, {reached}, found {options['position']}")
    if "head" in options and (len(tensor.letters) != 2 or options["head"] >= tensor.dims[0]):
        heads = f"0 ... {tensor.dims[0] - 1}" if len(tensor.letters) == 2 else "a tap with heads"
        raise gdb.GdbError(f"{command}: --head: expected {heads}, found {options['head']} of {tensor.name}")
    for position in sorted(tensor.rows):
        first_key, values = tensor.rows[position]
        for head, lanes in enumerate(tensor.heads(values)):
            if options.get("position", position) == position and options.get("head", head) == head:
                parts.append((position, head, first_key, lanes))
    return parts


def place(tensor, position, head, lane):
    axis = {"T": "key", "K": "choice"}.get(tensor.letters[-1], "lane")
    first_axis = f"{'choice' if tensor.letters[0] == 'K' else 'head'} {head}, " if len(tensor.letters) == 2 else ""
    return f"position {position}, {first_axis}{axis} {lane}"


# --- commands ---


class Case(gdb.Command):
    """case ID: run this case of golden/cases, and compare with its golden."""

    def __init__(self):
        super().__init__("case", gdb.COMMAND_RUNNING)

    def invoke(self, text, from_tty):
        case = text.strip()
        path = os.path.join(ROOT, "golden", "cases", case + ".yaml")
        if not re.fullmatch(r"[a-z0-9-]+", case) or not os.path.exists(path):
            raise gdb.GdbError(f"case: expected the id of a case (build/gemma4-check list), found '{case}'")
        with open(path, encoding="utf-8") as manifest:
            text = manifest.read()
        name, first, schedule = (re.search(pattern, text, re.M).group(1) for pattern in
                                 (r"^checkpoint:\n  name: *(\S+)", r"^first_position: *(\d+)", r"^schedule: *\[([^]]*)\]"))
        folders = [os.path.join(where, "checkpoints", name) for where in ("golden", "build")]
        folder = next((x for x in folders if os.path.exists(os.path.join(ROOT, x, "model.safetensors"))), None)
        if not folder:
            raise gdb.GdbError(f"case: {folders[-1]} is not there: make agreement writes it")
        tokens = show(case, "tokens")["values"]
        words = ["run", "--model", os.path.join(ROOT, folder), "--tokens", ",".join(map(str, tokens)),
                 "--schedule", ",".join(re.findall(r"\d+", schedule)), "--first-position", first]
        gdb.execute("set args " + " ".join(map(shlex.quote, words)))
        State.case, State.golden = case, {}
        print(f"{case}: {len(tokens)} tokens, {folder}")


class Tap(gdb.Command):
    """tap NAME [LAYER]: a breakpoint at a tap (spec/taps.md) of one layer, or of every layer.

tap attn.q_rope 5 and tap layers.5.attn.q_rope are the same; info breakpoints lists it, delete removes it."""

    def __init__(self):
        super().__init__("tap", gdb.COMMAND_BREAKPOINTS)

    def invoke(self, text, from_tty):
        words = text.split()
        name, layer = words[0] if words else "", words[1] if len(words) == 2 else None
        prefixed = re.fullmatch(r"layers\.(\d+)\.(.+)", name)
        if prefixed and layer is None:
            layer, name = prefixed.groups()
        if name not in NAMES or name.startswith("logprobs"):
            near = difflib.get_close_matches(name, NAMES, 1)
            raise gdb.GdbError(f"tap: expected a tap's name (spec/taps.md), found '{name}'" + (f": is {near[0]} meant?" if near else ""))
        per_layer = FIRST <= NAMES.index(name) <= LAST
        if len(words) > 2 or (layer is not None and not (per_layer and layer.isdigit())):
            expected = name + (" and the number of a layer" if per_layer else ", which is in no layer")
            raise gdb.GdbError(f"tap: expected {expected}, found '{text}'")
        stop = gdb.Breakpoint("tap_keys" if name in BY_KEYS else "tap_rows")
        stop.condition = f"id == GEMMA4_TAP_{TAPS[NAMES.index(name)][0]}" + (f" && layer == {layer}" if layer is not None else "")
        stop.silent = True


class NextTap(gdb.Command):
    """next-tap [N]: go on to the tap of the next step, or of the Nth.

Scores and probabilities, which are shown a position at a time, count once."""

    def __init__(self):
        super().__init__("next-tap", gdb.COMMAND_RUNNING)

    def invoke(self, text, from_tty):
        count = text.strip() or "1"
        if not count.isdigit() or int(count) == 0:
            raise gdb.GdbError(f"next-tap: expected a number of steps, found '{count}'")
        if not gdb.selected_inferior().pid:
            raise gdb.GdbError("next-tap: the program does not run: case ID, then run")
        State.stop_after = int(count)
        gdb.execute("continue")


class ShowTensor(gdb.Command):
    """tensor [TAP] [--position P] [--head H]: shape, statistics and values of the tap at hand, or of one that was passed."""

    def __init__(self):
        super().__init__("tensor", gdb.COMMAND_DATA)

    def invoke(self, text, from_tty):
        words, options = parse(text, "tensor")
        tensor = tensor_named(words, "tensor")
        parts = chosen(tensor, options, "tensor")
        finite = [x for *_, values in parts for x in values if math.isfinite(x)]
        dims = [len(tensor.rows), *tensor.dims] + (["visible keys"] if tensor.letters[-1] == "T" else [])
        print(f"{tensor.name}\nshape   [{', '.join(map(str, dims))}]  {', '.join('T' + tensor.letters)}")
        if finite:
            rms = math.sqrt(sum(x * x for x in finite) / len(finite))
            print(f"min {min(finite):.9g}  max {max(finite):.9g}" + ("" if tensor.ids else f"  RMS {rms:.9g}"), end="  ")
        print(f"not finite {sum(len(values) for *_, values in parts) - len(finite)}")
        named = bool(options)
        for position, head, first_key, values in parts if named else parts[:1]:
            keys = f", keys from {first_key}" if tensor.letters[-1] == "T" else ""
            print(place(tensor, position, head, first_key).rpartition(",")[0] + keys)
            for i in range(0, len(values) if named else min(6, len(values)), 6):
                print(f"  {i:6}" + "".join(f"  {x:14.9g}" for x in values[i:i + 6]))


class Compare(gdb.Command):
    """compare [TAP] [--position P] [--head H]: the largest difference from the case's golden, and where.

Takes the tap at hand, or one that was passed; of a golden that holds some positions only, these."""

    def __init__(self):
        super().__init__("compare", gdb.COMMAND_DATA)

    def invoke(self, text, from_tty):
        words, options = parse(text, "compare")
        tensor = tensor_named(words, "compare")
        if not State.case:
            raise gdb.GdbError("compare: with which golden? case ID says it, before the program runs")
        if tensor.name not in State.golden:
            State.golden[tensor.name] = show(State.case, tensor.name)
        golden = State.golden[tensor.name]
        width, rows = math.prod(golden["shape"][1:]), {position: i for i, position in enumerate(golden["positions"])}
        lanes = width // (golden["shape"][1] if len(golden["shape"]) == 3 else 1)
        largest, where, squares, error, count, positions = -1.0, None, 0.0, 0.0, 0, set()
        for position, head, first_key, values in chosen(tensor, options, "compare"):
            if position not in rows:
                continue
            start = rows[position] * width + head * lanes + first_key
            positions.add(position)
            for lane, (mine, expected) in enumerate(zip(values, golden["values"][start:start + len(values)])):
                difference = abs(mine - expected) if math.isfinite(mine) else math.inf
                count, error, squares = count + 1, error + difference**2, squares + expected**2
                if difference > largest:
                    largest, where = difference, (place(tensor, position, head, first_key + lane), mine, expected)
        if where is None:
            held = ", ".join(map(str, sorted(rows)))
            raise gdb.GdbError(f"compare: none of these positions of {tensor.name} is in the golden of {State.case}, which holds {held}")
        relative = math.sqrt(error / squares) if squares else (0.0 if error == 0 else math.inf)
        agrees = error == 0 if tensor.ids else relative <= LIMIT
        print(f"{tensor.name}: {count} values of {len(positions)} position{'s' if len(positions) > 1 else ''} beside {State.case}'s golden")
        print(f"largest difference {largest:.3g} at {where[0]}: here {where[1]:.9g}, golden {where[2]:.9g}")
        limit = "ids are equal or wrong" if tensor.ids else f"limit {LIMIT:g}"
        print(f"relative RMS {relative:.2g}: {'agrees' if agrees else 'DIFFERS'} ({limit})")


for command in (Case, Tap, NextTap, ShowTensor, Compare):
    command()
for function_name in ("tap_rows", "tap_keys"):
    Recorder(function_name)
gdb.events.stop.connect(on_stop)
