"""A warm process for a node's messages, so that none of them waits for imports.

Flower starts a `flwr-clientapp` for every message of a node, which imports torch each time. Here a
SuperNode is started by ``python -P -m deploy.warm flower-supernode …``, which puts a launcher of
that name before Flower's own on ``PATH``. The launcher (`deploy.warm.launcher`) hands its
arguments, environment, folder and standard streams to a fork server (`deploy.warm.server`), which
has imported the libraries that a message needs and forks for each message. Whatever fails before
the fork, the launcher becomes Flower's own `flwr-clientapp` instead.

The fork server imports nothing of this project: a run's app comes from the bundle that travels
with the run, and a fork loads it from there, as a new process would.

``SNOWDROP_WARM=0`` in the node's environment switches all of it off.
"""
