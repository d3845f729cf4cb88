"""What a budget buys, measured: public-only teachers on shards of the private shards' size."""
