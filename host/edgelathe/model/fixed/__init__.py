"""Fixed-point simulator: models in integer arithmetic on the host, without any runtime's kernels."""
