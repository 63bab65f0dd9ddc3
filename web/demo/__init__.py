"""The demo: a real server, a real receiver, a few hundred tasks, and an account of every one.

``plan`` says what is created and how it must end, ``server`` runs the server, ``load`` creates
the tasks, ``progress`` follows the status stream, ``verdict`` compares; ``run`` ties them together.
"""
