"""stub, replaced by merge"""

from typing import Any, NamedTuple


class A:
    has_penalty = False

    def init(self, key, params):
        return {}, params

    def combine(self, frozen, trained, key=None):
        return trained

    def penalty(self, trained):
        return 0.0

    def merge(self, params):
        return params

    def wrap(self, optimizer, n_steps):
        return optimizer

    def axes(self, axes):
        return {}, axes


def make_adaptation(config, model):
    return A()


Adaptation = A
