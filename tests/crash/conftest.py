from support import processes  # noqa: F401, it makes the tiny networks of tests/train importable
