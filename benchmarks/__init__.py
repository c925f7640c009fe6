"""Measurements behind the figures in README, docs and model cards.

``python -m benchmarks`` lists them, and ``python -m benchmarks NAME --help`` explains one. Each is
a module of this folder with

- a docstring: its first line is the entry in the list, the whole is the text of ``--help``;
- ``options(parser)``, which adds its arguments, with :func:`benchmarks._runner.add` for those that
  several benchmarks share;
- ``run(given, results)``, which measures, prints tables, and writes what it found with
  :class:`benchmarks._runner.Results`.

Modules whose name starts with an underscore are shared by benchmarks.
"""
