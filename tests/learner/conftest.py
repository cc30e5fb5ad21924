"""Numbers only: no deadline for an example, one thread, since a machine that is busy is no failure."""

import hypothesis
import torch

hypothesis.settings.register_profile("learner", deadline=None, max_examples=50)
hypothesis.settings.load_profile("learner")
torch.set_num_threads(1)
