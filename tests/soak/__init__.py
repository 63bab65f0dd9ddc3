"""The soak: the real server under 70 % of its capacity, for hours, and does anything grow?

    python -m tests.soak --hours 1

``run`` starts the server (through ``serve``, which adds gauges to it) and ``load``, the process that
creates tasks of every kind of ``mix``, is called back, and keeps the books of each (``ledger``).
``samples`` writes down what the server uses, ``judge`` says which bars that holds, ``charts`` draws it.
"""
