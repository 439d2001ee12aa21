"""The arithmetic of comparisons: sequences, sample ratios, variance, plans."""
