"""Images that are read while they are needed, by processes of their own."""
