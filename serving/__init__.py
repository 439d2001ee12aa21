"""What answers a request: engines, the analyzer around them, experiments, the registry, the API."""
