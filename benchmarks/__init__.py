"""What explanations cost, against one plain gradient: `python -m benchmarks`."""
