"""What holds regcache to its word."""
