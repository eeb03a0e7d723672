"""The C programs in native/, compiled where they changed."""

import subprocess

from . import places
from .processes import BenchmarkError


def compile_program(name, *flags):
    source, program = places.BENCHMARKS / f"native/{name}.c", places.WORK / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        places.WORK.mkdir(parents=True, exist_ok=True)
        command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", *flags, "-o", program, source]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0:
            raise BenchmarkError(f"{source} does not compile:\n{result.stderr}")
    return program
