"""Operations, and the hand-written code that computes them.

This room knows arrays of numbers and machines; it knows nothing of graphs or frameworks, and it imports
nothing from the rooms above it. `op` says what an operation is, `registry` which code computes it, `dispatch`
which of that code runs for one call and why, `accuracy` whether its result is right, `tuning` which of its
configurations is fastest.
"""

if __name__ == "kernels":
    raise ImportError(
        "`import kernels` found the source tree itself, not the package: the folder that holds "
        "pyproject.toml *is* `kernelwright`. Write `import kernelwright as kw`, or `from kernelwright import "
        "kernels`."
    )
