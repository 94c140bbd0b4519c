"""Bytes on the move: from the upstream, through the store, to clients."""
