"""What a device says of a model: latency, throughput, energy, memory, accuracy, with conditions and grade."""
