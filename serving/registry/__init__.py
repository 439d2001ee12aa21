"""The registry: runs, versions, aliases, and the evidence on which an alias moves."""
