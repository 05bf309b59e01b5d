"""Arrays and the operations that people call on them.

`array` holds the Array, `functional` the operations, `eager` the one path that every eager call takes: check
the inputs, infer the outputs, choose a kernel, run it. This room imports `kernels` and nothing above it.
"""

if __name__ == "engine":
    raise ImportError(
        "`import engine` found the source tree itself, not the package: the folder that holds pyproject.toml "
        "*is* `kernelwright`. Write `import kernelwright as kw`, or `from kernelwright import engine`."
    )
