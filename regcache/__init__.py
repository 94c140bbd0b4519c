"""A caching reverse proxy for package registries."""
