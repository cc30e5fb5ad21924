"""Settings for tests of numbers: no deadline for an example and one thread, since a busy machine is not a failure."""

import hypothesis
import torch

hypothesis.settings.register_profile("learner", deadline=None, max_examples=50)
hypothesis.settings.load_profile("learner")
torch.set_num_threads(1)
