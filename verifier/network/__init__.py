"""Asking other services: what graders of the network lane reach a judge or a reward service with.

An endpoint is a service that the operator named in [verifier.endpoints]; graders choose one by its name. Start reading at
endpoint.py: a call takes its turn, then sends requests with pauses between them (backoff.py), each with a permit of the
circuit breaker (breaker.py decides, circuit.py acts) and within the budget (budget.py). endpoints.py builds them from the
settings, exchange.py is one HTTP request, chat.py the protocol of judges, pointer.py finds fields in an answer, faults.py
says why there is no verdict, and metrics.py is what an operator sees.
"""
