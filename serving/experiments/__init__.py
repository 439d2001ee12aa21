"""Assignment, exposures and outcomes, statistics and the verdict of an A/B comparison."""
