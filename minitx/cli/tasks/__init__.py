"""`minitx run` and `minitx pipelines`: tasks from raw inputs to results."""
