"""The model that learns: the interface of a training engine, and its adapter to DeepSpeed.

Start reading at protocol.py; deepspeed_setup.py is the only file that imports deepspeed. attention/ is how the model's
layers attend.
"""
