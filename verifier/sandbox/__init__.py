"""Running graded code where it can do no harm: bubblewrap around a small runner, limits around both.

Start reading at session.py, which loads one program and gives it one test at a time. launch.py starts the sandbox around
runner.py, which is all of ours that runs inside; interpreter.py says which files of the host it sees, seccomp.py which
system calls it may not make, limits.py what it may use, and watch.py with footprint.py looks from outside whether it
does. probe.py finds out whether this machine offers a sandbox, and docs/sandbox.md says what one needs.
"""
