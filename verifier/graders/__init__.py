"""The graders, one a file; imported in the grader processes when the first response for one arrives."""
