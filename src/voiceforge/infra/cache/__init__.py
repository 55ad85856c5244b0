"""Results kept for a while, in this process or in a Redis server. Losing them costs time, nothing else."""
