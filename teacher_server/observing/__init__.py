"""What an operations team sees of a service: metrics, request log, structured logs, traces."""
