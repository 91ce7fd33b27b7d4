"""A site's data: how it is prepared, pinned, fetched and read."""
