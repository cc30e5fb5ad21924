"""Where prompts come from, how they are put, and when they are issued."""
