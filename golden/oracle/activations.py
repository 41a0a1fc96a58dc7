"""Activation files (spec/activations.md): HDF5 with one dataset a tap, the tap's name with '/' for '.' as its path."""

import numpy as np
import torch

import h5py

FORMAT, FORMAT_VERSION = "gemma4-activations", 1
CHUNK_BYTES = 1 << 20


def to_stored(tensor):
    """(array as it lies in the file, {attribute: value}): bfloat16 is stored as uint16 and says so."""
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.uint16).numpy(), {"dtype": "bfloat16"}
    return tensor.contiguous().numpy(), {}


def from_stored(dataset):
    """A dataset's values as float32, or int32 for ids."""
    array = dataset[()]
    if dataset.attrs.get("dtype") == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.int32 if array.dtype.kind in "iu" else np.float32)


def write_activations(path, taps, attributes, rows=None, compress=True):
    """Writes {tap name: torch.Tensor [T, ...]} in the tensors' own types.

    attributes  root attributes beside format and format_version: strings, ints
    rows        ascending positions: only these rows are stored, and each dataset but tokens and positions says so by its
                attribute `rows`; None stores all

    The same taps give the same bytes: no times are tracked and the order of creation is that of `taps`.
    """
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_version"] = FORMAT_VERSION
        for key, value in attributes.items():
            file.attrs[key] = value
        for name, tensor in taps.items():
            array, dataset_attributes = to_stored(tensor)
            if rows is not None and name not in ("tokens", "positions"):
                array = array[np.asarray(rows)]
                dataset_attributes["rows"] = np.asarray(rows, dtype=np.int32)
            filters = dict(chunks=chunk_shape(array), shuffle=True, compression="gzip", compression_opts=9) if compress else {}
            dataset = file.create_dataset(name.replace(".", "/"), data=array, track_times=False, **filters)
            for key, value in dataset_attributes.items():
                dataset.attrs[key] = value


def chunk_shape(array):
    """As many whole rows as fit into CHUNK_BYTES, at least one."""
    row_bytes = max(1, array[:1].nbytes)
    return (max(1, min(array.shape[0], CHUNK_BYTES // row_bytes)), *array.shape[1:])


def read_activations(path):
    """({tap name: array}, {tap name: rows or None}, {root attribute: value}) of a file that write_activations wrote."""
    taps, rows = {}, {}
    with h5py.File(path, "r") as file:

        def visit(name, item):
            if isinstance(item, h5py.Dataset):
                tap = name.replace("/", ".")
                taps[tap] = from_stored(item)
                rows[tap] = item.attrs["rows"] if "rows" in item.attrs else None

        file.visititems(visit)
        return taps, rows, dict(file.attrs)
