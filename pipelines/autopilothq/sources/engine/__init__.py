"""Loads beyond one machine: the steps of a load as tasks for any `concurrent.futures.Executor`."""
