"""Model folders in the Hugging Face layout, judged before anything expensive starts.

Start reading at folder.py: everything that is wrong with a folder, from its files' headers. architecture.py says which models
engine and learner compute alike, weights.py whether a checkpoint has the weights that its model asks for. They import
transformers when they are called, because that takes seconds, and never read or hold a weight.
"""
