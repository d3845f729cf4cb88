"""What `benchmarks.serve` starts as processes: a service, its clients, the bare model, a peer."""
