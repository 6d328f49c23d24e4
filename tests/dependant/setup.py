"""An extension that computes with cylstm in C: what a package that depends on it would have."""

from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import cylstm

extension = Extension("dependant", ["dependant.pyx"], include_dirs=[cylstm.get_include()])
beside = str(Path(cylstm.__file__).parents[1])  # where an editable install has cython_api.pxd
setup(ext_modules=cythonize([extension], include_path=[beside], language_level=3))
