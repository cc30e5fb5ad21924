"""The `ratchet` command line: the top floor, which starts the other rooms as processes and is imported by none.

Start reading at cli.py, which names the commands. up.py and evaluate.py see a run through: preflight.py checks it,
run_processes.py says which processes it takes, supervisor.py watches them, redis_server.py is their Redis if none is
given, live_display.py shows the run and report.py its result. status.py and doctor.py are the commands of their names.
"""
