"""The laboratory: problems, vendor baselines, timing, statistics, reports and the command line."""

if __name__ == "bench":
    raise ImportError(
        "`import bench` found the folder of a checkout, not the package: write `from kernelwright import "
        "bench` (after `pip install -e .`), or use the command `kernelwright bench`."
    )
