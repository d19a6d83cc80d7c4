"""Reads and writes images on disk: folders, parquet shards, CIFAR files, the hub, the cache."""
