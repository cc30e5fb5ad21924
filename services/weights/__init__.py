"""How a policy version travels: packed into flat buckets, broadcast over the process group of one generation."""
