"""Declaring kernels, finding them, and what happens to wrong or broken declarations."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_op import SPECS, TOY, add_kernel

import kernelwright as kw
from kernelwright.kernels import discovery, registry, settings
from kernelwright.kernels.errors import DeviceError, DTypeError, ExtensionWarning, RegistrationError
from kernelwright.kernels.op import Op

pytestmark = pytest.mark.usefixtures("toy")
OUT_SPECS = (*SPECS, SPECS[0])

FILE = """
import kernelwright as kw

@kw.kernel("toy", dtypes=("float32", "float64"), configs=[{"block": 4}, {"block": 8}])
def from_a_file(x, y, out, block, scale):
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            out[i, j] = x[i, j] + scale * y[i, j]
"""


@pytest.fixture
def kernel_file(tmp_path: Path) -> Path:
    path = tmp_path / "mykernels.py"
    path.write_text(FILE)
    return path


def test_a_declared_kernel_is_found_with_all_that_was_declared() -> None:
    @kw.kernel("toy", dtypes="float64", name="mine", rank=3, configs=[{"block": 4}])
    def function(x: Any, y: Any, out: Any, block: int) -> None: ...

    (found,) = registry.kernels_for("toy")
    assert found.id == "toy/test_registry/mine"
    assert (found.op, found.device, found.dtypes) == ("toy", "cpu", ("float64",))
    assert (found.language, found.rank, found.binds) == ("numba", 3, False)
    assert found.function is function, "the decorator hands the function back as it is"
    assert found.source_file == __file__
    assert Path(__file__).read_text().splitlines()[found.line - 1].strip().startswith("@kw.kernel")
    assert len(found.source_digest()) == 64
    assert registry.kernels_for("toy", "cuda") == ()


def test_kernels_of_a_device_are_found_whatever_its_number() -> None:
    registry.kernel("toy", device="cuda:0", binds=True)(_bind)
    assert [k.name for k in registry.kernels_for("toy", "cuda:3")] == ["_bind"]


def _bind(specs: Any, attrs: Any, config: Any, threads: int) -> Any: ...


@pytest.mark.parametrize(
    ("declared", "error", "text"),
    [
        ({"op_name": "tpy"}, RegistrationError, "no op 'tpy'.*Did you mean 'toy'"),
        ({"dtypes": "float23"}, DTypeError, r"@kernel\('toy', dtypes=...\): 'float23' is none of"),
        ({"dtypes": ()}, RegistrationError, r"names no dtype; write dtypes=\('float32',\)"),
        ({"device": "tpu"}, DeviceError, "'tpu' is unknown"),
        ({"rank": 1.5}, RegistrationError, "rank must be a whole number, got 1.5"),
        ({"error": 3.0}, RegistrationError, r"error is ExtraError\(factor, why\).* got 3.0"),
        ({"error": kw.ExtraError(0.5, "rounds")}, RegistrationError, "with a factor of 1 or more"),
        (
            {"configs": [{"block": [4]}]},
            RegistrationError,
            r"str, int, float or bool, got 'block': \[4\] \(list\)",
        ),
        ({"configs": ["block"]}, RegistrationError, "a configuration is a dict"),
        ({"binds": True}, RegistrationError, r"fn\(specs, attrs, config, threads\), got \(x, y, out\)"),
    ],
)
def test_a_declaration_that_means_nothing_is_refused(
    declared: dict[str, Any], error: type[Exception], text: str
) -> None:
    def function(x: Any, y: Any, out: Any) -> None: ...

    with pytest.raises(error, match=text):
        kw.kernel(**{"op_name": "toy", **declared})(function)
    assert registry.kernels_for("toy") == ()


def test_a_function_without_room_for_outputs_is_refused() -> None:
    with pytest.raises(RegistrationError, match=r"write def short\(x, y, out\)"):

        @kw.kernel("toy")
        def short(x: Any, y: Any) -> None: ...


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(RegistrationError, match="decorates a Python function"):
        kw.kernel("toy")(print)


def test_two_kernels_of_one_name_are_refused_with_both_places() -> None:
    @kw.kernel("toy", name="same")
    def first(x: Any, y: Any, out: Any) -> None: ...

    with pytest.raises(RegistrationError) as caught:

        @kw.kernel("toy", name="same", rank=5)
        def second(x: Any, y: Any, out: Any) -> None: ...

    assert str(caught.value).count("test_registry.py:") == 2
    assert "give one another name" in str(caught.value)


def test_two_kernels_of_one_rank_without_a_model_are_refused() -> None:
    add_kernel("first")
    with pytest.raises(RegistrationError, match=r"of rank 0 for toy of float32.*@kernel\(\.\.\., rank=1\)"):
        add_kernel("second")
    add_kernel("with a model", model=lambda *_: 1.0)
    add_kernel("another dtype", dtypes="float64")
    add_kernel("another rank", rank=1)
    assert len(registry.kernels_for("toy")) == 4


def test_unregister_makes_room_again() -> None:
    first = add_kernel("first")
    registry.unregister(first)
    add_kernel("second")
    assert [k.name for k in registry.kernels_for("toy")] == ["second"]
    registry.unregister(first)


def test_every_change_raises_the_generation_and_empties_the_memos() -> None:
    memo = settings.current().memo
    before = registry.generation()
    memo["stale"] = print
    kernel = add_kernel("new")
    assert registry.generation() > before
    assert "stale" not in memo
    memo["stale"] = print
    registry.unregister(kernel)
    assert "stale" not in memo


def test_supports_answers_with_a_reason() -> None:
    kernel = add_kernel(
        "square", supports=lambda s, attrs: None if s[0].shape[0] == s[0].shape[1] else "not square"
    )
    assert kernel.why_not(OUT_SPECS, {}) == "not square"
    square = (kw.TensorSpec((3, 3), "float32"),) * 3
    assert kernel.why_not(square, {}) is None
    wide = (kw.TensorSpec((3, 3), "float64"),) * 3
    assert kernel.why_not(wide, {}) == "takes float32, not float64"


def test_a_supports_that_fails_is_a_reason_not_a_crash() -> None:
    kernel = add_kernel("broken", supports=lambda specs, attrs: specs[9].shape)
    assert "supports() raised IndexError" in str(kernel.why_not(OUT_SPECS, {}))


def test_configurations_may_depend_on_the_call() -> None:
    kernel = add_kernel("sized", configs=lambda specs, attrs, threads: [{"n": specs[0].size * threads}])
    assert kernel.configurations(OUT_SPECS, {}, 2) == [{"n": 70}]
    plain = add_kernel("plain", rank=1)
    assert plain.configurations(OUT_SPECS, {}, 2) == [{}]
    wrong = add_kernel("wrong", rank=2, configs=lambda *_: [{"n": None}])
    with pytest.raises(RegistrationError, match=r"wrong.*'n': None"):
        wrong.configurations(OUT_SPECS, {}, 2)


def test_parameters_after_the_arrays_are_looked_up_by_name() -> None:
    @kw.kernel("toy", configs=[{"block": 4}])
    def named(x: Any, y: Any, out: Any, scale: float, threads: int, block: int) -> None: ...

    (kernel,) = registry.kernels_for("toy")
    assert kernel._trailing_values(3, {"scale": 2.0}, {"block": 4}, 7) == {
        "scale": 2.0,
        "threads": 7,
        "block": 4,
    }
    with pytest.raises(
        RegistrationError, match=r"no configuration or attribute is called block\..*threads, scale"
    ):
        kernel._trailing_values(3, {"scale": 2.0}, {}, 7)
    with pytest.raises(RegistrationError, match="7 arrays"):
        kernel._trailing_values(7, {"scale": 2.0}, {"block": 4}, 7)


def test_a_file_is_loaded_once_and_again_after_an_edit(kernel_file: Path) -> None:
    (first,) = registry.load_file(kernel_file)
    assert first.id == "toy/mykernels/from_a_file"
    assert registry.load_file(str(kernel_file)) == (first,)
    kernel_file.write_text("\n\n\n" + FILE.replace("from_a_file", "renamed"))
    (second,) = registry.load_file(kernel_file)
    assert second.name == "renamed"
    assert registry.kernels_for("toy") == (second,), "what the file no longer declares is gone"
    assert second.source_digest() != first.source_digest()
    kernel_file.write_text(FILE + "\n1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        registry.load_file(kernel_file)
    assert registry.kernels_for("toy") == (second,), "an edit that fails changes nothing"


def test_a_kernel_from_a_file_is_compiled_and_right(kernel_file: Path) -> None:
    (kernel,) = registry.load_file(kernel_file)
    x = np.arange(35, dtype="f4").reshape(7, 5)
    out = np.full_like(x, np.nan)
    kernel.bind(OUT_SPECS, {"scale": 2.0}, {"block": 8}, 1)(x, x, out)
    np.testing.assert_array_equal(out, 3 * x)


def test_a_reloaded_module_replaces_its_kernels(kernel_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(kernel_file.parent))
    monkeypatch.delitem(sys.modules, "mykernels", raising=False)
    module = importlib.import_module("mykernels")
    (first,) = registry.kernels_for("toy")
    importlib.reload(module)
    (second,) = registry.kernels_for("toy")
    assert second is not first
    kernel_file.write_text("# moved down by an edit\n" + FILE)
    os.utime(kernel_file, ns=(1, 1))
    importlib.reload(module)
    (third,) = registry.kernels_for("toy")
    assert third.line == second.line + 1


def test_a_cell_run_again_replaces_its_kernel() -> None:
    for cell in (1, 2):
        source = textwrap.dedent(FILE)
        exec(compile(source, f"<cell {cell}>", "exec"), {"__name__": "notebook"})
    (kernel,) = registry.kernels_for("toy")
    assert kernel.source_file == "<cell 2>"
    assert len(kernel.source_digest()) == 64


@pytest.mark.parametrize("path", ["no/such/file.py", "."])
def test_what_is_no_python_file_is_refused(path: str) -> None:
    with pytest.raises(RegistrationError, match=r"is no Python file; give the path of a \.py file"):
        registry.load_file(path)


def test_a_file_that_fails_raises_and_leaves_nothing(kernel_file: Path) -> None:
    kernel_file.write_text(FILE + "\nraise ZeroDivisionError('half way')\n")
    with pytest.raises(ZeroDivisionError, match="half way"):
        registry.load_file(kernel_file)
    assert registry.kernels_for("toy") == ()


def test_files_in_the_environment_are_loaded_and_a_broken_one_is_a_warning(
    kernel_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = kernel_file.with_name("broken.py")
    broken.write_text(FILE.replace("from_a_file", "half") + "\nimport not_a_module_at_all\n")
    monkeypatch.setenv("KERNELWRIGHT_KERNELS", os.pathsep.join([str(broken), str(kernel_file), "missing.py"]))
    monkeypatch.setattr(discovery, "_announced_done", False)
    with pytest.warns(ExtensionWarning) as warned:
        found = registry.kernels_for("toy")
    assert [kernel.name for kernel in found] == ["from_a_file"]
    texts = [str(w.message) for w in warned]
    assert len(texts) == 2
    assert "broken.py were left out: ModuleNotFoundError: No module named 'not_a_module_at_all'" in texts[0]
    assert "'missing.py' is no Python file" in texts[1]


def test_entry_points_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "mine-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(
        "[kernelwright.kernels]\nbad = bad_kernels_of_a_test\nmine = kernels_of_a_test\n"
    )
    (tmp_path / "bad_kernels_of_a_test.py").write_text("1 / 0\n")
    (tmp_path / "kernels_of_a_test.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(discovery, "_announced_done", False)
    with pytest.warns(ExtensionWarning, match=r"entry point 'bad' \(bad_kernels_of_a_test\) .*ZeroDivision"):
        found = registry.kernels_for("toy")
    assert [kernel.name for kernel in found] == ["from_a_file"]


@pytest.mark.parametrize("kind", ["archive", "egg"])
def test_what_can_not_be_looked_into_may_announce_kernels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setattr(discovery.sys, "path", [str(tmp_path / "missing"), str(tmp_path)])
    assert not discovery._some_package_announces()
    if kind == "archive":
        (tmp_path / "all.zip").write_bytes(b"")
        discovery.sys.path.append(str(tmp_path / "all.zip"))
    else:
        (tmp_path / "mine.egg").mkdir()
    assert discovery._some_package_announces()


def test_a_built_in_file_without_its_framework_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    def import_module(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=wanted)

    monkeypatch.setattr(discovery, "_missing", {})
    monkeypatch.setattr(discovery.importlib, "import_module", import_module)
    wanted = "triton"
    discovery._import_built_in(("toy", "cuda"), "kernelwright.kernels.toy.cuda_triton")
    assert registry.missing("toy", "cuda:0") == ("cuda_triton needs 'triton', which is not installed",)
    wanted = "kernelwright.kernels.typo"
    with pytest.raises(ModuleNotFoundError):
        discovery._import_built_in(("toy", "cuda"), "kernelwright.kernels.toy.cuda_triton")


def test_nothing_is_discovered_by_importing_the_package() -> None:
    program = """
        import sys
        import kernelwright as kw
        from kernelwright.kernels import registry
        assert not any("matmul" in name for name in sys.modules), sorted(sys.modules)
        kw.array([[1.0]]), kw.kernel, kw.using
        assert not [n for n in sys.modules if n.startswith("kernelwright.kernels.matmul.")]
        assert "numba" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True, timeout=60)


def test_kernels_of_an_unknown_op_are_refused() -> None:
    with pytest.raises(RegistrationError, match="no op 'matmull'"):
        registry.kernels_for("matmull")


def test_a_numba_function_can_be_declared_as_it_is(kernel_file: Path) -> None:
    numba = pytest.importorskip("numba")

    @kw.kernel("toy")
    @numba.njit(parallel=True)
    def parallel(x, y, out):  # type: ignore[no-untyped-def]
        for i in numba.prange(x.shape[0]):
            for j in range(x.shape[1]):
                out[i, j] = x[i, j] + 2.0 * y[i, j]

    (kernel,) = registry.kernels_for("toy")
    assert kernel.name == "parallel"
    x = np.arange(35, dtype="f4").reshape(7, 5)
    out = np.full_like(x, np.nan)
    before = numba.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel.bind(OUT_SPECS, TOY.complete({}), {}, 1)(x, x, out)
    np.testing.assert_array_equal(out, 3 * x)
    assert numba.get_num_threads() == before


def test_the_registry_is_whole_after_threads_register_at_once(toy: Op) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def add(i: int) -> None:
        registry.kernel("toy", name=f"k{i}", rank=i, binds=True)(_bind)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, range(200)))
    assert len(registry.kernels_for("toy")) == 200
