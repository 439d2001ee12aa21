"""The HTTP gateway: what it takes, what it refuses, and how it answers."""
