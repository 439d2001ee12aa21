"""What a model is worth: metrics, intervals, slices, baselines and the report."""
