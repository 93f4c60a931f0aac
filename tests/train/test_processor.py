"""What a processor is taken to be good at."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shivacmb.train import backend, brain_zones, processor

ZEN3 = 'processor\t: 0\nmodel\t\t: 1\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 fma\n\n'
GENOA = ZEN3.replace('fma', 'fma avx512_bf16')
GRAVITON = 'processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd sve bf16\n'


@pytest.mark.parametrize(
    ('text', 'name', 'fast'),
    [
        (ZEN3, 'Some CPU', False),
        (GENOA, 'Some CPU', True),
        (ZEN3.replace('fma', 'fma amx_bf16 amx_tile'), 'Some CPU', True),
        (ZEN3.replace('fma', 'not_bf16'), 'Some CPU', False),
        (GRAVITON, None, True),
        (None, None, False),
    ],
)
def test_what_linux_tells(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str | None,
    name: str | None,
    *,
    fast: bool,
) -> None:
    path = tmp_path / 'cpuinfo'
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(processor, 'CPUINFO', path)
    assert processor.cpuinfo('model name') == name
    assert processor.processor_name() == (name or platform.processor() or platform.machine())
    assert processor.has_bfloat16() is fast


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ('device', 'own', 'fast'),
    [('cpu', False, False), ('cpu', True, True), ('NVIDIA H200', False, True)],
)
def test_a_gpu_needs_no_help(
    monkeypatch: pytest.MonkeyPatch, device: str, *, own: bool, fast: bool
) -> None:
    monkeypatch.setattr(backend, '_device', lambda *_: device)
    monkeypatch.setattr(backend, 'has_bfloat16', lambda: own)
    assert backend.computes_bfloat16() is fast


@pytest.mark.parametrize(('before', 'after'), [(None, '1'), ('0', '0')])
def test_onednn_unless_somebody_decided(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    # set first, so that what the call sets is taken back
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', before or '')
    if before is None:
        monkeypatch.delenv('TF_ENABLE_ONEDNN_OPTS')
    processor.ask_for_onednn()
    assert os.environ['TF_ENABLE_ONEDNN_OPTS'] == after


@pytest.mark.tensorflow
def test_a_training_asks_for_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('KERAS_BACKEND', 'tensorflow')
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', '')
    monkeypatch.delenv('TF_ENABLE_ONEDNN_OPTS')
    assert backend.start_backend(deterministic=False) == 'tensorflow'
    assert os.environ['TF_ENABLE_ONEDNN_OPTS'] == '1'


@pytest.mark.tensorflow
@pytest.mark.slow
def test_what_keras_was_told_elsewhere_does_not_count(tmp_path: Path) -> None:
    usual = {'floatx': 'float16', 'epsilon': 1e-7}
    other = {'backend': 'torch', 'image_data_format': 'channels_first'}
    (tmp_path / 'keras.json').write_text(json.dumps({**usual, **other}))
    code = (
        'from shivacmb.train.backend import start_backend\n'
        'name = start_backend(deterministic=True)\n'
        'import keras\n'
        'print(name, keras.config.image_data_format(), keras.config.dtype_policy().name)\n'
    )
    environment = {**os.environ, 'KERAS_HOME': str(tmp_path), 'KERAS_BACKEND': ''}
    done = subprocess.run(
        [sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == 'tensorflow channels_last float32\n', done.stderr


@pytest.mark.tensorflow
@pytest.mark.parametrize(('fast', 'used'), [(True, 'mixed_bfloat16'), (False, 'float32')])
def test_zones_are_trained_in_what_is_fast(
    monkeypatch: pytest.MonkeyPatch, *, fast: bool, used: str
) -> None:
    import keras

    monkeypatch.setattr(brain_zones, 'computes_bfloat16', lambda: fast)
    before = keras.config.dtype_policy().name
    recipe = replace(brain_zones.ZONE_RECIPE, build=lambda: keras.config.dtype_policy().name)
    assert brain_zones.new_network(recipe) == used
    assert keras.config.dtype_policy().name == before
