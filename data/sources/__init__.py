"""Where labels come from: Label Studio, plain tables, and a generator for load tests."""
