"""What graders of the network lane reach other services with: endpoints that the operator named, with their limits."""
