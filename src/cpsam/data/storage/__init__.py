"""How images lie on disk: the decoded cache, parquet shards, the original CIFAR files, the hub."""
