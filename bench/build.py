"""Builds the suite's own extensions in place, next to their sources, when those are newer."""

import contextlib
from pathlib import Path

BENCH = Path(__file__).parent
MODULES = {
    "bench.load": ["load.pyx", "layout.pxi", "tls.pxi", "histogram.pxi"],
    "bench.peers.send_loop": ["peers/send_loop.pyx"],
}


def build():
    """Build what is out of date. Needs Cython, setuptools and a C compiler."""
    stale = [name for name, sources in MODULES.items() if is_stale(name, sources)]
    if not stale:
        return
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    options = {"extra_compile_args": ["-O3"], "libraries": ["z"]}
    sources = [Extension(name, [str(BENCH / MODULES[name][0])], **options) for name in stale]
    with contextlib.chdir(BENCH.parent):
        extensions = cythonize(sources, build_dir="build/bench", force=True, quiet=True)
        command = Distribution({"name": "bench", "ext_modules": extensions}).get_command_obj("build_ext")
        command.inplace, command.build_temp, command.verbose = True, "build/bench", False
        command.ensure_finalized()
        command.run()


def is_stale(name, sources):
    built = list(BENCH.parent.glob(name.replace(".", "/") + ".*.so"))
    return not built or built[0].stat().st_mtime < max((BENCH / source).stat().st_mtime for source in sources)


if __name__ == "__main__":
    build()
