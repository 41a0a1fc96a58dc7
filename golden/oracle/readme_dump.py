"""Runs README's Python as it stands there, on a golden's layer outputs and logits: gemma4-check must say that the dump conforms.

    build/oracle/bin/python golden/oracle/readme_dump.py --check build/gemma4-check
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

import h5py

CASE, GOLDEN = "tiny-prompt", "golden/cases/tiny-prompt.h5"


def main():
    """Exits with the status of gemma4-check."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", required=True)
    check = os.path.abspath(parser.parse_args().check)
    with open("README.md", encoding="utf-8") as f:
        (code,) = re.findall(r"^```python\n(.*?)^```", f.read(), re.M | re.S)
    with h5py.File(GOLDEN) as g:
        layers = len(g["layers"])
        names = {"tokens": g["tokens"][()], "layer_outputs": [g[f"layers/{n}/output"][()] for n in range(layers)], "logits": g["logits"][()]}
    with tempfile.TemporaryDirectory() as folder:
        here = os.getcwd()
        os.chdir(folder)
        exec(compile(code, "README.md", "exec"), names)
        os.chdir(here)
        ran = subprocess.run([check, CASE, os.path.join(folder, "mine.h5"), "--require", "layers"], capture_output=True, text=True, check=False)
    last = (ran.stdout or ran.stderr).strip().splitlines()[-1]
    print(f"README.md: its Python's dump of {CASE}: {last}")
    sys.exit(ran.returncode)


if __name__ == "__main__":
    main()
