"""How texts become batches: planning, memory, admission, and the asynchronous way through."""
