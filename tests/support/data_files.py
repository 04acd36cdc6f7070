"""Fields written to files of every kind, as somebody's own scripts write them."""

from __future__ import annotations

import numpy as np
import torch
from safetensors.torch import save_file

import sizetransfer as st
from sizetransfer.contracts.randomness import stream

KINDS = ("npy", "npz", "packed.npz", "safetensors", "zarr", "h5")


def write(folder, kind, array, name="fields"):
    """Write one array and return the path."""
    path = folder / f"{name}.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez(path, **{name: array})
    elif kind == "packed.npz":
        np.savez_compressed(path, **{name: array})
    elif kind == "safetensors":
        native = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("="))
        save_file({name: torch.from_numpy(native)}, path)
    elif kind == "zarr":
        zarr = __import__("zarr")
        zarr.save_array(path, array)
    else:
        h5py = __import__("h5py")
        with h5py.File(path, "w") as file:
            file.create_dataset(f"run/{name}", data=array)
    return path


def gaussian_fields(count, size, *, dim=2, mass=0.5, name=0):
    """Fields of the Gaussian teacher, ``(count, *S)``."""
    teacher = st.teacher("gaussian", dim=dim, mass=mass).double()
    return teacher.sample(count, size, generator=stream("own data", name, size)).x[:, 0].numpy()


def dataset(*paths, boundary="periodic", **fields):
    """The teacher of some files, in double precision."""
    given = [path if isinstance(path, dict) else str(path) for path in paths]
    return st.teacher("dataset", files=given, boundary=boundary, **fields).double()


def drawn(teacher, count, size, *names):
    """Draw fields by a stream of some name."""
    return teacher.sample(count, size, generator=stream(*names))
