"""Shipped times of GPUs: used below the user's own and above the model, and never a reason to crash."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gpu_extra import need

need("triton", "torch")

import toy_cuda  # noqa: E402

from kernelwright.kernels import dispatch, tuning  # noqa: E402
from kernelwright.kernels.cache import Entry  # noqa: E402
from kernelwright.kernels.cuda import device, tables  # noqa: E402
from kernelwright.kernels.cuda.tables import Table  # noqa: E402
from kernelwright.kernels.errors import CacheWarning, ConfigError, DeviceError  # noqa: E402
from kernelwright.kernels.kernel import Kernel  # noqa: E402
from kernelwright.kernels.op import get_op  # noqa: E402

SPEC = toy_cuda.spec(200)
HEAD = {"commit": "0123456789abcdef", "started": "2026-01-01T00:00:00"}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("KERNELWRIGHT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(tables, "FOLDER", tmp_path / "tables")
    (tmp_path / "tables").mkdir()
    tables.forget()
    with device.assume(90):
        yield tmp_path / "tables"
    tables.forget()


def _entries(kernel: Kernel, seconds: dict[int, float]) -> list[Entry]:
    op = get_op("toy")
    attrs = op.complete({"scale": 2.0})
    problem = tuning.key_of(op, dispatch.complete_specs(op, (SPEC, SPEC), attrs), attrs)
    return [
        Entry(kernel.id, kernel.source_digest(), problem, 1, config, seconds[config["block"]], 5, "2026")
        for config in toy_cuda.CONFIGS
        if config["block"] in seconds
    ]


def _ship(*entries: Entry) -> Path:
    return tables.write(Table("NVIDIA H200", 90, entries, HEAD))


def _chosen() -> Any:
    return dispatch.choose(get_op("toy"), (SPEC, SPEC), {"scale": 2.0})


def test_nothing_is_shipped_before_a_record_is_kept() -> None:
    assert not list(Path(tables.__file__).parent.glob("*.json"))


def test_shipped_times_come_before_the_model_and_after_the_users_own(elsewhere: Path) -> None:
    with toy_cuda.toy_on_cuda() as kernel:
        assert _chosen().config["block"] == 64
        assert _ship(*_entries(kernel, {64: 3e-3, 128: 1e-3})) == elsewhere / "nvidia-h200.json"
        assert _chosen().config["block"] == 128
        tuning.default_cache().put(_entries(kernel, {64: 5e-4}))
        assert _chosen().config["block"] == 64


def test_times_of_another_gpu_say_nothing() -> None:
    with toy_cuda.toy_on_cuda() as kernel:
        _ship(*_entries(kernel, {64: 3e-3, 128: 1e-3}))
        with device.assume(100):
            assert _chosen().config["block"] == 64


def test_explain_says_what_is_shipped() -> None:
    def explained(scale: float) -> str:
        return str(dispatch.explain(get_op("toy"), (SPEC, SPEC), {"scale": scale}))

    with toy_cuda.toy_on_cuda() as kernel:
        assert "times: none measured here; no table is shipped for this GPU" in explained(2.0)
        _ship(*_entries(kernel, {64: 3e-3, 128: 1e-3}))
        there = "nvidia-h200.json (2 times, 0123456789ab, 2026-01-01T0"
        assert f"times: none measured here; 2 of such calls shipped in {there}" in explained(2.0)
        assert "none of such calls shipped in" in explained(9.0)


def test_tuning_measures_what_only_a_table_knows() -> None:
    from kernelwright.kernels.cuda import launch

    with toy_cuda.toy_on_cuda() as kernel:
        _ship(*_entries(kernel, {64: 3e-3, 128: 1e-3}))
        before = launch.set_runtime(_NoGpu())
        try:
            with pytest.raises(RuntimeError, match="was asked for memory"):
                tuning.tune(get_op("toy"), (SPEC, SPEC), {"scale": 2.0})
        finally:
            launch.set_runtime(before)


def test_without_a_gpu_nothing_is_tuned_and_the_reason_is_told() -> None:
    from kernelwright.kernels.cuda.device import available

    if available():
        pytest.skip("there is a GPU")
    with toy_cuda.toy_on_cuda(), pytest.raises(DeviceError, match="there is no 'cuda' here: torch"):
        tuning.tune(get_op("toy"), (SPEC, SPEC), {"scale": 2.0})


class _NoGpu:
    def number(self, device: str) -> int:
        return 0

    def clock(self) -> None:
        return None

    def empty(self, *arguments: Any) -> None:
        raise RuntimeError("was asked for memory")


def test_times_of_an_older_kernel_are_reported_once_and_ignored() -> None:
    with toy_cuda.toy_on_cuda() as kernel:
        _ship(*(replace(entry, source="older") for entry in _entries(kernel, {64: 3e-3, 128: 1e-3})))
        with pytest.warns(CacheWarning, match="shipped times of toy/toy_cuda/add are of an older version"):
            assert _chosen().config["block"] == 64
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert _chosen().config["block"] == 64


def _spoiled(document: Any) -> Iterator[str]:
    yield ""
    yield "[]"
    yield "{"
    yield json.dumps(document | {"format": 99})
    yield json.dumps(document | {"kind": "another"})
    yield json.dumps(document | {"entries": [{"kernel": "a"}]})
    yield json.dumps({key: value for key, value in document.items() if key != "device"})
    yield json.dumps(document | {"device": "NVIDIA A100"})
    yield json.dumps(document | {"entries": [document["entries"][0] | {"seconds": -1}]})
    yield json.dumps(document | {"entries": [document["entries"][0] | {"config": 3}]})


def test_a_table_that_means_nothing_is_reported_once_and_ignored(elsewhere: Path) -> None:
    with toy_cuda.toy_on_cuda() as kernel:
        path = _ship(*_entries(kernel, {64: 3e-3, 128: 1e-3}))
        texts = list(_spoiled(json.loads(path.read_text())))
        assert len(texts) == 10
        for text in texts:
            path.write_text(text)
            tables.forget()
            with pytest.raises(ConfigError):
                Table.parsed(text)
            with pytest.warns(CacheWarning, match=r"nvidia-h200.json are ignored: .* --ship RECORD"):
                assert _chosen().config["block"] == 64
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert _chosen().config["block"] == 64
        path.write_bytes(b"\xff\xfe\x00")
        tables.forget()
        with pytest.warns(CacheWarning, match="are ignored"):
            _chosen()
        # A good one beside it still serves.
        other = elsewhere / "b.json"
        other.write_text(Table("NVIDIA H200", 90, tuple(_entries(kernel, {64: 3e-3, 128: 1e-3}))).text)
        tables.forget()
        with pytest.warns(CacheWarning):
            assert _chosen().config["block"] == 128


def test_a_table_is_what_it_was_when_it_is_read_again() -> None:
    with toy_cuda.toy_on_cuda() as kernel:
        table = Table("NVIDIA H200", 90, tuple(_entries(kernel, {64: 3e-3, 128: 1e-3})), HEAD)
        again = Table.parsed(table.text)
    assert sorted(again.entries, key=lambda e: e.key) == sorted(table.entries, key=lambda e: e.key)
    assert (again.device, again.capability, again.head) == ("NVIDIA H200", 90, HEAD)
