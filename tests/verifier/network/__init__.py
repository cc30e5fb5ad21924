"""Tests of the network lane: real sockets, a scripted server, and the pure rules."""
