"""ONNX: written by torch, checked, run by onnxruntime, brought to int8 by its quantiser.

The packages are an extra (`pip install 'ktan[export]'`), and are imported where they are used.
"""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from ktan.errors import UserError

SAMPLES: Final = "samples"
LOGITS: Final = "logits"
OPSET: Final = 18
"""Of 2022: what runtimes on devices have caught up with."""
_CHUNK = 64


def require_onnx() -> None:
    """Raises UserError when a package is missing."""
    needed = ("onnx", "onnxruntime", "onnxscript")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"this needs {' and '.join(missing)}; install with: pip install 'ktan[export]'"
        )


def write_onnx(deployed: nn.Module, example: Tensor, path: Path) -> None:
    """One file with the weights inside; any number of samples at once.

    `example`: raw samples, two at least. Raises whatever torch's exporter does for a network that
    it cannot follow, and onnx's ValidationError for a graph that is not sound.
    """
    import onnx

    with warnings.catch_warnings():
        # The exporter warns of its own insides.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            deployed,
            (example,),
            path,
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=OPSET,
            input_names=[SAMPLES],
            output_names=[LOGITS],
            dynamic_shapes={SAMPLES: {0: torch.export.Dim("batch")}},
        )
    onnx.checker.check_model(str(path), full_check=True)


class OnnxModel:
    """An ONNX file on this machine's CPU, called as the network is."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        """`threads`: cores it may use; all when None."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.inter_op_num_threads = 1
        options.intra_op_num_threads = threads or 0
        self._session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, samples: Tensor) -> Tensor:
        """Raw samples → float32 logits [n, classes]."""
        (logits,) = self._session.run([LOGITS], {SAMPLES: samples.contiguous().numpy()})
        return torch.from_numpy(np.asarray(logits))


def quantise(float_model: Path, samples: Tensor, path: Path) -> None:
    """Post-training static quantisation: int8 weights, a scale a channel; int8 activations, a
    scale and a zero point a tensor, from their range on `samples` (raw, [n, ...]).

    Batch norm is folded into the convolutions before. Written as QuantizeLinear and
    DequantizeLinear nodes (QDQ), which onnxruntime turns into int8 kernels.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    chunks = [{SAMPLES: chunk.contiguous().numpy()} for chunk in samples.split(_CHUNK)]

    class Samples(quantization.CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return chunks.pop(0) if chunks else None

    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = Path(scratch) / "prepared.onnx"
        quant_pre_process(str(float_model), str(prepared), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(prepared),
            str(path),
            Samples(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
