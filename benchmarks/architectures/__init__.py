"""Each architecture through everything that touches a model: learner, engine, swap, export. Start reading at __main__.py."""
