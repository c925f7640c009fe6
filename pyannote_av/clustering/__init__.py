"""Systems that cluster windows of speech, with their networks, tasks and pipelines."""
