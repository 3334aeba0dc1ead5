"""What jobs share: imported once by the server that they are forked from. Imports only: no tensor, no CUDA call."""

import gc
from importlib import import_module

#: What a job imports when it comes to it.
MODULES = (
    "h5py",
    "hydra._internal.hydra",
    "matplotlib.backends.backend_agg",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "pyarrow.parquet",
    "scipy.spatial",
    "sklearn.covariance",
    "sklearn.ensemble",
    "sklearn.kernel_approximation",
    "sklearn.mixture",
    "sklearn.svm",
    "tensorboard.plugins.projector",
    "torch.utils.tensorboard",
    "straylight.callbacks.drawings",
    "straylight.data",
    "straylight.detectors",
    "straylight.engines.local.child",
    "straylight.export",
    "straylight.job.perform",
    "straylight.job.train",
    "straylight.scoring.worker",
    "straylight.sweep.launch",
)

for name in MODULES:
    try:
        import_module(name)
    except ImportError:  # a job that needs it says so
        continue

gc.collect()
gc.freeze()  # so that a collection in a job copies none of the pages that they share
