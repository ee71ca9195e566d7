"""All that knows Ray: thin shells that wait, call, and feed what comes back into the pure objects."""
