"""Versioned records that travel on the streams, encoded with msgpack. Nothing is pickled."""
