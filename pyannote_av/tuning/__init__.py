"""Finding the hyper-parameters of pipelines."""
