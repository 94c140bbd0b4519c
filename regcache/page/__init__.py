"""The page for people: what the service does, what it holds, what went wrong, and how clients are pointed at it."""
