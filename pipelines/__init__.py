"""The graphs, and the command that compiles, runs or submits them."""
