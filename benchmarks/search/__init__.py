"""The samplers and pruners of this service beside plain Optuna's, at equal epochs: ``python -m benchmarks.search``."""
