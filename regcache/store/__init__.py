"""The disk: content-addressed blobs, the index of entries, and what to drop."""
