"""Node for step 8: the ensemble of networks."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, Directory, File, TraitedSpec, traits

from shivacmb.interfaces.base import ScanInterface
from shivacmb.models.service import EnsembleRequest, predict_file, request_prediction

#: Beside the node's output, for the run's log.
PREDICTION_FILE = 'prediction.json'


class _PredictInputSpec(BaseInterfaceInputSpec):
    in_file = File(exists=True, mandatory=True, desc='.npy of float32 [X, Y, Z, C], scaled')
    bundle = Directory(exists=True, mandatory=True, desc='folder of the model bundle')
    engine = traits.Enum('auto', 'openvino', 'tensorflow', usedefault=True, desc='which library')
    device = traits.Enum('auto', 'cpu', 'gpu', usedefault=True, nohash=True, desc='where to run')
    threads = traits.Int(1, usedefault=True, nohash=True, desc='processor threads')
    trust_model = traits.Bool(
        False,
        usedefault=True,
        nohash=True,
        desc='load networks that carry Python code',
    )
    service = traits.Str(
        '', usedefault=True, nohash=True, desc='address of a process that holds the networks'
    )


class _PredictOutputSpec(TraitedSpec):
    out_file = File(desc='.npy of float32 [F, X, Y, Z]: probability from each fold')
    prediction = traits.Dict(desc='library, device and arithmetic that were used')


@lru_cache(maxsize=1)
def _ensemble(request: EnsembleRequest) -> Any:
    return request.load()


class Predict(ScanInterface):
    """Ask the running service, or load the networks once in this process."""

    input_spec = _PredictInputSpec
    output_spec = _PredictOutputSpec

    def _run(self, cwd: Path) -> None:
        inputs = self.inputs
        folds = cwd / 'folds.npy'
        if inputs.service:
            prediction = request_prediction(inputs.service, Path(inputs.in_file), folds)
        else:
            request = EnsembleRequest(
                inputs.bundle, inputs.engine, inputs.device, inputs.threads, inputs.trust_model
            )
            prediction = predict_file(_ensemble(request), Path(inputs.in_file), folds)
        (cwd / PREDICTION_FILE).write_text(json.dumps(prediction), encoding='utf-8')
        self._results.update(out_file=str(folds), prediction=prediction)
