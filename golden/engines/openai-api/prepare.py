"""The server is vLLM's: what its recipe prepares."""

import os
import runpy

runpy.run_path(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "vllm", "prepare.py"))
