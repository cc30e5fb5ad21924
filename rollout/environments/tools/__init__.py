"""Environment `tools`: the policy calls tools until it answers. Start reading at environment.py.

calls.py reads calls out of what a model family writes; function.py says what a tool is; toolbox.py makes those of the settings.
Each kind of tool has a file of its own.
"""
