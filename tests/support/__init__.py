"""What several tests share: networks, data, processes, finished runs."""
