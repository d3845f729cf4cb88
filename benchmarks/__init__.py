"""Speed figures: ratios in one run beside the peer or the limit; scripts, not tests."""
