"""llama.cpp: the scheduler's callback sees every node of the graph by its name. Through the package llama-cpp-py-sync, which is
llama.cpp's own shared libraries and its C API."""

import ctypes
import importlib.metadata
import importlib.util
import os
import re

OLD_GLIBC = os.path.join(os.path.dirname(importlib.util.find_spec("llama_cpp_py_sync").origin), "c23.so")
if os.path.exists(OLD_GLIBC):  # prepare.py made it
    ctypes.CDLL(OLD_GLIBC, mode=ctypes.RTLD_GLOBAL)

import llama_cpp_py_sync
import numpy as np
from cffi import FFI
from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

LLAMA, LIB = get_ffi(), get_lib()
GGML = FFI()
GGML.cdef("""
struct ggml_tensor { int type; void *buffer; int64_t ne[4]; size_t nb[4]; int op; int32_t op_params[16]; int32_t flags; void *src[10];
                     void *view_src; size_t view_offs; void *data; char name[64]; ...; };
""".replace(" ...; ", " "))
GGML.cdef("void ggml_backend_tensor_get(const struct ggml_tensor *tensor, void *data, size_t offset, size_t size);"
          "size_t ggml_nbytes(const struct ggml_tensor *tensor);")
BASE = GGML.dlopen(os.path.join(os.path.dirname(llama_cpp_py_sync.__file__), "libggml-base.so.0"))
F32, F16, BF16, I32 = 0, 1, 30, 26

# A node of layer N is called NAME-N.
WANTED = re.compile(r"(inp_scaled|result_norm|result_output|(attn|ffn|l|[QKV]cur|kqv)_?[a-z0-9_]*-\d+)")


def version():
    return importlib.metadata.version("llama-cpp-py-sync")


def values(tensor):
    """A node as an array, its axes in the usual order (ggml's first is the innermost)."""
    size = BASE.ggml_nbytes(tensor)
    data = GGML.new("char[]", size)
    BASE.ggml_backend_tensor_get(tensor, data, 0, size)
    kind = {F32: np.float32, F16: np.float16, I32: np.int32}[tensor.type]
    strided = np.lib.stride_tricks.as_strided(np.frombuffer(GGML.buffer(data), kind), tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1])
    return strided.copy()


@LLAMA.callback("void(enum ggml_log_level, const char *, void *)")
def quiet(_level, _text, _user):
    pass


def load(checkpoint, dtype):
    LIB.llama_log_set(quiet, LLAMA.NULL)
    LIB.llama_backend_init()
    model = LIB.llama_model_load_from_file(checkpoint.encode(), LIB.llama_model_default_params())
    if model == LLAMA.NULL:
        raise RuntimeError(f"{checkpoint}: llama.cpp does not load it")
    return model, dtype


def run(loaded, tokens, first_position, schedule):
    model, dtype = loaded
    found, at = {}, 0

    @LLAMA.callback("bool(struct ggml_tensor *, bool, void *)")
    def seen(node, ask, _user):
        tensor = GGML.cast("struct ggml_tensor *", int(LLAMA.cast("uintptr_t", node)))
        name = GGML.string(tensor.name).decode()
        wanted = WANTED.fullmatch(name) is not None
        if wanted and not ask:
            found.setdefault(name, {})[at] = values(tensor).reshape(length, -1)
        return wanted or not ask

    params = LIB.llama_context_default_params()
    # A chunk goes through the graph as a whole, whatever its length: what is seen is a chunk's.
    params.n_ctx = params.n_batch = params.n_ubatch = max(512, -(-len(tokens) // 256) * 256)
    params.n_threads, params.n_threads_batch = 2, 2
    params.cb_eval = seen
    if dtype == "float32":  # the defaults are a float16 cache and fused attention
        params.type_k = params.type_v = F32
        params.flash_attn_type = 0
    context = LIB.llama_init_from_model(model, params)
    batch = LIB.llama_batch_init(len(tokens), 0, 1)
    for length in schedule:
        batch.n_tokens = length
        for i in range(length):
            batch.token[i], batch.pos[i] = tokens[at + i], first_position + at + i
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, 0, 1
        if LIB.llama_decode(context, batch):
            raise RuntimeError("llama_decode failed")
        at += length
    LIB.llama_batch_free(batch)
    LIB.llama_free(context)
    return {name: np.concatenate([chunks[begin] for begin in sorted(chunks)]) for name, chunks in found.items()}
