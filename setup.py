"""Builds fastws._core, the engine. All other facts about the package are in pyproject.toml.

Switches, from the environment (each combination has build directories of its own):

    FASTWS_DEBUG=1                      counters and assertions, -O0 -g
    FASTWS_COVERAGE=1                   gcc's counters of executed lines, which tools/engine_coverage.py reads
    FASTWS_SANITIZE=address,undefined   gcc's or clang's sanitizers, without OpenMP; fuzzer-no-link, too: for libFuzzer
    FASTWS_SANITIZE=thread              gcc's ThreadSanitizer, with OpenMP by tests/lib/openmp.c; several flush threads
                                        from two connections on
"""

import os
import sys
import tempfile
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError

DEBUG = os.environ.get("FASTWS_DEBUG", "0") not in ("", "0")
COVERAGE = os.environ.get("FASTWS_COVERAGE", "0") not in ("", "0")
SANITIZE = os.environ.get("FASTWS_SANITIZE", "")
THREADS = SANITIZE == "thread"

OPENMP_PROBE = """
#include <omp.h>
int main(void) { return omp_get_max_threads() < 1; }
"""


def variant() -> str:
    names = []
    if DEBUG:
        names.append("debug")
    if COVERAGE:
        names.append("coverage")
    if SANITIZE:
        names += SANITIZE.split(",")
    return "-".join(names) or "release"


def compile_flags() -> list[str]:
    flags = ["-Wno-sign-compare"]  # the loops that Cython writes
    if SANITIZE:
        flags += ["-O1", "-g", "-fno-omit-frame-pointer", f"-fsanitize={SANITIZE}"]
        if "undefined" in SANITIZE:
            # UBSan by itself only prints; a finding has to fail the tests.
            flags.append("-fno-sanitize-recover=undefined")
    elif DEBUG:
        flags += ["-O0", "-g"]
    elif COVERAGE:
        flags += ["-O0", "--coverage"]
    else:
        flags += ["-O3", "-fno-plt"]
    if DEBUG or SANITIZE:
        # Python's own flags define NDEBUG, which would drop every assert.
        flags.append("-UNDEBUG")
    return flags


def macros() -> list[tuple[str, str | None]]:
    macros = []
    if DEBUG:
        macros.append(("FASTWS_DEBUG", "1"))
    if THREADS:
        macros += [("FASTWS_FLUSH_SPAN", "1"), ("FASTWS_THREADS_FROM", "2")]
    return macros


def engine() -> Extension:
    rooms = [p for kind in ("*.pxi", "*.pxd", "*.h") for p in Path("fastws/engine").glob(kind)]
    sources = ["fastws/_core.pyx"]
    if THREADS:
        sources.append("tests/lib/openmp.c")
    return Extension(
        "fastws._core",
        sources=sources,
        depends=["fastws/_core.pxd", *sorted(map(str, rooms))],
        include_dirs=["fastws/engine"],
        define_macros=macros(),
    )


class BuildEngine(build_ext):
    """Keeps each variant apart, and takes OpenMP where the compiler has it."""

    def finalize_options(self) -> None:
        super().finalize_options()
        # Fixed places, so that an editable install takes what `build_ext --inplace` has built.
        here = os.path.join("build", f"{sys.implementation.cache_tag}-{variant()}")
        self.build_temp = os.path.join(here, "temp")
        if self.inplace:
            self.build_lib = os.path.join(here, "lib")

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "unix":
            (extension,) = self.extensions
            extension.extra_compile_args += compile_flags()
            if SANITIZE:
                extension.extra_link_args.append(f"-fsanitize={SANITIZE}")
            if COVERAGE:
                extension.extra_link_args.append("--coverage")
            if THREADS:
                # Without the library, for which tests/lib/openmp.c stands in.
                extension.extra_compile_args.append("-fopenmp")
            elif not SANITIZE and self.has_openmp():
                extension.extra_compile_args.append("-fopenmp")
                extension.extra_link_args.append("-fopenmp")
        super().build_extensions()

    def has_openmp(self) -> bool:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder, "probe.c")
            source.write_text(OPENMP_PROBE)
            try:
                # With this output_dir the object lands beside its source.
                objects = self.compiler.compile([str(source)], output_dir="/", extra_postargs=["-fopenmp"])
                self.compiler.link_executable(objects, str(source.with_suffix("")), extra_postargs=["-fopenmp"])
            except (CompileError, LinkError):
                return False
        return True

    def copy_extensions_to_source(self) -> None:
        self.force = True  # the variant asked for replaces the one that lies there, even a newer one
        super().copy_extensions_to_source()


setup(
    ext_modules=cythonize([engine()], build_dir=f"build/cython/{variant()}"),
    cmdclass={"build_ext": BuildEngine},
)
